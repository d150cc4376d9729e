"""The bound, expanded under the prescribed schedules.

Statement: with beta_low = c1/sqrt T, beta_up = c2/sqrt T, alpha_up = c3/sqrt T, alpha_low = c4 the bound of
`rate_bound` is a0 T^(-1/2) + b1 sqrt(a0) T^(-3/4) + O(1/T) with a0 = Delta/c2 + c2 Lq sq^2/(2M) and b1 = Lq c3 + c1 Lq
L1 c4 + c1 Lq sg + c1 L2 L0 c4. The leading coefficient a0 has no perturbation in it, so Sharp-MAML has MAML's rate
with MAML's constant; and it cannot be improved, because a quadratic attains both of its terms.

Source: "Sharp-MAML matches the convergence rate of MAML"; coefficients derived here.

Assumptions: those of `rate_bound`. Delta is the one of F_T, a number for each T.

Why: sympy expands the same expressions that `rate_bound` evaluates, in powers of T^(-1/4). At order 1/T the coefficient
is b1^2/2 + c2 Lq a0/2 + c1 c2 (L0 L2 + 4 L1 Lq) sq^2/(2M) for fresh samples, and for shared ones that with c2 Lq (b1 -
c1 Lq sg) sq/sqrt M on top. The bound is the best of a family: 2 |g| |e| <= c |g|^2 + |e|^2/c, for any c > 0, makes the
average at most [2 Delta/(eta T) + lambda (b^2 + V) + (1 - lambda) b^2/c]/[2 - lambda - (1 - lambda) c], lambda = L_F
eta. c = 1 gives 2 Delta/(eta T) + b^2 + lambda V, whose leading coefficient is 2 a0; c = b/G, of order T^(-1/4), gives
G^2, the bound. On F = L x^2/2 with noise of variance V and b = 0 the average is known at every T. It falls short of
the bound by [2 Delta r/(eta T) + V (1 - r)/((2 - lambda) T)]/(2 - lambda), r = (1 - lambda)^(2T), which is of a smaller
order than the bound when lambda T grows.

Setting: symbols.

Controls: the coefficient at 1/T of fresh samples taken for shared ones; a perturbation in the leading coefficient; the
leading coefficient of c = 1; and 0.97 times the bound, to which the quadratic does not tend.

Limits: the expansion is about the bound, not about the algorithm. Whether an algorithm attains the order T^(-3/4) was
not asked.
"""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.rate.theorem import (
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
    sg,
    smoothness,
    sq,
    stationarity,
    variance_fresh,
    variance_shared,
)

c1, c2, c3, c4 = sp.symbols("c1:5", positive=True)
k = sp.Symbol("k", positive=True)
"""T^(-1/4)."""
L, b, V, c, g, e, G = sp.symbols("L b V c g e G", positive=True)

LEADING = Delta / c2 + c2 * Lq * sq**2 / (2 * M)
BIAS = Lq * c3 + c1 * Lq * L1 * c4 + c1 * Lq * sg + c1 * L2 * L0 * c4
SECOND = BIAS * sp.sqrt(LEADING)
THIRD = BIAS**2 / 2 + c2 * Lq * LEADING / 2 + c1 * c2 * (L0 * L2 + 4 * L1 * Lq) * sq**2 / (2 * M)
SHARED = c2 * Lq * (BIAS - c1 * Lq * sg) * sq / sp.sqrt(M)


@cache
def coefficients(variance: sp.Expr) -> list[sp.Expr]:
    """What T^(-1/2), T^(-3/4) and 1/T have in the bound under the prescribed schedules; no power is larger.

    The bound is homogeneous, an item of the claim says: b over k, V and Delta over k^2 take k^2 out of it. What is left
    is analytic at k = 0.
    """
    schedule = {beta: c1 * k**2, eta: c2 * k**2, alpha_up: c3 * k**2, alpha_low: c4, T: k**-4}

    def taylor(expression: sp.Expr) -> list[sp.Expr]:
        return [sp.diff(expression, k, n).subs(k, 0) / sp.factorial(n) for n in range(3)]

    pieces = (
        sum(sp.simplify(term) * k**n for n, term in enumerate(taylor(piece.subs(schedule))))
        for piece in (smoothness, bias, variance)
    )
    of_F, of_gradient, of_noise = pieces
    bound = stationarity(of_F, sp.expand(of_gradient / k), of_noise / k**2)
    return taylor(bound.subs({**schedule, Delta: Delta / k**2}))


def differs(label: str, found: sp.Expr, expected: sp.Expr) -> Item:
    """0 where the two expressions are equal, else 1."""
    return Item(label, float(sp.simplify(sp.expand(found - expected)) != 0), 0.0)


