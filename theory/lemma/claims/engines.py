"""Two engines that share no algorithm count the same stationary points.

Statement: Descartes' rule of signs on the square-free part (FLINT's arithmetic) and bisection with Sturm sequences
(Python's integers) find the same points, of the same kinds in the same order, of ERM and of MAML, for every random set
of tasks.

Source: derived here; it is what the other claims of this part rest on.

Assumptions: none; the data are rational numbers.

Why: both are proved to find all real roots. What is tested is that they are implemented, and used here, without
error.

Setting: random robust regressions with one, two and three tasks (MAML' has degree 17, 37 and 57), one task with two
targets (69), and polynomial regressions with one and two tasks (11); beta_low L1 in 1/2, 9/10, 2 in turn. A number is
that of the cases in which they disagree or an engine gives no answer.

Controls: the first engine loses a point, finds one twice, or mistakes its kind.

Limits: the derivatives themselves are built once, by exact arithmetic; `lemma_core` compares them with the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction as Q
from functools import cache, partial

from synthetic import ExactFamily
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import Point, Quotient, erm_slope, maml_slope, same, stationary_points, sturm_points
from theory.lemma.setting import EXACT, MISTAKES, polynomials, robust

RATIOS = (Q(1, 2), Q(9, 10), Q(2))
Points = tuple[Point, ...]


def cells(budget: Budget, seed: int) -> Iterator[tuple[str, list[tuple[ExactFamily, Q]]]]:
    """Tasks and steps by cell; fewer where a Sturm sequence takes long."""
    n = budget.instances
    for tasks, samples, of_cell in ((1, 1, n), (2, 1, max(2, n * 3 // 5)), (3, 1, n // 20), (1, 2, n // 20)):
        drawn = robust(max(1, of_cell), seed, tasks=tasks, samples=samples)
        yield (
            f"robust, M = {tasks}, n = {samples}",
            [(family, RATIOS[i % len(RATIOS)] / family.L1) for i, family in enumerate(drawn)],
        )
    for tasks in (1, 2):
        drawn_too = polynomials(n, seed, tasks=tasks)
        yield (
            f"polynomials, M = {tasks}, n = 2",
            [(family, RATIOS[i % len(RATIOS)]) for i, family in enumerate(drawn_too)],
        )


@cache
def found(budget: Budget, seed: int) -> dict[str, list[tuple[Points, Points]]]:
    """What both engines find, by cell."""

    def both(slope: Quotient) -> tuple[Points, Points]:
        return stationary_points(slope), sturm_points(slope)

    return {
        label: [both(slope) for family, beta in cases for slope in (erm_slope(family), maml_slope(family, beta))]
        for label, cases in cells(budget, seed)
    }


def disagreements(budget: Budget, seed: int, *, change: Callable[[Points], Points] = lambda points: points) -> Evidence:
    """Counts that differ, with what the first engine finds changed."""
    return Evidence(
        tuple(
            Item(f"{label}, {len(pairs)} counts", sum(not same(change(one), other) for one, other in pairs), 0)
            for label, pairs in found(budget, seed).items()
        )
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Counts that differ; how many of each number there are."""
    every = [len(one) for pairs in found(budget, seed).values() for one, _ in pairs]
    numbers = sorted(set(every))
    return Evidence(
        disagreements(budget, seed).items,
        (Curve("both engines", numbers, [every.count(number) for number in numbers]),),
    )


CLAIM = Claim(
    rule=Rule("no count in which the engines differ", below=EXACT, above=EXACT),
    measure=measure,
    controls={name: partial(disagreements, change=change) for name, change in MISTAKES.items()},
    evidence="proved exactly",
    axes=("stationary points", "functions"),
    scale="linear",
)
