"""The mass of the Gaussian outside the ball is needed by one step of the proof, and hardly by the theorem.

Statement: wherever the square root is at most min(1, 2 N^(-1/4)), the bound holds without P(chi2_d > (alpha/s)^2), at
the N and d below: no data, no loss and no x need that term there.

Source: derived here; `generalization_ball` has the step that needs it.

Assumptions: those of the theorem; delta = 0.05 and C = 1, which are the hardest of all delta <= 0.05 and C >= 1.

Why: only F(x; P) above F(x; D) matters, and the exponential moment of one side is half as large: with h(u) =
exp(u^2/2) Phi(u), the integral of exp(g u) over the positive half of a Gaussian g, E h(c Delta) <= sqrt N / 2, c^2 = 4
(N - 1) / C. ln h is convex and increasing, so that as in the theorem ln h(c E_Q Delta) <= K - ln 2, K = KL_j + ln(sqrt
N / (p_j delta)). The root is sqrt(2 K) / c; it exceeds E_Q Delta by the mass t outside the ball if K - ln h(sqrt(2 K) -
c t) <= ln 2. The left side is convex in sqrt(2 K), hence largest at an end: the smallest K, that of x = 0, or the K of
the largest root.

Setting: N = 4 to 10^6, d = 1 to 1000; for N = 2 and 3 the root is above 1. A number is that left side, the larger of
both ends, beside ln 2. The figure has the largest root for which it suffices, at the d where that is smallest.

Controls: the moment of both sides, sqrt N, which leaves 0 in place of ln 2; roots twice as large.

Limits: for larger roots it is not shown that the term is needed, only that this proof does not do without.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.pac_bayes import complexity, smallest, tail, value, width
from theory.generalization.setting import DELTA

NUMBERS = (4, 10, 100, 1000, 10**4, 10**5, 10**6)
DIMENSIONS = (1, 2, 3, 5, 10, 30, 100, 1000)


def largest_root(number: int) -> float:
    """The root up to which the statement speaks."""
    return min(1.0, 2 / math.sqrt(math.sqrt(number)))


def outside(number: int, dim: int) -> float:
    """t."""
    return tail(dim, 1.0, float(value(width, alpha=1.0, d=dim, N=number)))


def excess(number: int, mass: float, root: float) -> float:
    """K - ln h(sqrt(2 K) - c t) at the K of a root."""
    c = 2 * math.sqrt(number - 1)
    u = c * root
    return u**2 / 2 - ((u - c * mass) ** 2 / 2 + float(norm.logcdf(u - c * mass)))


def smallest_root(number: int) -> float:
    """The root at x = 0, where the divergence is 0."""
    return smallest(complexity, C=1.0, d=1, x_norm=0.0, s=1.0, N=number, delta=DELTA)[0]


def worst(number: int, dim: int, times: float = 1.0) -> float:
    """The larger excess of both ends."""
    mass, end = outside(number, dim), times * largest_root(number)
    return max(excess(number, mass, root) for root in (min(smallest_root(number), end), end))


def reach(number: int) -> float:
    """The root at which the excess is ln 2, for the d where it is smallest, 1 at most."""
    mass = max(outside(number, dim) for dim in DIMENSIONS)
    if excess(number, mass, 1.0) <= math.log(2):
        return 1.0
    return float(brentq(lambda root: excess(number, mass, root) - math.log(2), smallest_root(number), 1.0))


def items(of: tuple[int, ...], *, times: float = 1.0, edge: float = math.log(2)) -> tuple[Item, ...]:
    """Excesses over dimensions."""
    return tuple(
        Item(f"N = {number}, d = {dim}", worst(number, dim, times), edge) for number in of for dim in DIMENSIONS
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Excesses, and how far the argument reaches."""
    return Evidence(
        items(NUMBERS),
        (
            Curve("largest root for which the tail can go", NUMBERS, [reach(number) for number in NUMBERS]),
            Curve("root at x = 0", NUMBERS, [smallest_root(number) for number in NUMBERS], "predicted"),
            Curve("min(1, 2 N^(-1/4))", NUMBERS, [largest_root(number) for number in NUMBERS], "predicted"),
        ),
    )


def both_sides(budget: Budget, seed: int) -> Evidence:
    """The moment that the theorem uses."""
    return Evidence(items(NUMBERS, edge=0.0))


def larger(budget: Budget, seed: int) -> Evidence:
    """Roots twice as large."""
    return Evidence(items((10**4, 10**5, 10**6), times=2.0))


CLAIM = Claim(
    rule=Rule("every excess is at most ln 2", below=math.inf, above=0.0),
    measure=measure,
    controls={"the moment of both sides": both_sides, "roots twice as large": larger},
    evidence="proved exactly",
    axes=("N", "square root"),
)
