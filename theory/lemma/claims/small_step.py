"""With a small enough inner step, MAML has as many stationary points as ERM on a compact region.

Statement: if the second derivatives of the losses are Lipschitz, then on a compact region on whose boundary ERM has
no stationary point and inside which none is degenerate, there is a beta_0 > 0 below which ERM and MAML have equal
numbers of minima and of maxima there.

Source: derived here.

Assumptions: those of the statement; the second derivatives must be Lipschitz on a neighbourhood of the region.

Why: F' tends to R' uniformly on the region as beta_low tends to 0, and so does the Lipschitz constant of F' - R',
which is of order beta_low. Near a simple zero of R', F' is then monotone, too, and has one zero; away from them it
has none.

Setting: random robust and polynomial regressions of two and three tasks, on the interval that reaches 1 beyond the
outermost points of ERM. beta_low is halved from 1 until the numbers are equal, at most 24 times, and must give equal
numbers at three further halvings. A number is that of the cases where it does not. The figure shows how small the
step must be.

Controls: two losses whose second derivatives are Hoelder continuous with exponent 9/10 and not Lipschitz, l_1' = 1 +
x + |x|^1.9 / 1.9 and l_2(x) = l_1(-x): R' = x, and MAML has two minima for every small step (F' is odd, and balls
decide its signs at beta_low^10 and at 1); tasks whose ERM has a degenerate minimum, (c + x^2)^2 and (c - x^2)^2 for
random c: MAML has three stationary points for every small step, ERM one; the whole line in place of the interval, for
polynomials, whose inner step folds far out however small it is.

Limits: beta_0 is not given in advance; it depends on the tasks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from fractions import Fraction as Q
from itertools import chain

import numpy as np
from flint import arb, ctx

from synthetic import ExactFamily, PolynomialRegression
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import count, erm_slope
from theory.lemma.setting import EXACT, counted, failures, polynomials, robust

HALVINGS = 24
FURTHER = 3
PRECISION = 600
"""Bits: two terms of the size of 1 cancel up to beta^10."""


def equal(family: ExactFamily, beta: Q, reach: float) -> bool:
    """As many minima and as many maxima, `reach` beyond the points of ERM; on the boundary is outside."""
    case = counted(family, beta)
    inside = [
        point for point in case.maml if case.erm[0].low - point.low < reach and point.high - case.erm[-1].high < reach
    ]
    return all(count(case.erm, kind) == count(inside, kind) for kind in ("minimum", "maximum"))


def halvings(family: ExactFamily, reach: float) -> int | None:
    """How often 1 must be halved until the numbers are equal and stay so; None if that is not seen."""
    first = k = 0  # the numbers are equal from the first of the steps up to k
    while first <= HALVINGS:
        if not equal(family, Q(1, 2**k), reach):
            first = k + 1
        elif k - first == FURTHER:
            return first
        k += 1
    return None


def check(label: str, families: Iterable[ExactFamily], reach: float = 1) -> tuple[Item, list[int]]:
    """Cases in which equal numbers are not reached, and the halvings of the others."""
    found = [halvings(family, reach) for family in families]
    return failures(label, [k is None for k in found]), [k for k in found if k is not None]


def nondegenerate(family: ExactFamily) -> bool:
    """No stationary point of R is one of R'."""
    slope = erm_slope(family)
    return slope.numerator.gcd(slope.derivative().numerator).degree() == 0


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations over random tasks, and how small the step must be."""
    n = max(2, budget.instances // 5)
    items, curves = [], []
    drawn: dict[str, Iterable[ExactFamily]] = {
        "robust": chain(robust(n, seed, tasks=2), robust(n // 5, seed, tasks=3)),
        "polynomials": chain(polynomials(n, seed, tasks=2), polynomials(n, seed, tasks=3)),
    }
    for label, families in drawn.items():
        item, found = check(label, filter(nondegenerate, families))
        share = np.bincount(found, minlength=12).cumsum() / len(found)
        items.append(item)
        curves.append(Curve(label, list(range(len(share))), share.tolist()))
    return Evidence(tuple(items), tuple(curves))


def degenerate(budget: Budget, seed: int) -> Evidence:
    """Tasks whose ERM has a degenerate minimum."""
    generator = random.Random(seed)
    families = []
    for _ in range(max(2, budget.instances // 10)):
        c = Q(generator.randint(1, 8), 4)
        families.append(PolynomialRegression([[(0, 1, -c)], [(0, 1, c)]]))
    item, _ = check("degenerate", families)
    return Evidence((item,))


def rough_slope(x: arb, beta: arb) -> arb:
    """MAML' at x > 0 on the two losses of the first control."""
    power = arb(19) / 10

    def slope(y: arb, side: int) -> arb:
        return y + side * (1 + abs(y) ** power / power)

    return (
        sum(
            ((1 - beta * (1 + side * x ** (power - 1))) * slope(x - beta * slope(x, side), side) for side in (1, -1)),
            arb(0),
        )
        / 2
    )


def rough(budget: Budget, seed: int) -> Evidence:
    """Second derivatives that are not Lipschitz: steps at which MAML has a minimum at x > 0, and so at -x."""
    with ctx.workprec(PRECISION):
        steps = [arb(1) / 2**k for k in range(FURTHER, HALVINGS + 1)]
        found = sum(bool(rough_slope(beta**10, beta) < 0 < rough_slope(arb(1), beta)) for beta in steps)
    return Evidence((Item(f"rough: more minima than ERM, {len(steps)} steps", found, 0),))


def whole_line(budget: Budget, seed: int) -> Evidence:
    """Polynomials, counted on the whole line."""
    families = filter(nondegenerate, polynomials(max(4, budget.instances // 20), seed, tasks=2))
    item, _ = check("polynomials, whole line", families, reach=math.inf)
    return Evidence((item,))


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={
        "second derivatives not Lipschitz": rough,
        "ERM with a degenerate minimum": degenerate,
        "whole line": whole_line,
    },
    evidence="proved exactly",
    axes=("halvings of beta_low = 1", "share of cases with equal numbers from here on"),
    scale="linear",
)
