"""From the Gaussian to the ball: with the right deviation and the mass outside, not with s = alpha.

Statement: E F(x + eps; D) <= max over |eps| <= alpha of F(x + eps; D) + P(chi2_d > (alpha/s)^2) for eps ~ N(0, s^2
I), and with s = alpha / (sqrt d + sqrt ln N) that mass is at most 1/sqrt N.

Source: the step from N(0, alpha^2 I) to the ball that the source's bound takes; the restated form was derived here.

Assumptions: the loss is in [0, 1].

Why: inside the ball F is at most its maximum, outside at most 1. The tail is Laurent's and Massart's.

Setting: one task with samples at 0, x = 0, in 1 to 100 dimensions, alpha = 0.5; E F in closed form, the maximum at
|eps| = alpha; N = 500. And a step: F = 0.1 inside the ball and 1 outside. A number is E F over the right side, or
sqrt N times the mass outside the ball.

Controls: s = alpha without the mass outside the ball; the step without that mass, with the right s.

Limits: in many dimensions s is much smaller than alpha, and the term |x|^2/s^2 of the divergence grows with d. That the
theorem needs the mass, too, does not follow: `generalization_tail`.
"""

from __future__ import annotations

import math

import torch

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.pac_bayes import tail, value, width

DIMENSIONS = (1, 2, 5, 10, 20, 50, 100)
RADIUS, NUMBER = 0.5, 500
INSIDE = 0.1
"""The step inside the ball."""


def gaussian(dim: int, deviation: float) -> float:
    """E F(eps): the risk of the point 0 under samples N(0, s^2 I), by symmetry."""
    origin = torch.zeros((1, dim), dtype=torch.float64)
    return float(Welsch(origin, deviation).task_risk(origin))


def maximum() -> float:
    """1 - exp(-alpha^2/2)."""
    return -math.expm1(-(RADIUS**2) / 2)


def deviation(dim: int) -> float:
    """s."""
    return float(value(width, alpha=RADIUS, d=dim, N=NUMBER))


def step(dim: int, *, added: bool) -> Item:
    """E F of the step over its maximum in the ball, to which the mass outside is added or not."""
    mass = tail(dim, RADIUS, deviation(dim))
    return Item(f"d = {dim}, step", (INSIDE + (1 - INSIDE) * mass) / (INSIDE + (mass if added else 0.0)), 1.0)


def measure(budget: Budget, seed: int) -> Evidence:
    """Both inequalities over dimensions."""
    items, left, right = [], [], []
    for dim in DIMENSIONS:
        s = deviation(dim)
        left.append(gaussian(dim, s))
        right.append(maximum() + tail(dim, RADIUS, s))
        items.append(Item(f"d = {dim}: E F / (maximum + mass outside)", left[-1] / right[-1], 1.0))
        items.append(step(dim, added=True))
        items.append(Item(f"d = {dim}: sqrt N x mass outside", math.sqrt(NUMBER) * tail(dim, RADIUS, s), 1.0))
    return Evidence(
        tuple(items),
        (
            Curve("E F, s = alpha / (sqrt d + sqrt ln N)", DIMENSIONS, left),
            Curve("maximum + mass outside", DIMENSIONS, right, "predicted"),
            Curve("maximum over the ball", DIMENSIONS, [maximum()] * len(DIMENSIONS), "predicted"),
        ),
    )


def same_radius(budget: Budget, seed: int) -> Evidence:
    """s = alpha, and the maximum alone."""
    found = [gaussian(dim, RADIUS) for dim in DIMENSIONS]
    return Evidence(
        tuple(Item(f"d = {dim}", one / maximum(), 1.0) for dim, one in zip(DIMENSIONS, found, strict=True)),
        (Curve("E F, s = alpha", DIMENSIONS, found, "control"),),
    )


def no_mass(budget: Budget, seed: int) -> Evidence:
    """The step without the mass outside the ball."""
    return Evidence(tuple(step(dim, added=False) for dim in DIMENSIONS))


CLAIM = Claim(
    rule=Rule("every ratio is at most 1", below=math.inf, above=0.0),
    measure=measure,
    controls={"s = alpha, without the mass outside": same_radius, "a step, without the mass outside": no_mass},
    evidence="proved exactly",
    axes=("d", "risk"),
)
