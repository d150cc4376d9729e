"""The steps at which the number of stationary points of MAML on C0 changes.

Statement: on C0, MAML has 3 stationary points up to beta_1, where its two minima merge into one, then 1 up to beta_2,
where two pairs appear at once, 5 up to beta_3, where its minimum at 0 splits, then 7; at beta_1 and at beta_3, F''(0)
= 0.

Source: derived here; C0 is `lemma_counterexamples`.

Assumptions: none; the data are rational numbers.

Why: C0 is symmetric, so 0 is stationary for every beta_low, and three points become one there where F''(0) = T'^2
rho''(T - a) + T'' rho'(T - a) at x = 0 changes sign (T = T_1, a = 5/8).

Setting: exact counts at both ends of brackets of width 2^-40, found by bisection in [0, 1/4], [1/4, 5/4] and [5/4,
3/2]; the sign of F''(0) at those ends from a formula in which SymPy differentiates; F''(0) has no zero in the bracket
of beta_2.

Controls: first-order MAML, and MAML without the term with T'', that is, with the Gauss-Newton part of the Hessian
alone.

Limits: one family; brackets say where the count changes, not that it does so only once in between.
"""

from __future__ import annotations

from fractions import Fraction as Q
from functools import cache, partial

import sympy as sp

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import bracket, count, maml_slope, stationary_points
from theory.lemma.setting import CASES, EXACT

WIDTH = Q(1, 2**40)
BRACKETS = {"beta_1": (Q(0), Q(1, 4), 3, 1), "beta_2": (Q(1, 4), Q(5, 4), 1, 5), "beta_3": (Q(5, 4), Q(3, 2), 5, 7)}
"""Where it is looked for, and the counts on both sides."""


@cache
def brackets() -> dict[str, tuple[Q, ...]]:
    """Brackets of the steps at which the count changes."""
    return {name: bracket(partial(has, before), low, high, WIDTH) for name, (low, high, before, _) in BRACKETS.items()}


def has(points: int, beta: Q) -> bool:
    """Whether MAML on C0 has that many stationary points."""
    return number(beta) == points


def number(beta: Q) -> int:
    """Stationary points of MAML on C0."""
    return count(stationary_points(maml_slope(CASES["C0"].family, beta)))


@cache
def curvature(*, bend: int, step: int) -> sp.Expr:
    """d/dx [T'^step rho'(T - a)] at x = 0 with the term of T'' times `bend`, as a function of beta."""
    x, beta = sp.symbols("x beta")
    a = sp.Rational(5, 8)
    u = sp.Symbol("u")
    slope = sp.diff(u**2 / (1 + u**2), u)
    inner = x - beta * slope.subs(u, x - a)
    first, second = sp.diff(inner, x), sp.diff(inner, x, 2)
    value = first ** (1 + step) * sp.diff(slope, u).subs(u, inner - a) + bend * second * slope.subs(u, inner - a)
    return sp.cancel(value.subs(x, 0))


def changes_sign(expression: sp.Expr, low: Q, high: Q) -> bool:
    """Whether a function of beta has opposite signs at two rational numbers."""
    beta = sp.Symbol("beta")
    at_low, at_high = (expression.subs(beta, sp.Rational(end.numerator, end.denominator)) for end in (low, high))
    return bool(at_low * at_high < 0)


def signs(*, bend: int, step: int) -> tuple[Item, ...]:
    """Whether the second derivative at 0 changes sign in each bracket."""
    expression = curvature(bend=bend, step=step)
    return tuple(
        Item(f"{name}: F''(0) changes sign", int(changes_sign(expression, low, high)), int(name != "beta_2"))
        for name, (low, high) in brackets().items()
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Counts at the ends of the brackets, signs of F''(0), and the diagram."""
    items = []
    for name, (low, high) in brackets().items():
        *_, before, after = BRACKETS[name]
        items += [
            Item(f"{name} > {float(low):.12f}: points", number(low), before),
            Item(f"{name} < {float(high):.12f}: points", number(high), after),
        ]
    steps = [Q(i, 128) for i in range(193)]
    found = [
        (float(beta), point) for beta in steps for point in stationary_points(maml_slope(CASES["C0"].family, beta))
    ]
    curves = tuple(
        Curve(
            kind,
            [beta for beta, point in found if point.kind == kind],
            [point.value for beta, point in found if point.kind == kind],
            "points",
        )
        for kind in ("minimum", "maximum")
    )
    return Evidence((*items, *signs(bend=1, step=1)), curves)


def first_order(budget: Budget, seed: int) -> Evidence:
    """Signs of d/dx rho'(T - a)."""
    return Evidence(signs(bend=0, step=0))


def gauss_newton(budget: Budget, seed: int) -> Evidence:
    """Signs of T'^2 rho''(T - a)."""
    return Evidence(signs(bend=0, step=1))


CLAIM = Claim(
    rule=Rule("every number is the predicted one", below=EXACT, above=EXACT),
    measure=measure,
    controls={"first-order MAML": first_order, "without T''": gauss_newton},
    evidence="proved exactly",
    axes=("beta_low", "stationary points of MAML on C0"),
    scale="linear",
)
