"""The average of one run exceeds its bound seldom: as Markov's inequality says, and exponentially so with normal noise.

Statement: with A = (1/T) sum_{t<T} |grad F(x_t)|^2 of a single run and G^2 the bound of `rate_bound`, P(A >= (1 + x)
G^2) is at most 1/(1 + x) whatever the noise with a variance is. If the noise of every step is normal, or sub-Gaussian
like that, with variance s^2 in every direction, the probability is at most the smallest exp(-theta (eta (1 -
lambda/2) T A - eta (1 - lambda) b T sqrt(A) - T L_F eta^2 b^2/2 - Delta) + T theta^2 eta^2 s^2 ((1 - lambda) sqrt(A) +
lambda b)^2/(2 (1 - rho)) - (T d/2) log(1 - rho)) at A = (1 + x) G^2, over rho = theta L_F eta^2 s^2 in (0, 1) for
which it falls from there on.

Source: derived here; the source bounds an expectation, and says nothing of a run.

Assumptions: those of `rate_bound`, for the mean; for normal noise exact support samples, so that the noise of the
meta-gradient is that of the query gradients, (1/M) sum_m (I - beta H_m) xi_m, with s^2 = kappa^2 sq^2/(d M), and
perturbations that are made of samples of their own.

Why: Markov's inequality, and the mean of A is at most G^2. For the other keep the noise n of a step in the descent
lemma, whose terms are L_F eta^2 |n|^2/2 - eta <v, n> with v = (1 - lambda) g - lambda e: for normal n the mean of its
exponential, times theta, is at most (1 - rho)^(-d/2) exp(theta^2 eta^2 s^2 |v|^2/(2 (1 - rho))), so that the product
over the steps is a supermartingale. As theta tends to 0 the exponent over theta is that of the bound itself.

Setting: T = 64. Rare noise: one quadratic query loss, eta = 1/L_F, started in the minimum, so that the bound is
attained but for the last step; the noise is 0, or, with a probability p = 0.99/((1 + x) T) of its own for each x, so
large that one step of it makes A exceed (1 + x) G^2. Normal noise: the same loss; and the wells of `rate_slope` with
exact support samples in their minimum, for every variant. Runs: the budget's seeds times 256, and times 32 on wells.

Controls: 0.75/(1 + x) on rare noise at 1 + x = 4, since Markov's inequality is nearly attained; the bound of normal
noise on rare noise, whose variance is the same; and three times its exponent on normal noise.

Limits: the bound of normal noise is Chernoff's, and too large by more than a constant factor at finite T. From a
distant start Delta is most of the bound, and runs differ little; here they start where they differ most. Noise that is
rarer than a run is long shows in no mean over a few seeds: their average says little of its expectation then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from sharp_maml import Batch, Episode
from synthetic import Constants, Quadratic
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.rate.setting import PRESCRIBED, QUIET, START, lowest, minimum
from theory.rate.theorem import bias, evaluate, rate, smoothness, variance_fresh
from theory.runner import Power, Schedule, run

T = 64
MORE_SEEDS, ON_WELLS = 256, 32
"""Times the budget's seeds."""
RARE = (2.0, 4.0)
"""Multiples of the bound, each with noise that attains Markov's inequality there."""
NORMAL, FAR = (1.25, 1.5), 1.5
"""Multiples of the bound with normal noise; the one of the wells and of a control."""
STEP = Schedule("one step", beta=Power(0, 0), eta=Power(1, 0))
_one, _zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
QUADRATIC = Quadratic(0 * _one, _one, _zero, _zero, xi=1.0)
"""l = 0 and q = x^2/2 + <xi, x>."""
NOISY = replace(QUIET, xi=1.0)
"""Wells with exact support samples."""
GRID = np.linspace(0, 1, 1002)[1:-1]
"""Values of rho."""


