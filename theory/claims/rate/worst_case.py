"""The descent part of the theorem, certified for every smooth function at small T.

Statement: for x_{t+1} = x_t - eta g_t with |g_t - grad F(x_t)| <= b on any L-smooth F bounded below, and eta <= 1/L,
(1/T) sum_{t<T} |grad F(x_t)|^2 <= 2 Delta/(eta T) + b^2.

Source: the step of the source's main theorem that is about the outer loop; derived here without noise.

Assumptions: F is L-smooth and bounded below, nothing else: no task family is chosen. The meta-gradient enters through
its distance b from grad F only; `rate_pieces` bounds that distance.

Why: the largest left-hand side over all such functions, in every dimension, is the value of a semidefinite program
(performance estimation), of which the solver's dual solution proves an upper bound. See `theory/worst_case.py`.

Setting: L = Delta = 1, eta in {1, 1/2}, b in {0, 1/4, 1}, T = 1, 2, 3, 5, 8.

Controls: the bound without b^2, and with Delta/(eta T) in place of 2 Delta/(eta T), at T = 5, eta = 1, b = 1/4:
explicit functions exceed both, `attained` is their average.

Limits: small T, and no noise. Where the program equals the bound (b = 0, eta = 1/L) the theorem cannot be improved.
"""

from __future__ import annotations

from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.worst_case import RELATIVE_GAP, attained, worst_case

HORIZONS = (1, 2, 3, 5, 8)
CASES = [(eta, b) for eta in (1.0, 0.5) for b in (0.0, 0.25, 1.0)]


def bound(T: int, *, eta: float, b: float, Delta: float = 1.0) -> float:
    """2 Delta/(eta T) + b^2."""
    return 2 * Delta / (eta * T) + b**2


def measure(budget: Budget, seed: int) -> Evidence:
    """The certified value of every case against the bound."""
    items, curves = [], []
    for eta, b in CASES:
        values = [worst_case(T, L=1.0, eta=eta, b=b, Delta=1.0).value for T in HORIZONS]
        bounds = [bound(T, eta=eta, b=b) for T in HORIZONS]
        items += [
            Item(f"eta = {eta}, b = {b}, T = {T}", value, limit)
            for T, value, limit in zip(HORIZONS, values, bounds, strict=True)
        ]
        curves += [
            Curve(f"eta = {eta}, b = {b}", HORIZONS, values),
            Curve("bound" if (eta, b) == CASES[0] else "", HORIZONS, bounds, "predicted"),
        ]
    return Evidence(tuple(items), tuple(curves), latex=r"\frac{2\Delta}{\eta T} + b^2")


def attained_against(Delta: float, b: float) -> Evidence:
    """The average on an explicit function at T = 5, eta = 1, b = 1/4, against a bound that has lost something."""
    found = attained(5, L=1.0, eta=1.0, b=0.25, Delta=1.0)
    return Evidence((Item("eta = 1, b = 1/4, T = 5", found, bound(5, eta=1.0, b=b, Delta=Delta)),))


CLAIM = Claim(
    rule=Rule(
        "every certified worst case is at most the bound, up to the solver's relative gap of 1e-6",
        below=float("inf"),
        above=RELATIVE_GAP,
        relative=True,
    ),
    measure=measure,
    controls={
        "without b^2": lambda *_: attained_against(1.0, 0.0),
        "Delta/(eta T) in place of 2 Delta/(eta T)": lambda *_: attained_against(0.5, 0.25),
    },
    evidence="certified",
    axes=("T", r"largest $(1/T)\,\sum_t |\nabla F(x_t)|^2$"),
)
