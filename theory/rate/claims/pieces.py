"""The three constants of the bound bound what they are for.

Statement: |Hess F| <= L_F = kappa^2 Lq + beta L2 L0. The expected meta-gradient differs from grad F by at most b =
kappa Lq (kappa alpha_up + beta L1 alpha_low) + beta L2 L0 (alpha_up + alpha_low) + beta Lq sg sqrt(kappa^2 + beta^2
sH^2). One task's meta-gradient has variance at most v = kappa^2 sq^2 + beta^2 (kappa Lq sg + sH L0)^2 + beta^2 sH^2
sq^2; without perturbations also at most the V of shared samples, where L1 is that of every sample.

Source: derived here; the source assumes "F Lipschitz and smooth" instead, which is enough for the part of alpha_up only
(`rate_assumptions`).

Assumptions: A1 and A3 in one dimension, with constants that are known. The support gradient and the Hessian come from
one sample, as in the algorithm, so their deviations are not independent.

Why: Hess F = mean (I - beta H)^T Hess q (I - beta H) - beta (D H) grad q. Perturbations move the point of grad q by
kappa alpha_up + beta L1 alpha_low and the factor I - beta H by beta L2 (alpha_up + alpha_low). Inner noise moves the
point by beta (noise), and is met by I - beta H~ of the same sample: Cauchy and Schwarz for b, Minkowski for v.

Setting: losses are sums of a well, a linear and a quadratic term (support) or a well, a linear and a Huber term
(query); their coefficients carry the noise, which takes two values, so that expectations are exact sums. The cases:
tight (l = 1 - cos x, q = 1 - cos(x - pi)); skew (a second harmonic); noisy (skew with noise in every coefficient);
linear (q = x, where only L2 and sH act); and three where one sample gives gradient and Hessian, at a point where that
matters: to the variance, to the bias, and to the query noise. The meta-gradient is the core's; grad F is differentiated
from its definition, without the core. Perturbations of both signs are made by ascent episodes whose gradients, of
length 3, point where they are told; 720 points a period.

Controls: every term left out where it acts, (1 + beta L1/2)^2 in place of (1 + beta L1)^2 in L_F, and b and v as they
would be if gradient and Hessian had samples of their own.

Limits: largest values over a grid and over full radii are not suprema; that the constants hold everywhere is the
proof above. The check tries to break it. Without perturbation and noise b is 0: the core's gradient must be grad F up
to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product

import sympy as sp
import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params, meta_gradient, meta_loss
from synthetic import Constants
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Measure, Rule
from theory.rate import theorem as bounds
from theory.rate.theorem import evaluate

BETAS = (0.1, 0.5, 1.0, 2.0)
SIGNS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
RADII = ((0.0, 0.0), (0.2, 0.0), (0.0, 0.5), (0.2, 0.5))
LENGTH = 3.0
"""Length of the gradients that the ascent episodes have: the core must bring them to the radius."""
PERIOD = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)[:-1]
ORIGIN = torch.zeros(1, dtype=torch.float64)

Coefficients = tuple[float, float, float]


def huber(u: Tensor) -> Tensor:
    """u^2/2 within [-1, 1], |u| - 1/2 outside."""
    return torch.where(u.abs() < 1, u.square() / 2, u.abs() - 0.5)


@dataclass(frozen=True, eq=False)
class Case:
    """One task in one dimension whose noise takes finitely many values, all equally likely.

    Attributes:
        name: Name in the items.
        constants: Constants of A1 and A3.
        support: Values of the coefficients of 1 - cos x, x, x^2/2.
        query: Values of the coefficients of the query well, x, huber(x - centre).
        centre: Centre of the query terms.
        K: Second harmonic of the query well.
        betas: Inner step sizes.
        radii: Pairs of alpha_up and alpha_low.
        points: Where to look.
    """

    name: str
    constants: Constants
    support: tuple[Coefficients, ...]
    query: tuple[Coefficients, ...]
    centre: float = 0.0
    K: float = 0.0
    betas: tuple[float, ...] = BETAS
    radii: tuple[tuple[float, float], ...] = RADII
    points: Tensor = PERIOD

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Support loss; the batch's inputs are its coefficients."""
        x = params["x"]
        return (batch.inputs * torch.stack([1 - x.cos(), x, x.square() / 2])).sum()

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """Query loss, likewise."""
        x = params["x"]
        u = x - self.centre
        well = (1 - u.cos()) + self.K / 4 * (1 - (2 * u + 0.7).cos())
        return (episode.query.inputs * torch.stack([well, x, huber(u)])).sum()

    def episodes(self) -> list[Episode]:
        """Every value of the noise."""
        return [episode(support, query) for support, query in product(self.support, self.query)]

    def mean(self) -> Episode:
        """The expected losses, which are linear in their coefficients."""
        support, query = (
            torch.tensor(values, dtype=torch.float64).mean(0).tolist() for values in (self.support, self.query)
        )
        return episode(support, query)

    def exact(self, beta: float) -> Tensor:
        """grad F from its definition."""
        mean = self.mean()

        def value(x: Tensor) -> Tensor:
            step = torch.func.grad(lambda x: self.loss({"x": x}, mean.support))(x)
            return self.query_loss({"x": x - beta * step}, mean)

        gradient: Tensor = torch.vmap(torch.func.grad(value))(self.points)
        return gradient


