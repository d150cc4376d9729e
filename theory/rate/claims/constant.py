"""sqrt(T) times the average tends to a known number.

Statement: under the prescribed schedules sqrt(T) (1/T) sum_{t<T} E |grad F(x_t)|^2 tends to [F_0(x_0) - F_0(x*)]/c2 +
(c2/2) tr(Hess F_0(x*) Sigma), for MAML and Sharp-MAML up, low and both alike; x* is the minimum that gradient descent
reaches from x_0, F_0 the meta-loss at beta_low = 0, Sigma the covariance of the averaged query gradient. The number is
at most the leading coefficient of the bound, Delta/c2 + c2 Lq sq^2/(2M), which no average exceeds in the limit.

Source: derived here; the source's O(1/sqrt T) names no constant.

Assumptions: those of `rate_bound`; and the runs stay in the basin of x*, which holds for the wells because the noise
of a step, beta_up sq/sqrt(M), is small against the distance of the wells.

Why: the upper side is proved, with the coefficient of the bound (`rate_algebra`): F_0(x*) >= inf F_0 and tr(Hess F_0
Sigma) <= Lq sq^2/M, so that the two numbers are equal on quadratics (`rate_sharp`). That the limit is this number on
other tasks is a heuristic. Telescoping F along the run, the descent eta sum |grad F|^2 pays for F(x_0) - F(x*) and for
the noise, whose cost a step is (eta^2/2) tr(Hess Sigma) near x*; divide by eta T with eta = c2/sqrt T.

Setting: wells in two dimensions with five tasks, four times as many as the budget's seeds, every one drawn by the base
seed as the part's text has it and run once, with shared samples, up to the largest horizon. A number is the mean of
their averages over the mean of their own limits.

Controls: the update summed over the tasks, and a query noise 1.2 times as large, both held against the same limits: a
check that looks at slopes only would see neither. They go half as far.

Limits: one size, because a limit needs the largest horizon. At finite T the average lies below the limit, as the figure
shows; the region allows four per cent. The lower side is no theorem.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synthetic import Wells
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.rate.exponents import against_horizon, ratio
from theory.rate.setting import FAR_OUT, MAML, PRESCRIBED, apart, instances, leading, minimum
from theory.runner import OFF, Schedule, horizons, run

MORE_SEEDS = 4
"""Times the budget's: a limit is compared to four per cent."""
ENDS = (PRESCRIBED[0], PRESCRIBED[-1])
"""MAML and both."""
START = torch.full((2,), FAR_OUT, dtype=torch.float64)


@cache
def tasks(budget: Budget, seed: int) -> Wells:
    """The drawn instances."""
    return instances(apart(seed), MORE_SEEDS * budget.seeds, dim=len(START), tasks=5)


@cache
def limit(family: Wells) -> NDArray[np.float64]:
    """[F_0(x_0) - F_0(x*)]/c2 + (c2/2) tr(Hess F_0(x*) Sigma), Sigma = sq^2/(M d) I, of each instance."""
    c2, still = MAML.eta.c, MAML.but("beta_low = 0", beta=OFF)
    x = minimum(family, START, [still], [1])[0, 0]
    # No instance depends on another: the gradient summed over them has the Hessian of each.
    hessian = torch.func.jacrev(lambda x: family.meta_gradient(x, 0.0).sum(0))(x)
    noise = torch.einsum("isi->s", hessian) * family.constants.sq**2 / (family.tasks * family.dim)
    descent = family.meta_loss(START, 0.0) - family.meta_loss(x, 0.0)
    found: NDArray[np.float64] = (descent / c2 + c2 / 2 * noise).numpy()
    return found


def averages(
    budget: Budget,
    seed: int,
    schedules: tuple[Schedule, ...],
    T: tuple[int, ...],
    *,
    noise: float = 1.0,
    update: Literal["mean", "sum"] = "mean",
) -> dict[str, NDArray[np.float64]]:
    """The averages of every schedule, `H x S`, by its name; with a factor on the query noise."""
    family = tasks(budget, seed)
    family = replace(family, xi=noise * family.xi)
    seeds = MORE_SEEDS * budget.seeds
    found = run(family, schedules, T=T, start=START, seeds=seeds, seed=seed, ascent="shared", update=update)
    return dict(zip((schedule.name for schedule in schedules), found, strict=True))


def items(measured: dict[str, NDArray[np.float64]], T: int, limits: NDArray[np.float64]) -> tuple[Item, ...]:
    """sqrt(T) x average at the last horizon, T, over the limit of the wells as they are."""
    return tuple(ratio(f"{name}, T = {T}", values[-1] * T**0.5, limits) for name, values in measured.items())


def measure(budget: Budget, seed: int) -> Evidence:
    """All variants, at the largest horizon."""
    T = horizons(budget.log2_horizon, budget.log2_horizon - 4)
    family = tasks(budget, seed)
    measured = averages(budget, seed, PRESCRIBED, T)
    limits, leadings = limit(family), leading(family, START)
    curves = (
        *(against_horizon(name, T, of_variant, times=0.5) for name, of_variant in measured.items()),
        Curve("limit", T, [float(limits.mean())] * len(T), "predicted"),
        Curve("leading coefficient of the bound", T, [float(leadings.mean())] * len(T), "predicted"),
    )
    return Evidence(items(measured, T[-1], limits), curves, latex=LATEX)


def summed(budget: Budget, seed: int) -> Evidence:
    """The update summed over the tasks, an octave less far."""
    T = 2 ** (budget.log2_horizon - 1)
    return Evidence(items(averages(budget, seed, ENDS, (T,), update="sum"), T, limit(tasks(budget, seed))))


def noisier(budget: Budget, seed: int) -> Evidence:
    """A query noise 1.2 times as large, an octave less far."""
    T = 2 ** (budget.log2_horizon - 1)
    return Evidence(items(averages(budget, seed, ENDS, (T,), noise=1.2), T, limit(tasks(budget, seed))))


LATEX = r"\frac{F_0(x_0)-F_0(x^*)}{c_2}+\frac{c_2}{2}\,\mathrm{tr}(\nabla^2F_0(x^*)\Sigma)"

CLAIM = Claim(
    rule=Rule("sqrt(T) x average over the limit lies in 1 +- 0.04", below=0.04, above=0.04),
    measure=measure,
    controls={"update summed over tasks": summed, "query noise x 1.2": noisier},
    evidence="statistical",
    axes=("T", r"$\sqrt{T}\cdot(1/T)\,\sum_t E|\nabla F(x_t)|^2$"),
)
