"""The three constants of the bound really bound what they are for.

Statement: |Hess F| <= L_F = kappa^2 Lq + beta L2 L0; the expected meta-gradient differs from grad F by at most b =
kappa Lq (kappa alpha_up + beta L1 alpha_low + beta sg) + beta L2 L0 (alpha_up + alpha_low), whatever the
perturbations in their balls; and one task's meta-gradient has variance at most v = kappa^2 (sq^2 + Lq^2 beta^2 sg^2)
+ beta^2 sH^2 (L0^2 + sq^2).

Source: derived here; the source assumes "F Lipschitz and smooth" instead, which is not enough for the bias: L2 and L0
are needed.

Assumptions: A1 and A3, on wells in one dimension, where suprema can be taken over a grid.

Why: Hess F = mean (I - beta H)^T Hess q (I - beta H) - beta (D H) grad q. The bias moves the point of grad q by kappa
alpha_up + beta L1 alpha_low + beta (noise) and the factor I - beta H by beta L2 (alpha_up + alpha_low).

Setting: the meta-gradient and the meta-loss are the core's. L_F on l = 1 - cos x, q = 1 - cos(x - pi), beta in {0.1,
0.5, 1, 2}, second derivatives by automatic differentiation; b on that family and an asymmetric one, without and with
perturbations of both signs, made by ascent episodes whose gradients, of length 3, point where they are told; inner
noise and variance by exact sums over noise of two values. Points: 720 a period. Without perturbation and inner noise
b is 0: the core's gradient must be grad F up to rounding.

Controls: (1 + beta L1/2)^2 in place of (1 + beta L1)^2 in L_F; b without its upper, its lower and its noise term; v
with half of the inner noise.

Limits: suprema over a grid are lower bounds of suprema; that the constants bound them everywhere is the proof above.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product

import sympy as sp
import torch
from torch import Tensor

from sharp_maml import Batch, Episode, meta_gradient, meta_loss
from synthetic import Wells
from theory import bounds
from theory.bounds import evaluate
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule

BETAS = (0.1, 0.5, 1.0, 2.0)
SIGNS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
RADII = ((0.0, 0.0), (0.2, 0.0), (0.0, 0.5), (0.2, 0.5))
LENGTH = 3.0
"""Of the gradients that the ascent episodes have: the core must bring them to the radius."""
GRID = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)[:-1, None]


def well(support: float, query: float, **settings: float) -> Wells:
    """One task in one dimension."""
    centres = torch.tensor([[support], [query]], dtype=torch.float64)
    return Wells(centres[:1], centres[1:], **settings)  # type: ignore[arg-type]


TIGHT = well(0.0, math.pi, K=0.0)
SKEW = well(0.0, 1.0, K=0.5, psi=0.7)
NOISY = replace(SKEW, zeta=0.8, xi=0.5, sA=0.3)


def sample(family: Wells, zeta: float, height: float, xi: float) -> Episode:
    """The episode whose noise has these values: two-valued noise +-zeta, 1 +- sA, +-xi has the stated variances."""

    def batch(centre: Tensor, slope: float, factor: float) -> Batch:
        return Batch(
            torch.stack([centre[0], torch.full((1,), slope, dtype=centre.dtype)]), torch.tensor(factor).double()
        )

    return Episode(batch(family.support_centres, zeta, height), batch(family.query_centres, xi, family.B))


def gradients(family: Wells, episode: Episode, beta: float, up: float, low: float, signs: tuple[int, int]) -> Tensor:
    """The core's meta-gradient on the grid; the perturbations go up and down as told: `points x 1`."""
    (slope_up, slope_low) = (torch.tensor([LENGTH * sign], dtype=torch.float64) for sign in signs)
    towards = Episode(family.pointing(slope_low).support, family.pointing(slope_up).query)

    def one(x: Tensor) -> Tensor:
        return meta_gradient(
            family.loss, {"x": x}, [episode], beta_low=beta, alpha_low=low, alpha_up=up,
            query_loss=family.query_loss, ascent_episodes=[towards],
        ).grad["x"]  # fmt: skip

    return torch.vmap(one)(GRID)


@cache
def curvature(family: Wells, beta: float) -> float:
    """sup |F''| over the grid."""
    episode = sample(family, 0.0, family.A, 0.0)

    def value(x: Tensor) -> Tensor:
        return meta_loss(family.loss, {"x": x}, [episode], beta_low=beta, query_loss=family.query_loss)

    second = torch.vmap(torch.func.jacrev(torch.func.grad(value)))(GRID)
    return float(second.abs().max())