@dataclass(frozen=True, eq=False)
class Rare(Quadratic):
    """A quadratic in one dimension whose query noise is 0, or +- xi / sqrt(p) with probability p.

    Attributes:
        p: The probability.
    """

    p: float = 1.0

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n samples of the episode of each task: tensors `M x n x ...`."""
        support, query = super().sample(generator, n)
        uniform = torch.rand((self.tasks, n, 1), generator=generator, dtype=torch.float64)
        centre, slope = query.inputs.unbind(-2)
        slope = slope.sign() * (uniform < self.p) * (self.xi / self.p**0.5)
        return Episode(support, Batch(torch.stack([centre, slope], -2), query.targets))


def chernoff(A: float, known: Constants, *, dim: int, M: int, T: int, **values: float) -> float:
    """The bound of P(A or more) with normal query noise, as the statement has it, the least over a grid of rho.

    Args:
        A: The average, positive.
        known: Constants of the tasks, without noise in the support samples.
        dim: d.
        M: Number of tasks.
        T: Horizon.
        **values: Delta = F(x_0) - inf F; beta, eta, alpha_up and alpha_low.

    Returns:
        The bound, at most 1.
    """
    L, b, eta = evaluate(smoothness, known, **values), evaluate(bias, known, **values), values["eta"]
    variance = (1 + values["beta"] * known.L1) ** 2 * known.sq**2 / (dim * M)
    step, root = L * eta, A**0.5
    theta = GRID / (L * eta**2 * variance)
    drift = theta * eta * T
    spread = T * theta**2 * eta**2 * variance / (2 * (1 - GRID))
    exponent = (
        theta * (values["Delta"] + T * L * eta**2 * b**2 / 2)
        - drift * ((1 - step / 2) * A - (1 - step) * b * root)
        + spread * ((1 - step) * root + step * b) ** 2
        - T * dim / 2 * np.log(1 - GRID)
    )
    # A larger average is at least as improbable only where the exponent falls from here on.
    curvature = drift * (1 - step / 2) - spread * (1 - step) ** 2
    falls = (curvature > 0) & (2 * curvature * root >= (1 - step) * (drift * b + 2 * spread * step * b))
    return float(np.exp(min(0.0, exponent[falls].min(initial=0.0))))


@cache
def on_quadratic(budget: Budget, seed: int, p: float | None) -> NDArray[np.float64]:
    """A of every run on the quadratic, over G^2, which is sq^2; with rare noise, or normal where p is None."""
    family = QUADRATIC if p is None else Rare(**QUADRATIC.__dict__, p=p)
    seeds = MORE_SEEDS * budget.seeds
    averages = run(family, (STEP,), T=(T,), start=_zero[0], seeds=seeds, seed=seed, ascent="shared")
    found: NDArray[np.float64] = averages[0, 0] / QUADRATIC.xi**2
    return found


@cache
def on_wells(budget: Budget, seed: int) -> NDArray[np.float64]:
    """A of every run on the wells, `variants x S`."""
    start = minimum(NOISY, START, PRESCRIBED, (T,))[:, :, None]
    return run(NOISY, PRESCRIBED, T=(T,), start=start, seeds=ON_WELLS * budget.seeds, seed=seed)[:, 0]


def share(label: str, ratios: NDArray[np.float64], multiple: float, predicted: float) -> Item:
    """How many runs have at least so many times the bound."""
    return Item.share(f"{label}, {multiple:g} times the bound", int((ratios >= multiple).sum()), len(ratios), predicted)


def rarity(multiple: float) -> float:
    """The probability of rare noise, of which one step makes an average exceed a multiple of its bound."""
    return 0.99 / (multiple * T)


def of_quadratic(multiple: float) -> float:
    """The bound of normal noise on the quadratic."""
    values = {"Delta": 0.0, "beta": 0.0, "eta": 1.0, "alpha_up": 0.0, "alpha_low": 0.0}
    return chernoff(multiple * QUADRATIC.xi**2, QUADRATIC.constants, dim=1, M=1, T=T, **values)


def of_wells(schedule: Schedule) -> tuple[float, float]:
    """G^2 of a variant on the wells, and the bound of normal noise at a multiple of it."""
    values = {name: getattr(schedule, name).at(T) for name in ("beta", "eta", "alpha_up", "alpha_low")}
    x, known, M = minimum(NOISY, START, (schedule,), (T,))[0, 0], NOISY.constants, NOISY.tasks
    values["Delta"] = float(NOISY.meta_loss(x, values["beta"]) - lowest(NOISY, values["beta"]))
    square = evaluate(rate(variance_fresh), known, M=M, T=T, **values)
    return square, chernoff(FAR * square, known, dim=NOISY.dim, M=M, T=T, **values)


def measure(budget: Budget, seed: int) -> Evidence:
    """Rare noise at the multiples where it is worst, and normal noise on both families."""
    rare = {multiple: on_quadratic(budget, seed, rarity(multiple)) for multiple in RARE}
    normal, wells = on_quadratic(budget, seed, None), on_wells(budget, seed)
    items = [share("rare noise", ratios, multiple, 1 / multiple) for multiple, ratios in rare.items()]
    items += [share("normal noise", normal, multiple, of_quadratic(multiple)) for multiple in NORMAL]
    for schedule, averages in zip(PRESCRIBED, wells, strict=True):
        square, bound = of_wells(schedule)
        items.append(share(f"wells, {schedule.name}", averages / square, FAR, bound))
    x = np.linspace(1.05, 2 * max(RARE), 40)
    shown: Mapping[str, NDArray[np.float64]] = {
        **{f"rare noise for {multiple:g}": ratios for multiple, ratios in rare.items()},
        "normal noise": normal,
    }
    curves = [Curve(label, *_survival(ratios, x)) for label, ratios in shown.items()]
    near = x[x < 2]
    curves += [
        Curve("Markov", x.tolist(), (1 / x).tolist(), "predicted"),
        Curve("of normal noise", near.tolist(), [of_quadratic(one) for one in near], "predicted"),
    ]
    return Evidence(tuple(items), tuple(curves), latex=r"P(A\ge(1+x)\,G^2)\le\frac{1}{1+x}")


def _survival(ratios: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """The multiples that any run reaches, and the share of runs that reach them."""
    shares = (ratios[:, None] >= x).mean(0)
    return x[shares > 0].tolist(), shares[shares > 0].tolist()


def nearly_markov(budget: Budget, seed: int) -> Evidence:
    """Three quarters of Markov's bound."""
    multiple = max(RARE)
    return Evidence((share("rare noise", on_quadratic(budget, seed, rarity(multiple)), multiple, 0.75 / multiple),))


def as_if_normal(budget: Budget, seed: int) -> Evidence:
    """The bound of normal noise for rare noise of the same variance."""
    multiple = max(RARE)
    ratios = on_quadratic(budget, seed, rarity(multiple))
    return Evidence((share("rare noise", ratios, multiple, of_quadratic(multiple)),))


def three_times(budget: Budget, seed: int) -> Evidence:
    """Three times the exponent for normal noise."""
    return Evidence((share("normal noise", on_quadratic(budget, seed, None), FAR, of_quadratic(FAR) ** 3),))


CLAIM = Claim(
    rule=Rule("no probability exceeds its bound", below=float("inf"), above=0.0),
    measure=measure,
    controls={
        "0.75 of Markov's bound": nearly_markov,
        "rare noise as if it were normal": as_if_normal,
        "three times the exponent": three_times,
    },
    evidence="statistical",
    axes=("average / bound", "probability of as much"),
)
