"""With a small enough inner step, MAML has as many stationary points as ERM on a compact region.

Statement: on a compact region on whose boundary ERM has no stationary point and inside which none is degenerate,
there is a beta_0 > 0 below which ERM and MAML have equal numbers of minima and of maxima there.

Source: derived here.

Assumptions: those of the statement.

Why: F' tends to R' uniformly on the region, with its derivative, as beta_low tends to 0, and simple zeros persist
(implicit function theorem).

Setting: random robust and polynomial regressions of two and three tasks, on the interval that reaches 1 beyond the
outermost points of ERM. beta_low is halved from 1 until the numbers are equal, at most 24 times, and must give equal
numbers at three further halvings. A number is that of the cases where it does not. The figure shows how small the
step must be.

Controls: tasks whose ERM has a degenerate minimum, (c + x^2)^2 and (c - x^2)^2 for random c: MAML has three
stationary points for every small step, ERM one; the whole line in place of the interval, for polynomials, whose inner
step folds far out however small it is.

Limits: beta_0 is not given in advance; it depends on the tasks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from fractions import Fraction as Q
from itertools import chain

import numpy as np

from synthetic import ExactFamily, PolynomialRegression
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.claims.lemma import EXACT, counted, polynomials, robust
from theory.line import count, erm_slope

HALVINGS = 24
FURTHER = 3


def equal(family: ExactFamily, beta: Q, reach: float) -> bool:
    """As many minima and as many maxima, `reach` beyond the points of ERM; on the boundary is outside."""
    case = counted(family, beta)
    inside = [
        point for point in case.maml if case.erm[0].low - point.low < reach and point.high - case.erm[-1].high < reach
    ]
    return all(count(case.erm, kind) == count(inside, kind) for kind in ("minimum", "maximum"))


def halvings(family: ExactFamily, reach: float) -> int | None:
    """How often 1 must be halved until the numbers are equal and stay so; None if that is not seen."""
    for k in range(HALVINGS + 1):
        if all(equal(family, Q(1, 2 ** (k + more)), reach) for more in range(FURTHER + 1)):
            return k
    return None


def check(label: str, families: Iterable[ExactFamily], reach: float = 1) -> tuple[Item, list[int]]:
    """Cases in which equal numbers are not reached, and the halvings of the others."""
    found = [halvings(family, reach) for family in families]
    return Item(f"{label}, {len(found)} cases", found.count(None), 0), [k for k in found if k is not None]


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


def whole_line(budget: Budget, seed: int) -> Evidence:
    """Polynomials, counted on the whole line."""
    families = filter(nondegenerate, polynomials(max(4, budget.instances // 20), seed, tasks=2))
    item, _ = check("polynomials, whole line", families, reach=math.inf)
    return Evidence((item,))


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"ERM with a degenerate minimum": degenerate, "whole line": whole_line},
    evidence="proved exactly",
    axes=("halvings of beta_low = 1", "share of cases with equal numbers from here on"),
    scale="linear",
)