def noises(family: Wells) -> list[Episode]:
    """Every value of the noise; all have the same probability."""
    return [
        sample(family, a * family.zeta, family.A * (1 + b * family.sA), c * family.xi)
        for a, b, c in product((-1, 1), repeat=3)
    ]


@cache
def largest_bias(family: Wells, beta: float, up: float, low: float) -> float:
    """sup |E meta-gradient - grad F| over the grid and the directions of the perturbations."""
    exact = family.meta_gradient(GRID, beta)
    return max(
        float(
            (torch.stack([gradients(family, e, beta, up, low, signs) for e in noises(family)]).mean(0) - exact)
            .abs()
            .max()
        )
        for signs in SIGNS
    )


@cache
def largest_variance(family: Wells, beta: float, up: float, low: float) -> float:
    """sup of the variance of one task's meta-gradient, over the same."""
    return max(
        float(
            torch.stack([gradients(family, e, beta, up, low, signs) for e in noises(family)]).var(0, correction=0).max()
        )
        for signs in SIGNS
    )


def measure(
    budget: Budget,
    seed: int,
    *,
    smoothness: sp.Expr = bounds.smoothness,
    bias: sp.Expr = bounds.bias,
    variance: sp.Expr = bounds.variance_one,
) -> Evidence:
    """Each supremum beside its constant."""
    items, curves = [], []
    found = [curvature(TIGHT, beta) for beta in BETAS]
    stated = [evaluate(smoothness, TIGHT.constants, beta=beta) for beta in BETAS]
    items += [
        Item(f"|F''|, beta = {beta}", *pair) for beta, pair in zip(BETAS, zip(found, stated, strict=True), strict=True)
    ]
    curves += [Curve("sup |F''|", BETAS, found), Curve("L_F", BETAS, stated, "predicted")]
    for name, family in (("tight", TIGHT), ("skew", SKEW), ("noisy", NOISY)):
        for up, low in RADII:
            found = [largest_bias(family, beta, up, low) for beta in BETAS]
            stated = [evaluate(bias, family.constants, beta=beta, alpha_up=up, alpha_low=low) for beta in BETAS]
            items += [
                Item(f"bias, {name}, alpha_up = {up}, alpha_low = {low}, beta = {beta}", *pair)
                for beta, pair in zip(BETAS, zip(found, stated, strict=True), strict=True)
            ]
        curves += [Curve(f"sup bias, {name}", BETAS, found), Curve(f"b, {name}", BETAS, stated, "predicted")]
    for up, low in ((0.0, 0.0), (0.2, 0.5)):
        found = [largest_variance(NOISY, beta, up, low) for beta in BETAS]
        stated = [evaluate(variance, NOISY.constants, beta=beta) for beta in BETAS]
        items += [
            Item(f"variance, alpha_up = {up}, alpha_low = {low}, beta = {beta}", *pair)
            for beta, pair in zip(BETAS, zip(found, stated, strict=True), strict=True)
        ]
    return Evidence(tuple(items), tuple(curves), latex=sp.latex(bounds.bias))


_kappa = bounds.kappa

CLAIM = Claim(
    rule=Rule("every supremum is at most its constant", below=float("inf"), above=1e-12),
    measure=measure,
    controls={
        "(1 + beta L1/2)^2 in L_F": lambda budget, seed: measure(
            budget,
            seed,
            smoothness=bounds.smoothness - _kappa**2 * bounds.Lq + (1 + bounds.beta * bounds.L1 / 2) ** 2 * bounds.Lq,
        ),
        "b without alpha_up": lambda budget, seed: measure(budget, seed, bias=bounds.bias.subs(bounds.alpha_up, 0)),
        "b without alpha_low": lambda budget, seed: measure(budget, seed, bias=bounds.bias.subs(bounds.alpha_low, 0)),
        "b without the inner noise": lambda budget, seed: measure(budget, seed, bias=bounds.bias.subs(bounds.sg, 0)),
        "v without the query noise": lambda budget, seed: measure(
            budget, seed, variance=bounds.variance_one.subs(bounds.sq, 0)
        ),
    },
    evidence="certified",
    axes=("beta_low", "supremum and its constant"),
)
