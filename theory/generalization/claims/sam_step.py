"""A normalised SAM step is not O(1/n)-stable.

Statement: after one inner step of Sharp-MAML low, x - beta_low grad l(x + alpha_low grad l(x)/|grad l(x)|), the
effect of replacing one of n support samples does not fall with n in the worst case; it is at most 2 beta_low L0^2/n +
2 beta_low L1 alpha_low L0.

Source: derived here; why the source's theorem speaks of Sharp-MAML up.

Assumptions: the loss is L0-Lipschitz with an L1-Lipschitz gradient.

Why: where the support gradient is nearly zero, one sample turns its direction, and the perturbation moves by 2
alpha_low however large n is. Where the gradient is at least mu before and after, it moves by no more than 2 alpha_low
L0/(n mu), and gamma_A = (2 beta_low L0^2/n)(1 + alpha_low L1/mu).

Setting: as `generalization_stability`, alpha_low = 0.1, with n - 1 samples at x, so that the gradient is that of the
first sample alone, divided by n; the slope of the worst change against n between n = 10 and 320, through the core's
`adapt`.

Controls: the gradient step, which is O(1/n); the same SAM step where the support gradient is at least 0.3.

Limits: a worst case; typical support sets are like the second control.
"""

from __future__ import annotations

import math

import torch

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.claims.stability import SIZES, STEP, adapted, difference, gamma, worst
from theory.generalization.pac_bayes import gamma_sam, gamma_sam_steep, value

RADIUS, MU = 0.1, 0.3


def steep(n: int) -> float:
    """The change of a SAM step where all other samples pull along the second coordinate."""
    support = torch.zeros((n, 2), dtype=torch.float64)
    support[:, 1] = 0.5
    replaced = support.clone()
    support[0], replaced[0] = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    one, other = adapted(support, RADIUS), adapted(replaced, RADIUS)
    return difference(one, other, (one + other) / 2 + torch.tensor([1.0, 0.0], dtype=torch.float64))


def slope(label: str, changes: list[float]) -> Item:
    """The exponent of n between the smallest and the largest."""
    return Item(label, math.log(changes[-1] / changes[0]) / math.log(SIZES[-1] / SIZES[0]), 0.0)


def measure(budget: Budget, seed: int) -> Evidence:
    """The exponent of n, and how many changes exceed their worst-case bound."""
    found, mild = [worst(n, RADIUS) for n in SIZES], [steep(n) for n in SIZES]
    known = {"beta": STEP, "L0": Welsch.L0, "L1": Welsch.L1, "alpha": RADIUS}
    bounds = [value(gamma_sam, **known, n=n) for n in SIZES]
    bounds_mild = [value(gamma_sam_steep, **known, mu=MU, n=n) for n in SIZES]
    pairs = zip([*found, *mild], [*bounds, *bounds_mild], strict=True)
    exceeded = sum(change > bound + 1e-12 for change, bound in pairs)
    return Evidence(
        (slope("exponent of n, normalised SAM step", found), Item("bounds exceeded", exceeded, 0.0)),
        (
            Curve("SAM step, worst case", SIZES, found),
            Curve("SAM step, gradient at least 0.3", SIZES, mild),
            Curve("gradient step", SIZES, [worst(n) for n in SIZES]),
            Curve("bound of the SAM step", SIZES, bounds, "predicted"),
            Curve("bound where the gradient is at least 0.3", SIZES, bounds_mild, "predicted"),
            Curve("bound of the gradient step", SIZES, [gamma(n) for n in SIZES], "predicted"),
        ),
        latex=r"2 \beta L_0^2 / n + 2 \beta L_1 \alpha L_0",
    )


def gradient_step(budget: Budget, seed: int) -> Evidence:
    """The exponent of a gradient step."""
    return Evidence((slope("exponent of n, gradient step", [worst(n) for n in SIZES]),))


def steep_gradient(budget: Budget, seed: int) -> Evidence:
    """The exponent of a SAM step with a large support gradient."""
    return Evidence((slope("exponent of n, large gradient", [steep(n) for n in SIZES]),))


CLAIM = Claim(
    rule=Rule("the exponent is within 0.3 of 0, and no bound is exceeded", below=0.3, above=0.3),
    measure=measure,
    controls={"gradient step": gradient_step, "large support gradient": steep_gradient},
    evidence="certified",
    axes=("n", "change of a loss"),
)