def episode(support: Sequence[float], query: Sequence[float]) -> Episode:
    """The episode with these coefficients."""
    halves = (torch.tensor(values, dtype=torch.float64) for values in (support, query))
    return Episode(*(Batch(inputs, torch.zeros(())) for inputs in halves))


WELL, NONE = (1.0, 0.0, 0.0), (0.0, 0.0, 0.0)
ZETA, XI, HEIGHT = 0.8, 0.5, 0.3
_tight = Constants(L0=1.0, L1=1.0, L2=1.0, Lq=1.0, sg=0.0, sH=0.0, sq=0.0)
_skew = Constants(L0=1.25, L1=1.0, L2=1.0, Lq=1.5, sg=0.0, sH=0.0, sq=0.0)
_noisy = Constants(L0=1.25, L1=1.0, L2=1.0, Lq=1.5, sg=math.hypot(ZETA, HEIGHT), sH=HEIGHT, sq=XI)
_linear = Constants(L0=1.0, L1=1.0, L2=1.0, Lq=0.0, sg=HEIGHT, sH=HEIGHT, sq=0.0)
_heights = ((1 - HEIGHT, 0.0, 0.0), (1 + HEIGHT, 0.0, 0.0))


def one_sample(name: str, slope: float, *, centre: float, betas: tuple[float, ...]) -> Case:
    """l = +-(slope x + x^2/2), q = huber(x - centre) at x = 0: the sign moves gradient and Hessian together."""
    constants = Constants(L0=1.0, L1=0.0, L2=0.0, Lq=1.0, sg=slope, sH=1.0, sq=0.0)
    values = ((0.0, slope, 1.0), (0.0, -slope, -1.0))
    return Case(name, constants, values, ((0.0, 0.0, 1.0),), centre, 0.0, betas, ((0.0, 0.0),), ORIGIN)


CASES = (
    Case("tight", _tight, (WELL,), (WELL,), centre=math.pi),
    Case("skew", _skew, (WELL,), (WELL,), centre=1.0, K=0.5),
    Case(
        "noisy",
        _noisy,
        tuple((height, slope, 0.0) for height, slope in product((1 - HEIGHT, 1 + HEIGHT), (-ZETA, ZETA))),
        ((1.0, -XI, 0.0), (1.0, XI, 0.0)),
        centre=1.0,
        K=0.5,
    ),
    Case("linear", _linear, _heights, ((0.0, 1.0, 0.0),)),
    one_sample("one sample, variance", 1.0, centre=-0.9, betas=(0.05, 0.1)),
    one_sample("one sample, bias", 0.3, centre=0.0, betas=(1.0, 1.5)),
    Case(
        "one sample, query noise",
        Constants(L0=0.0, L1=0.0, L2=0.0, Lq=0.0, sg=0.0, sH=1.0, sq=XI),
        ((0.0, 0.0, 1.0), (0.0, 0.0, -1.0)),
        ((0.0, -XI, 0.0), (0.0, XI, 0.0)),
        betas=(0.5, 1.0),
        radii=((0.0, 0.0),),
        points=ORIGIN,
    ),
)


@cache
def gradients(case: Case, beta: float, up: float, low: float, signs: tuple[int, int]) -> Tensor:
    """The core's meta-gradients, `noise values x points`; the perturbations go up and down as told."""
    towards = episode((0.0, LENGTH * signs[1], 0.0), (0.0, LENGTH * signs[0], 0.0))

    def one(x: Tensor, of: Episode) -> Tensor:
        return meta_gradient(
            case.loss, {"x": x}, [of], beta_low=beta, alpha_low=low, alpha_up=up,
            query_loss=case.query_loss, ascent_episodes=[towards],
        ).grad["x"]  # fmt: skip

    return torch.stack([torch.vmap(lambda x, of=of: one(x, of))(case.points) for of in case.episodes()])


@cache
def curvature(case: Case, beta: float) -> float:
    """Largest |F''|, of the core's meta-loss."""

    def value(x: Tensor) -> Tensor:
        return meta_loss(case.loss, {"x": x}, [case.mean()], beta_low=beta, query_loss=case.query_loss)

    second = torch.vmap(torch.func.jacrev(torch.func.grad(value)))(case.points)
    return float(second.abs().max())


