"""Certified counts of two-parameter regression on a torus.

Statement: for sine-phase regression with one task and beta_low L1 < 1, MAML has as many minima, saddles and maxima as
ERM; for ERM and MAML with any number of tasks and any step, #minima - #saddles + #maxima = 0.

Source: derived here; the source's Lemma 1 in two parameters.

Assumptions: no stationary point is degenerate (which the count decides).

Why: for beta L1 < 1 the inner step is a diffeomorphism of the torus, which carries stationary points with their
index. The index sum is the Euler characteristic of the torus.

Setting: three samples a task, one and two tasks, beta_low = 0 (ERM), and beta_low L1 = 1/2, 9/10, 2, where L1 is an
upper bound. Zeros are enclosed by interval branch and prune, decided in rigorous balls (`plane.py`). A number
is that of the certified functions that violate a statement, or of the functions left open beyond 2 per cent of them,
rounded up; those left open are named.

Controls: one point lost, counted twice, or mislabelled; equal numbers asked of two tasks.

Limits: for two tasks either sign occurs, as in `lemma_phase`. Where the inner step folds, zeros may lie too close to
each other for float64 to tell them apart: such a function is left open.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction as Q
from functools import cache, partial

from synthetic import Torus
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Measure, Rule
from theory.lemma.balls import Kind
from theory.lemma.field import Problem
from theory.lemma.plane import Count, Zero, stationary
from theory.lemma.setting import EXACT

RATIOS = (Q(0), Q(1, 2), Q(9, 10), Q(2))
KINDS: tuple[Kind, ...] = ("minimum", "saddle", "maximum")
OPEN = 0.02
RULE = Rule("no certified function violates it; above 2 per cent left open, inconclusive", below=EXACT, above=EXACT)
Found = dict[Q, list[Count]]
"""Counts of the same functions by beta L1; 0 is ERM."""
Change = Callable[[tuple[Zero, ...]], tuple[Zero, ...]]


def lost(zeros: tuple[Zero, ...]) -> tuple[Zero, ...]:
    """Without the last point."""
    return zeros[:-1]


def doubled(zeros: tuple[Zero, ...]) -> tuple[Zero, ...]:
    """The points with the last one twice."""
    return (*zeros, *zeros[-1:])


def mislabelled(zeros: tuple[Zero, ...]) -> tuple[Zero, ...]:
    """The points with the last one called a saddle, or a minimum if it is one."""
    return (*zeros[:-1], *(z._replace(kind="minimum" if z.kind == "saddle" else "saddle") for z in zeros[-1:]))


MISTAKES: dict[str, Change] = {"one point lost": lost, "one point twice": doubled, "one point mislabelled": mislabelled}


@cache
def counts(budget: Budget, seed: int, tasks: int) -> Found:
    """Counts of the same random tasks for each beta L1; 0 is ERM."""
    n = max(2, budget.instances // 5)
    families = [Torus.random(random.Random(f"{seed} torus {tasks} {i}"), tasks=tasks) for i in range(n)]
    return {ratio: stationary([Problem(family, ratio / Q(family.L1)) for family in families]) for ratio in RATIOS}


def changed(count: Count, change: Change) -> Count:
    """A count with other points."""
    return Count(change(count.zeros), count.undetermined, count.winding)


def unequal(found: Found, ratio: Q) -> int:
    """Certified pairs of ERM and MAML with different numbers of a kind."""
    pairs = zip(found[Q(0)], found[ratio], strict=True)
    return sum(any(a.number(k) != b.number(k) for k in KINDS) for a, b in pairs if a.certified and b.certified)


def certificates(found: Found, label: str, change: Change = lambda zeros: zeros) -> tuple[Item, Item]:
    """Functions whose indices do not add up, and those left open beyond 2 per cent."""
    every = {
        f"#{i} at beta L1 = {ratio}": changed(count, change)
        for ratio, of_ratio in found.items()
        for i, count in enumerate(of_ratio)
    }
    wrong = sum(count.index_sum != count.winding for count in every.values() if not count.undetermined)
    left = [name for name, count in every.items() if count.undetermined]
    excess = max(0, len(left) - math.ceil(OPEN * len(every)))
    names = f" ({'; '.join(left)})" if left else ""
    return (
        Item(f"{label}: index sum wrong, {len(every)} functions", wrong, 0),
        Item(f"{label}: {len(left)} left open{names}, beyond 2 %", excess, 0, within=(0, excess)),
    )


def points(erm: Count, maml: Count) -> Iterator[Curve]:
    """The points of one function for ERM and for MAML with beta L1 = 9/10, a kind a curve."""
    for name, count in (("ERM", erm), ("MAML, beta L1 = 9/10", maml)):
        for kind in KINDS:
            zeros = [zero.value for zero in count.zeros if zero.kind == kind]
            yield Curve(f"{name}: {kind}", [z[0] for z in zeros], [z[1] for z in zeros], "points")


def claim(counts: Callable[[Budget, int, int], Found], *, shown: int, others: Mapping[str, Measure]) -> Claim:
    """The claim of certified counts, which `lemma_tanh` makes of another family.

    Args:
        counts: Counts by beta L1, among them 0, 1/2 and 9/10, from budget, seed and number of tasks.
        shown: How many tasks the function has whose points are drawn, and those that are counted wrongly.
        others: Controls beside the wrong counts, by name.

    Returns:
        The claim.
    """

    def measure(budget: Budget, seed: int) -> Evidence:
        of = {tasks: counts(budget, seed, tasks) for tasks in (1, 2)}
        items = (
            *(item for tasks, found in of.items() for item in certificates(found, f"M = {tasks}")),
            *(Item(f"M = 1, beta L1 = {r}: not equal", unequal(of[1], r), 0) for r in RATIOS[1:3]),
        )
        erm, maml = of[shown][RATIOS[0]], of[shown][RATIOS[2]]
        index = max(range(len(maml)), key=lambda i: maml[i].number())
        return Evidence(items, tuple(points(erm[index], maml[index])))

    def mistaken(budget: Budget, seed: int, *, change: Change) -> Evidence:
        return Evidence(certificates(counts(budget, seed, shown), f"M = {shown}", change))

    return Claim(
        rule=RULE,
        measure=measure,
        controls={**{name: partial(mistaken, change=change) for name, change in MISTAKES.items()}, **others},
        evidence="certified",
        axes=("x_1", "x_2"),
        scale="linear",
    )


def two_tasks(budget: Budget, seed: int) -> Evidence:
    """Equal numbers asked of two tasks."""
    found = counts(budget, seed, 2)
    return Evidence(
        tuple(Item(f"M = 2, beta L1 = {ratio}: not equal", unequal(found, ratio), 0) for ratio in RATIOS[1:])
    )


CLAIM = claim(counts, shown=2, others={"equal numbers for two tasks": two_tasks})