def derivation() -> tuple[Item, ...]:
    """The steps of the proof that are algebra; g and e stand for vectors, of which the identity is bilinear."""
    step = L * eta
    bound = stationarity(L, b, V)
    rest = 2 * Delta / (eta * T) + step * (b**2 + V)
    descent = -eta * g * (g + e) + L * eta**2 / 2 * (g + e) ** 2
    completed = -eta * (1 - step / 2) * g**2 - eta * (1 - step) * g * e + L * eta**2 / 2 * e**2
    split = (rest + (1 - step) * b**2 / c) / (2 - step - (1 - step) * c)
    short_step = {eta: 1 / (L * (1 + c))}  # any one below 1/L
    height = sp.solve((2 - step) * G**2 - 2 * (1 - step) * b * G - rest, Delta)[0]
    return (
        differs("descent lemma at g + e", descent, completed),
        differs(
            "the bound is the root",
            ((2 - step) * bound - rest).subs(short_step),
            (2 * (1 - step) * b * sp.sqrt(bound)).subs(short_step),
        ),
        differs("the split with c = b/G is the bound", split.subs({c: b / G, Delta: height}), G**2),
        differs("the split with c = 1", split.subs(c, 1), 2 * Delta / (eta * T) + b**2 + step * V),
        differs("homogeneous", stationarity(L, c * b, c**2 * V).subs(Delta, c**2 * Delta), c**2 * bound),
    )


def on_the_quadratic(factor: sp.Expr) -> tuple[Item, ...]:
    """The average on F = L x^2/2 with noise: that it is right, and that `factor` times the bound is its limit."""
    step = L * eta
    start = 2 * L * Delta  # |grad F(x_0)|^2
    plateau = step * V / (2 - step)
    square = plateau + (1 - step) ** (2 * T) * (start - plateau)
    total = T * plateau + (1 - (1 - step) ** (2 * T)) / (step * (2 - step)) * (start - plateau)
    r = (1 - step) ** (2 * T)
    short = (2 * Delta * r / (eta * T) + V * (1 - r) / ((2 - step) * T)) / (2 - step)
    return (
        differs("quadratic: first square", square.subs(T, 0), start),
        differs("quadratic: next square", square.subs(T, T + 1), (1 - step) ** 2 * square + L**2 * eta**2 * V),
        differs("quadratic: no sum", total.subs(T, 0), sp.Integer(0)),
        differs("quadratic: next sum", total.subs(T, T + 1), total + square),
        differs("quadratic: the bound less the average", factor * stationarity(L, sp.Integer(0), V) - total / T, short),
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Differences between what sympy finds and what is stated."""
    fresh, shared = coefficients(variance_fresh), coefficients(variance_shared)
    items = (
        *derivation(),
        *on_the_quadratic(sp.Integer(1)),
        differs("order T^(-1/2), fresh", fresh[0], LEADING),
        differs("order T^(-1/2), shared", shared[0], LEADING),
        differs("order T^(-3/4), fresh", fresh[1], SECOND),
        differs("order T^(-3/4), shared", shared[1], SECOND),
        differs("order 1/T, fresh", fresh[2], THIRD),
        differs("order 1/T, shared", shared[2], THIRD + SHARED),
    )
    exact = [10**n for n in range(1, 7)]
    numbers = {Delta: 1, Lq: 1, L1: 1, L2: 1, L0: 1, sg: 1, sq: 1, M: 3, c1: 1, c2: 1, c3: 1, c4: 1}
    one, two, three = (float(term.subs(numbers)) for term in (LEADING, SECOND, THIRD))
    curves = (
        Curve("order T^(-1/2)", exact, [one * t**-0.5 for t in exact], "predicted"),
        Curve("and T^(-3/4)", exact, [one * t**-0.5 + two * t**-0.75 for t in exact]),
        Curve("and 1/T", exact, [one * t**-0.5 + two * t**-0.75 + three / t for t in exact]),
    )
    latex = [sp.latex(term) for term in (LEADING, BIAS)]
    return Evidence(
        items, curves, latex=rf"a_0 T^{{-1/2}} + b_1\sqrt{{a_0}}\,T^{{-3/4}},\quad a_0={latex[0]},\quad b_1={latex[1]}"
    )


CLAIM = Claim(
    rule=Rule("every difference is 0", float("inf"), 0.0),
    measure=measure,
    controls={
        "order 1/T of fresh samples for shared ones": lambda *_: Evidence(
            (differs("order 1/T", coefficients(variance_shared)[2], THIRD),)
        ),
        "a perturbation in the leading order": lambda *_: Evidence(
            (differs("order T^(-1/2)", coefficients(variance_fresh)[0], LEADING + Lq * c3**2),)
        ),
        "the leading coefficient of c = 1": lambda *_: Evidence(
            (differs("order T^(-1/2)", coefficients(variance_fresh)[0], 2 * LEADING),)
        ),
        "0.97 times the bound on the quadratic": lambda *_: Evidence(on_the_quadratic(sp.Rational(97, 100))),
    },
    evidence="proved exactly",
    axes=("T", "bound, all constants 1, three tasks"),
)
