"""Nine sets of tasks with exact data, which the statements that one would like to make do not survive.

Statement: ERM and MAML have 3 and 1 stationary points on C0, C1, C2 and C3, 1 and 1 with different minimizers on C4,
and 1 and 3 on C5; on C1 the only minimum of MAML is at ERM's maximum 13/16. With one task: 1 and 1 on C6 and 3 and 3
on C7, although T' changes sign; 1 and 3 on C8, where a minimum of MAML is no copy of ERM's only minimum, and lies
above it.

Source: derived here, against the source's Lemma 1.

Assumptions: none; the data are exact.

Why: MAML averages l_m(T_m), each of which is flatter near its own minimum by (1 - beta l_m'')^2 and less so where
l_m'' is negative. What is left between two wells can be a minimum. On C6 and C7 T turns at minima of l alone, and as
it is not onto it takes their values nowhere else. On C8 T turns where the target is, too far from the minimum for one
step to reach it.

Setting: rho(u) = u^2 / (1 + u^2). C0: rho(x -+ 5/8), beta = 1/8. C1: 2 rho(x - 13/8), 2 rho(x), beta = 3/16. C2:
rho(x - 5/8), 2 rho(x - 5/2), beta = 1/8. C3: mean of (-2 - x - x^2)^2 and (2 + x - x^2)^2, mean of (1 - x)^2 and (3 -
x - x^2)^2, beta = 1/2. C4: (1 - x)^2, 4 x^2, beta = 1/16. C5: weights 3/2, 2, 2 at 13/8, -3/4, 1/2, beta = 5/32.
beta_low L1 is 1/4, 3/4, 1/2, infinite, 1/2 and 5/8. C6: e^x - x - 1, beta = 1, counted from derivatives and zeros
that SymPy finds and signs that balls decide. C7: x^2 / 2 - (8/9) rho(x), beta = 1. C8: x^2 / 2 + 2 rho(x - 4), beta =
1/4, robust regression with weight decay. Each but C6 is confirmed by a second engine.

Controls: no inner step, which is ERM; first-order MAML, whose update leaves out the factor 1 - beta l_m''.

Limits: nine cases; they are examples of what can happen, not of what is common.
"""

from __future__ import annotations

from fractions import Fraction as Q
from typing import NamedTuple

import sympy as sp
from flint import arb

from theory.check.claim import Budget, Claim, Evidence, Item, Rule
from theory.lemma.line import (
    Quotient,
    count,
    erm_slope,
    inner_steps,
    is_root,
    maml_slope,
    mean,
    same,
    signs,
    stationary_points,
    sturm_points,
)
from theory.lemma.setting import CASES, EXACT, counted, counted_case, landscape_of, own_minima


class Exponential(NamedTuple):
    """Numbers of stationary points, whether T' goes from positive to negative, and whether F' is T' l'(T)."""

    erm: int
    maml: int
    folds: bool
    is_product: bool


def exponential(beta: Q = Q(1)) -> Exponential:
    """C6, l = e^x - x - 1, counted: T = x - beta (e^x - 1) has one turning point and tends to -infinity on both sides.

    So it takes a value below the one where it turns at two points, that one at the turning point alone, and no other:
    the stationary points of MAML are the turning point and those that T maps to stationary points of ERM.

    Args:
        beta: beta_low, positive.

    Returns:
        The counts, and what they rest on.
    """
    x = sp.Symbol("x", real=True)
    loss = sp.exp(x) - x - 1
    slope = sp.diff(loss, x)
    inner = x - sp.Rational(beta.numerator, beta.denominator) * slope
    stretch = sp.diff(inner, x)
    points = list(sp.solveset(slope, x, sp.S.Reals))
    (turn,) = sp.solveset(stretch, x, sp.S.Reals)
    top = inner.subs(x, turn)
    ball, middle = sp.lambdify(x, stretch, [{"exp": arb.exp}]), arb(str(sp.N(turn, 20)))
    return Exponential(
        erm=len(points),
        maml=1 + 2 * sum(sp.sign(top - point) == 1 for point in points),
        folds=bool(ball(middle - 1) > 0 > ball(middle + 1)),
        is_product=sp.expand(sp.diff(loss.subs(x, inner), x) - stretch * slope.subs(x, inner)) == 0,
    )


def numbers(name: str, erm: int, maml: int) -> tuple[Item, Item]:
    """Counts beside those of the statement."""
    case = CASES[name]
    return Item(f"{name}: ERM", erm, case.erm), Item(f"{name}: MAML", maml, case.maml)


def measure(budget: Budget, seed: int) -> Evidence:
    """Counts of both engines, and where the points are."""
    items: list[Item] = []
    for name, case in CASES.items():
        found = counted_case(name)
        items += numbers(name, len(found.erm), len(found.maml))
        slopes = erm_slope(case.family), maml_slope(case.family, case.beta)
        agree = [same(sturm_points(slope), points) for slope, points in zip(slopes, found[2:], strict=True)]
        items.append(Item(f"{name}: engines that agree", sum(agree), 2))
    c6 = exponential()
    items += [
        Item("C6: ERM", c6.erm, 1),
        Item("C6: MAML", c6.maml, 1),
        Item("C6: T' changes sign", int(c6.folds), 1),
        Item("C6: F' = T' l'(T)", int(c6.is_product), 1),
        Item("C7: T' changes sign", int({-1, 1} <= signs(inner_steps(*CASES["C7"][:2])[0].stretch)), 1),
        Item("C8: minima of MAML that are no copies", own_minima(counted_case("C8")), 1),
    ]
    c1, c4 = CASES["C1"], CASES["C4"]
    middle = Q(13, 16)
    items += [
        Item("C1: MAML' vanishes at 13/16", int(is_root(maml_slope(c1.family, c1.beta), middle)), 1),
        Item("C1: minima of MAML", count(counted_case("C1").maml, "minimum"), 1),
        Item("C1: ERM' vanishes at 13/16", int(is_root(erm_slope(c1.family), middle)), 1),
        Item("C1: ERM's point there is its maximum", int(counted_case("C1").erm[1].kind == "maximum"), 1),
        Item("C4: ERM' vanishes at 1/5", int(is_root(erm_slope(c4.family), Q(1, 5))), 1),
        Item("C4: MAML' vanishes at 1/5", int(is_root(maml_slope(c4.family, c4.beta), Q(1, 5))), 0),
    ]
    return Evidence(tuple(items), (*landscape_of("C2"), *landscape_of("C5", shift=1.5), *landscape_of("C8", shift=4)))


def no_step(budget: Budget, seed: int) -> Evidence:
    """Counts with beta = 0."""
    return Evidence(
        tuple(
            item
            for name, case in CASES.items()
            for found in [counted(case.family, Q(0))]
            for item in numbers(name, len(found.erm), len(found.maml))
        )
    )


def first_order(budget: Budget, seed: int) -> Evidence:
    """Zeros of (1/M) sum_m l_m'(T_m)."""

    def slope(name: str) -> Quotient:
        case = CASES[name]
        return mean([task.slope(task.inner) for task in inner_steps(case.family, case.beta)])

    return Evidence(
        tuple(
            item
            for name in CASES
            for item in numbers(name, len(counted_case(name).erm), len(stationary_points(slope(name))))
        )
    )


CLAIM = Claim(
    rule=Rule("every number is the predicted one", below=EXACT, above=EXACT),
    measure=measure,
    controls={"beta_low = 0": no_step, "first-order MAML": first_order},
    evidence="proved exactly",
    axes=("x", "loss (C5 shifted up by 1.5, C8 by 4)"),
    scale="linear",
)
