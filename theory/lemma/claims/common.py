"""What all tasks share stays: a common stationary point is one of MAML, and a common minimum is a minimum of MAML.

Statement: for any number of tasks and any beta_low, a stationary point of every l_m is one of MAML, and a local
minimizer of every l_m is a local minimizer of MAML.

Source: derived here; the part of the source's Lemma 1 that holds for several tasks.

Assumptions: support and query set the same; every l_m is twice differentiable. Minimizers need not be strict.

Why: T_m(x) = x where l_m'(x) = 0, for every m, so each term T_m' l_m'(T_m) of F' vanishes; and l_m(T_m(y)) >= l_m(x)
for y near x, as T_m is continuous.

Setting: three polynomial regressions that the parameter 3/4 fits exactly; three whose predictions are all stationary
there, which makes it a minimum of some losses and a maximum of others; two robust regressions with the target 3/4 and
random weights; beta_low = 1/8, 1/2, 2. A number is that of the cases in which the property fails.

Controls: one target, or one input, of one task moved by 1/8.

Limits: one parameter; tasks that differ seldom share stationary points.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction as Q

from synthetic import Exact, ExactFamily, PolynomialRegression, Rational
from theory.check.claim import Budget, Claim, Evidence, Rule
from theory.lemma.line import Point, inner_steps, is_root, maml_slope, stationary_points
from theory.lemma.setting import EXACT, failures, landscape

SHARED = Q(3, 4)
STEPS = (Q(1, 8), Q(1, 2), Q(2))
MOVE = Q(1, 8)


def families(n: int, seed: int, *, move: Q = Q(0)) -> Iterator[tuple[str, ExactFamily]]:
    """n random sets of tasks of each kind that share a stationary point, but for what the first sample is moved."""
    for i in range(n):
        generator = random.Random(f"{seed} common {i}")
        fitted = PolynomialRegression.random(generator, tasks=3, common=SHARED).data
        (a, b, y), *rest = fitted[0]
        yield "fitted exactly", PolynomialRegression([[(a, b, y + move), *rest], *fitted[1:]])
        flat: list[list[tuple[Exact, Exact, Exact]]] = [
            [(-2 * b * SHARED, b, y) for _, b, y in task]
            for task in PolynomialRegression.random(generator, tasks=3).data
        ]
        (a, b, y), *rest = flat[0]
        yield "stationary predictions", PolynomialRegression([[(a + move, b, y), *rest], *flat[1:]])
        (weight, other) = (Q(generator.randint(1, 8), 4) for _ in range(2))
        yield "one target", Rational([[(weight, SHARED + move)], [(other, SHARED)]])


def is_minimum(slope_points: tuple[Point, ...]) -> bool:
    """Whether the shared point is a minimum."""
    return any(p.kind == "minimum" and p.low <= SHARED <= p.high for p in slope_points)


def check(budget: Budget, seed: int, move: Q) -> Evidence:
    """Cases in which the shared point is not stationary for MAML, or a shared minimum is not one."""
    lost: dict[str, list[bool]] = {}
    for kind, family in families(budget.instances, seed, move=move):
        minimum_of_all = all(is_minimum(stationary_points(task.slope)) for task in inner_steps(family, Q(0)))
        for step in STEPS:
            slope = maml_slope(family, step)
            lost.setdefault(f"{kind}, not stationary", []).append(not is_root(slope, SHARED))
            if minimum_of_all:
                lost.setdefault(f"{kind}, not a minimum", []).append(not is_minimum(stationary_points(slope)))
    return Evidence(tuple(failures(label, cases) for label, cases in lost.items()))


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations, and the landscape of two robust regressions with one target."""
    (*_, (_, shared)) = families(1, seed)
    return Evidence(check(budget, seed, Q(0)).items, landscape("", shared, STEPS[1], reach=Q(2)))


def moved(budget: Budget, seed: int) -> Evidence:
    """Violations with the first sample of the first task moved."""
    return check(budget, seed, MOVE)


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"one sample moved": moved},
    evidence="proved exactly",
    axes=("x", "loss"),
    scale="linear",
)
