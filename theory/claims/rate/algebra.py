"""The bound, expanded under the prescribed schedules.

Statement: with beta_low = c1/sqrt T, beta_up = c2/sqrt T, alpha_up = c3/sqrt T, alpha_low = c4 the bound of
`rate_bound` is a polynomial in T^(-1/2) (fresh samples) without constant term; its leading coefficient 2 Delta/c2 +
c2 Lq sq^2/M has no perturbation in it, so Sharp-MAML has MAML's rate with MAML's constant.

Source: "Sharp-MAML matches the convergence rate of MAML"; coefficients derived here.

Assumptions: those of `rate_bound`. Delta is the one of F_T, a number for each T.

Why: sympy expands the same expressions that `rate_bound` evaluates. At order 1/T the coefficient is (Lq c3 + c1 Lq L1
c4 + c1 Lq sg + c1 L2 L0 c4)^2 + c1 c2 (L0 L2 + 4 L1 Lq) sq^2/M for fresh samples, and for shared ones that with 2 c2
Lq (Lq c3 + c1 Lq L1 c4 + c1 L2 L0 c4) sq/sqrt M on top.

Setting: symbols; and two examples in exact rational arithmetic of which one attains b^2 and one comes within a factor
2 - eta of L_F eta V. F = x^2/2 with every perturbation equal to a, from x_0 = 0: the average tends to a^2 = b^2. F =
x^2/2 with noise of variance s^2, from x_0 = 0: it tends to eta s^2/(2 - eta).

Controls: the bound without b^2 and the bound without V, which those examples exceed; the coefficient at 1/T of fresh
samples taken for shared ones; and a perturbation in the leading coefficient.

Limits: the expansion is about the bound, not about the algorithm.
"""

from __future__ import annotations

import math
from fractions import Fraction

import sympy as sp

from synthetic import Constants
from theory.bounds import (
    L0,
    L1,
    L2,
    Delta,
    Lq,
    M,
    T,
    alpha_low,
    alpha_up,
    beta,
    bias,
    eta,
    evaluate,
    rate,
    sg,
    sq,
    variance_fresh,
    variance_shared,
)
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule

c1, c2, c3, c4 = sp.symbols("c1:5", positive=True)
h = sp.Symbol("h", positive=True)
"""T^(-1/2)."""

LEADING = 2 * Delta / c2 + c2 * Lq * sq**2 / M
SECOND = (Lq * c3 + c1 * Lq * L1 * c4 + c1 * Lq * sg + c1 * L2 * L0 * c4) ** 2 + c1 * c2 * (
    L0 * L2 + 4 * L1 * Lq
) * sq**2 / M
SHARED = 2 * c2 * Lq * (Lq * c3 + c1 * Lq * L1 * c4 + c1 * L2 * L0 * c4) * sq / sp.sqrt(M)

STEPS, ETA, SIZE = 64, Fraction(1, 4), Fraction(3, 2)


def coefficients(variance: sp.Expr) -> list[sp.Expr]:
    """Of h^0, h^1 and h^2 in the bound under the prescribed schedules."""
    schedule = {beta: c1 * h, eta: c2 * h, alpha_up: c3 * h, alpha_low: c4, T: h**-2}
    bound = rate(variance).subs(schedule)
    return [sp.diff(bound, h, order).subs(h, 0) / sp.factorial(order) for order in range(3)]


def differs(label: str, found: sp.Expr, expected: sp.Expr) -> Item:
    """0 where the two expressions are equal, else 1."""
    return Item(label, float(sp.simplify(sp.expand(found - expected)) != 0), 0.0)


def average_with_drift() -> Fraction:
    """(1/T) sum x_t^2 of x <- x - eta (x + a) from 0."""
    x, total = Fraction(0), Fraction(0)
    for _ in range(STEPS):
        total += x * x
        x -= ETA * (x + SIZE)
    return total / STEPS


def average_with_noise() -> Fraction:
    """(1/T) sum E x_t^2 of x <- x - eta (x + noise) from 0."""
    square, total = Fraction(0), Fraction(0)
    for _ in range(STEPS):
        total += square
        square = (1 - ETA) ** 2 * square + ETA**2 * SIZE**2
    return total / STEPS


def with_drift(bound: sp.Expr) -> Item:
    """The first example beside what a bound says of it."""
    return Item("constant perturbation: average", float(average_with_drift()), on_the_line(bound, alpha_up=float(SIZE)))


def with_noise(bound: sp.Expr) -> Item:
    """The second example beside what a bound says of it."""
    return Item("noise: average", float(average_with_noise()), on_the_line(bound, sq=float(SIZE)))


def on_the_line(bound: sp.Expr, *, alpha_up: float = 0.0, sq: float = 0.0) -> float:
    """What a bound says of F = x^2/2 from its minimum: one task, no inner step."""
    constants = Constants(L0=math.inf, L1=0.0, L2=0.0, Lq=1.0, sg=0.0, sH=0.0, sq=sq)
    return evaluate(bound, constants, beta=0, eta=float(ETA), alpha_up=alpha_up, alpha_low=0, Delta=0, M=1, T=STEPS)


def measure(budget: Budget, seed: int) -> Evidence:
    """Differences between found and stated coefficients, and the two examples against their term of the bound."""
    fresh, shared = coefficients(variance_fresh), coefficients(variance_shared)
    items = (
        differs("constant term, fresh", fresh[0], sp.Integer(0)),
        differs("constant term, shared", shared[0], sp.Integer(0)),
        differs("order T^(-1/2), fresh", fresh[1], LEADING),
        differs("order T^(-1/2), shared", shared[1], LEADING),
        differs("order 1/T, fresh", fresh[2], SECOND),
        differs("order 1/T, shared", shared[2], SECOND + SHARED),
        with_drift(rate(variance_fresh)),
        with_noise(rate(variance_fresh)),
    )
    exact = [10**k for k in range(1, 7)]
    numbers = {Delta: 1, Lq: 1, L1: 1, L2: 1, L0: 1, sg: 1, sq: 1, M: 3, c1: 1, c2: 1, c3: 1, c4: 1}
    one, two = (float(e.subs(numbers)) for e in (LEADING, SECOND))
    curves = (
        Curve("order T^(-1/2)", exact, [one * t**-0.5 for t in exact], "predicted"),
        Curve("both orders", exact, [one * t**-0.5 + two / t for t in exact]),
    )
    return Evidence(
        items, curves, latex=sp.latex(LEADING) + r"\;T^{-1/2} + \left[" + sp.latex(SECOND) + r"\right] T^{-1}"
    )


CLAIM = Claim(
    rule=Rule("every difference is 0, and every example is at most its term of the bound", float("inf"), 0.0),
    measure=measure,
    controls={
        "without b^2": lambda *_: Evidence((with_drift(rate(variance_fresh) - bias**2),)),
        "without V": lambda *_: Evidence((with_noise(rate(sp.Integer(0))),)),
        "order 1/T of fresh samples for shared ones": lambda *_: Evidence(
            (differs("order 1/T", coefficients(variance_shared)[2], SECOND),)
        ),
        "a perturbation in the leading order": lambda *_: Evidence(
            (differs("order T^(-1/2)", coefficients(variance_fresh)[1], LEADING + Lq * c3**2),)
        ),
    },
    evidence="proved exactly",
    axes=("T", "bound, all constants 1, three tasks"),
)
