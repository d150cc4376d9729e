"""The descent part of the theorem, certified for every smooth function at small T.

Statement: for x_{t+1} = x_t - eta g_t with |g_t - grad F(x_t)| <= b on any L-smooth F bounded below, and eta <= 1/L,
(1/T) sum_{t<T} |grad F(x_t)|^2 <= G^2, where G is the positive root, for lambda = L eta, of (2 - lambda) G^2 = 2 (1 -
lambda) b G + 2 Delta/(eta T) + lambda b^2.

Source: the step of the source's main theorem that is about the outer loop; derived here without noise.

Assumptions: F is L-smooth and bounded below, nothing else: no task family is chosen. The meta-gradient enters through
its distance b from grad F only; `rate_pieces` bounds that distance.

Why: the largest left-hand side over all such functions, in every dimension, is the value of a semidefinite program
(performance estimation), of which the solver's dual solution proves an upper bound. See `theory/rate/pep.py`.

Setting: L = Delta = 1, eta in {1, 1/2}, b in {0, 1/4, 1}, T = 1, 2, 3, 5, 8.

Controls: the bound with 0.97 times Delta (T = 8, eta = 1/2, b = 0), with 0.97 times b^2 (T = 64, eta = 1, Delta = 0),
and without b (T = 5, eta = 1, b = 1/4): explicit functions exceed all three, `attained` is their average.

Limits: no instance is drawn, because the largest value is over all functions. Small T, and no noise. Without errors the
program equals the bound up to a factor 1 - (1 - lambda)^(2T), so that for no step the theorem can be improved there.
"""

from __future__ import annotations

import sympy as sp

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Measure, Rule
from theory.rate import theorem as bounds
from theory.rate.pep import RELATIVE_GAP, attained, worst_case

HORIZONS = (1, 2, 3, 5, 8)
CASES = [(eta, b) for eta in (1.0, 0.5) for b in (0.0, 0.25, 1.0)]


def bound(T: int, *, eta: float, b: float, Delta: float = 1.0) -> float:
    """The theorem without noise, for L = 1."""
    values = {bounds.T: T, bounds.eta: eta, bounds.Delta: Delta}
    return float(bounds.stationarity(sp.Integer(1), sp.Float(b), sp.Integer(0)).subs(values))


def measure(budget: Budget, seed: int) -> Evidence:
    """The certified value of every case against the bound."""
    items, curves = [], []
    for eta, b in CASES:
        values = [worst_case(T, L=1.0, eta=eta, b=b, Delta=1.0).value for T in HORIZONS]
        limits = [bound(T, eta=eta, b=b) for T in HORIZONS]
        items += [
            Item(f"eta = {eta}, b = {b}, T = {T}", value, limit)
            for T, value, limit in zip(HORIZONS, values, limits, strict=True)
        ]
        curves += [
            Curve(f"eta = {eta}, b = {b}", HORIZONS, values),
            Curve("bound" if (eta, b) == CASES[0] else "", HORIZONS, limits, "predicted"),
        ]
    return Evidence(tuple(items), tuple(curves), latex=LATEX)


def against(T: int, *, eta: float, b: float, Delta: float, smaller: float) -> Measure:
    """The average on an explicit function against a bound that is too small."""
    found = attained(T, L=1.0, eta=eta, b=b, Delta=Delta)
    return lambda *_: Evidence((Item(f"eta = {eta}, b = {b}, Delta = {Delta}, T = {T}", found, smaller),))


LATEX = r"(2-\lambda)\,G^2 = 2(1-\lambda)\,b\,G + \frac{2\Delta}{\eta T} + \lambda\,b^2,\quad\lambda=L\,\eta"

CLAIM = Claim(
    rule=Rule(
        "every certified worst case is at most the bound, up to the solver's relative gap of 1e-6",
        below=float("inf"),
        above=RELATIVE_GAP,
        relative=True,
    ),
    measure=measure,
    controls={
        "0.97 Delta": against(8, eta=0.5, b=0.0, Delta=1.0, smaller=bound(8, eta=0.5, b=0.0, Delta=0.97)),
        "0.97 b^2": against(64, eta=1.0, b=0.25, Delta=0.0, smaller=bound(64, eta=1.0, b=0.97**0.5 / 4, Delta=0.0)),
        "without b": against(5, eta=1.0, b=0.25, Delta=1.0, smaller=bound(5, eta=1.0, b=0.0)),
    },
    evidence="certified",
    axes=("T", r"largest $(1/T)\,\sum_t |\nabla F(x_t)|^2$"),
)
