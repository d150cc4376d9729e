"""The source's O~(1/(4 n M)), read without a square root.

Statement: with probability at least 0.95, F(x; P) <= F(x; D) + polylog(N) / (4 N), N = n M, also for polylog = ln N
and ln^2 N.

Source: the last term of the source's bound, O~(1/(4 n M)), taken as it is printed.

Assumptions: none can rescue it: here F has no parameter, so that there is nothing to train, to perturb or to adapt.

Why: a mean of N independent losses deviates by 1/(2 sqrt N); no polylogarithm makes 1/N as large.

Setting: a loss that is 0 or 1 with probability 1/2, whatever x is. The probability that F(x; D) + polylog/(4 N) < 1/2
is a sum of binomial probabilities, computed exactly; N = 10^2 to 10^7.

Controls: the same with a square root, sqrt(polylog/(4 N)), for polylog = ln N and ln^2 N, for which the rule must be
supported.

Limits: N and polylog are stated with every number, as O~ does not; with polylog = ln^2 N the literal form is violated
with probability 0.14 at N = 100 and nearly 1/2 at 10^7.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.stats import binom

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.setting import DELTA

NUMBERS = tuple(10**k for k in range(2, 8))
POLYLOGS: dict[str, Callable[[float], float]] = {
    "1": lambda N: 1.0,
    "ln N": math.log,
    "ln^2 N": lambda N: math.log(N) ** 2,
}


def violated(number: int, slack: float) -> float:
    """P(k/N + slack < 1/2), k ~ Binomial(N, 1/2)."""
    return float(binom.cdf(math.ceil(number * (0.5 - slack)) - 1, number, 0.5))


def literal(name: str) -> list[float]:
    """Probabilities of a violation without the root, over N."""
    return [violated(number, POLYLOGS[name](number) / (4 * number)) for number in NUMBERS]


def rooted(name: str) -> list[float]:
    """Probabilities of a violation with the root, over N."""
    return [violated(number, math.sqrt(POLYLOGS[name](number) / (4 * number))) for number in NUMBERS]


def items(probabilities: dict[str, list[float]]) -> tuple[Item, ...]:
    """Probabilities beside delta."""
    return tuple(
        Item(f"polylog = {name}, N = {number}", p, DELTA)
        for name, of_name in probabilities.items()
        for number, p in zip(NUMBERS, of_name, strict=True)
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Exact probabilities of a violation."""
    found = {name: literal(name) for name in POLYLOGS}
    return Evidence(
        items(found),
        (
            *(Curve(f"polylog = {name}", NUMBERS, of_name) for name, of_name in found.items()),
            Curve("delta", NUMBERS, [DELTA] * len(NUMBERS), "predicted"),
        ),
    )


def with_root(budget: Budget, seed: int) -> Evidence:
    """The restated form."""
    found = {name: rooted(name) for name in list(POLYLOGS)[1:]}
    return Evidence(items(found), tuple(Curve(f"root, {name}", NUMBERS, p, "control") for name, p in found.items()))


CLAIM = Claim(
    rule=Rule("every probability of a violation is at most delta = 0.05", below=math.inf, above=0.0),
    measure=measure,
    controls={"under a square root": with_root},
    evidence="proved exactly",
    expected="refuted",
    literal=True,
    axes=("N = n M", "probability of a violation"),
)