def largest_bias(case: Case, beta: float, *, alpha_up: float, alpha_low: float) -> float:
    """Largest |E meta-gradient - grad F| over points and directions of the perturbations."""
    exact = case.exact(beta)
    return max(
        float((gradients(case, beta, alpha_up, alpha_low, signs).mean(0) - exact).abs().max()) for signs in SIGNS
    )


def largest_variance(case: Case, beta: float, *, alpha_up: float, alpha_low: float) -> float:
    """Largest variance of the meta-gradient, over the same."""
    return max(float(gradients(case, beta, alpha_up, alpha_low, signs).var(0, correction=0).max()) for signs in SIGNS)


def measure(
    budget: Budget,
    seed: int,
    *,
    smoothness: sp.Expr = bounds.smoothness,
    bias: sp.Expr = bounds.bias,
    variance: sp.Expr = bounds.variance_one,
) -> Evidence:
    """Each largest value beside its constant."""
    items: list[Item] = []
    curves: list[Curve] = []

    def compare(
        label: str, case: Case, constant: sp.Expr, largest: Callable[[float], float], *, shown: bool, **radii: float
    ) -> None:
        found = [largest(beta) for beta in case.betas]
        stated = [evaluate(constant, case.constants, beta=beta, **radii) for beta in case.betas]
        for beta, measured, predicted in zip(case.betas, found, stated, strict=True):
            items.append(Item(f"{label}, beta = {beta}", measured, predicted))
        if shown:
            curves.append(Curve(label, case.betas, found))
            curves.append(Curve(f"its constant, {label}", case.betas, stated, "predicted"))

    for case in CASES:
        if case.name.startswith("one sample"):
            of_sample = replace(case, constants=replace(case.constants, L1=1.0))
            off = {"alpha_up": 0.0, "alpha_low": 0.0}
            shared, largest = bounds.variance_shared.subs(bounds.M, 1), partial(largest_variance, of_sample, **off)
            compare(f"variance, {case.name}, shared", of_sample, shared, largest, shown=False, **off)
        else:  # |F''| of a Huber loss is taken at its kinks too
            compare(f"|F''|, {case.name}", case, smoothness, partial(curvature, case), shown=case.name == "tight")
        for up, low in case.radii:
            radii = {"alpha_up": up, "alpha_low": low}
            label = f"{case.name}, alpha_up = {up}, alpha_low = {low}"
            shown = (up, low) == RADII[-1] and case.name in ("tight", "noisy")
            compare(f"bias, {label}", case, bias, partial(largest_bias, case, **radii), shown=shown, **radii)
            if len(case.episodes()) > 1:
                compare(f"variance, {label}", case, variance, partial(largest_variance, case, **radii), shown=shown)
    return Evidence(tuple(items), tuple(curves), latex=sp.latex(bounds.bias))


def without(name: str, *symbols: sp.Symbol) -> Measure:
    """The claim's measurement with a constant in which some symbols are 0."""
    constant = {"smoothness": bounds.smoothness, "bias": bounds.bias, "variance": bounds.variance_one}[name]
    return wrong(name, constant.subs(dict.fromkeys(symbols, 0)))


def wrong(name: str, constant: sp.Expr) -> Measure:
    """The claim's measurement with another constant."""
    return lambda budget, seed: measure(budget, seed, **{name: constant})


_half = (1 + bounds.beta * bounds.L1 / 2) ** 2 * bounds.Lq + bounds.beta * bounds.L2 * bounds.L0
_own_bias = bounds.bias.subs(bounds.sH, 0)
_own_variance = bounds.kappa**2 * (
    bounds.sq**2 + bounds.Lq**2 * bounds.beta**2 * bounds.sg**2
) + bounds.beta**2 * bounds.sH**2 * (bounds.L0**2 + bounds.sq**2)

CLAIM = Claim(
    rule=Rule("no measured value exceeds its constant", below=float("inf"), above=1e-12),
    measure=measure,
    controls={
        "L_F with (1 + beta L1/2)^2": wrong("smoothness", _half),
        "L_F without L2": without("smoothness", bounds.L2),
        "b without alpha_up": without("bias", bounds.alpha_up),
        "b without alpha_low": without("bias", bounds.alpha_low),
        "b without L2": without("bias", bounds.L2),
        "b without the inner noise": without("bias", bounds.sg),
        "b with samples of their own": wrong("bias", _own_bias),
        "v without the query noise": without("variance", bounds.sq),
        "v without the noise of the gradient": without("variance", bounds.sg),
        "v without the noise of the Hessian": without("variance", bounds.sH),
        "v with samples of their own": wrong("variance", _own_variance),
    },
    evidence="illustration",
    axes=("beta_low", "largest value and its constant"),
)
