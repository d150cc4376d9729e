"""On the line, minima are one more than maxima.

Statement: if every loss comes down on the far left and goes up on the far right, and every T_m maps the line onto the
line, then #minima - #maxima = 1 for ERM and for MAML, whatever the number of tasks.

Source: derived here; the Morse relation of the line.

Assumptions: those of the statement; ERM and all l_m(T_m) have finitely many stationary points.

Why: the derivative is negative far out on the left and positive on the right, and a minimum is where it turns from
negative to positive, a maximum where it turns back. MAML inherits this from ERM where T_m is onto: it then tends to
infinity on one side and to minus infinity on the other, and in either case l_m(T_m) comes down first and goes up
last.

Setting: random robust regressions of one to three tasks and polynomial regressions of one and two, beta_low L1
(beta_low for polynomials) from 1/2 to 4; robust regressions of two tasks with weight decay h = 1, for beta_low h from
1/2 to 4, where T_m is bounded at beta_low h = 1 and onto elsewhere. A number is that of the functions for which it
fails.

Controls: T_m not onto, with weight decay and beta_low h = 1; one point lost, counted twice, or mislabelled.

Limits: it sees a wrong count only if the mistakes do not cancel; `lemma_engines` compares point by point.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as Q
from functools import cache, partial

from synthetic import ExactFamily, Rational
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import Point, balance, count
from theory.lemma.setting import EXACT, MISTAKES, Instance, counted, polynomials, robust

RATIOS = (Q(1, 2), Q(9, 10), Q(2), Q(4))
Points = tuple[Point, ...]


def decaying(n: int, seed: int) -> list[ExactFamily]:
    """Random robust regressions of two tasks with h = 1, targets not 0."""
    return [
        Rational([[(weight, target or 1) for weight, target in task] for task in family.data], decay=1)
        for family in robust(n, seed, tasks=2)
    ]


@cache
def cases(budget: Budget, seed: int) -> dict[str, list[Instance]]:
    """Random tasks by cell."""
    n = budget.instances
    families: dict[str, list[ExactFamily]] = {
        **{f"robust, M = {tasks}": list(robust(n // tasks**2 + 1, seed, tasks=tasks)) for tasks in (1, 2, 3)},
        **{f"polynomials, M = {tasks}": list(polynomials(n, seed, tasks=tasks)) for tasks in (1, 2)},
        "decay, M = 2": decaying(n // 5 + 1, seed),
    }
    return {
        label: [
            counted(family, ratio / (family.L1 if label.startswith("robust") else 1))  # h = 1
            for family in drawn
            for ratio in RATIOS
        ]
        for label, drawn in families.items()
    }


def unbalanced(budget: Budget, seed: int, *, change: Callable[[Points], Points] = lambda points: points) -> Evidence:
    """Functions for which it fails, with the points changed."""
    return Evidence(
        tuple(
            Item(
                f"{label}, {name}, {len(of_cell)} functions",
                sum(balance(change(getattr(case, name.lower()))) != 1 for case in of_cell),
                0,
            )
            for label, of_cell in cases(budget, seed).items()
            for name in ("ERM", "MAML")
        )
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Functions for which it fails; maxima against minima."""
    every = [case.maml for of_cell in cases(budget, seed).values() for case in of_cell]
    pairs = sorted({(count(points, "maximum"), count(points, "minimum")) for points in every})
    return Evidence(
        unbalanced(budget, seed).items,
        (
            Curve("MAML", [maxima for maxima, _ in pairs], [minima for _, minima in pairs], "points"),
            Curve("one more", [0, pairs[-1][0]], [1, pairs[-1][0] + 1], "predicted"),
        ),
    )


def not_onto(budget: Budget, seed: int) -> Evidence:
    """MAML with weight decay and beta_low h = 1."""
    found = [counted(family, Q(1)).maml for family in decaying(budget.instances // 5 + 1, seed)]
    wrong = sum(balance(points) != 1 for points in found)
    return Evidence((Item(f"decay, beta_low h = 1, {len(found)} functions", wrong, 0),))


CLAIM = Claim(
    rule=Rule("no function for which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={
        "T_m not onto": not_onto,
        **{name: partial(unbalanced, change=change) for name, change in MISTAKES.items()},
    },
    evidence="proved exactly",
    axes=("maxima", "minima"),
    scale="linear",
)
