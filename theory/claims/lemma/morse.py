"""On the line, minima are one more than maxima.

Statement: #minima - #maxima = 1 for ERM and for MAML, whatever the number of tasks and the step.

Source: derived here; the Morse relation of the line.

Assumptions: the function comes down on the far left and goes up on the far right.

Why: the derivative is negative far out on the left and positive on the right, and a minimum is where it turns from
negative to positive, a maximum where it turns back.

Setting: random robust regressions of one to three tasks and polynomial regressions of one and two, beta_low L1
(beta_low for polynomials) from 1/2 to 4. A number is that of the functions for which it fails.

Controls: one point lost, counted twice, or mislabelled.

Limits: it sees a wrong count only if the mistakes do not cancel; `lemma_engines` compares point by point.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as Q
from functools import cache, partial

from synthetic import ExactFamily
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.claims.lemma import EXACT, MISTAKES, Instance, counted, polynomials, robust
from theory.line import Point, balance, count

RATIOS = (Q(1, 2), Q(9, 10), Q(2), Q(4))
Points = tuple[Point, ...]


@cache
def cases(budget: Budget, seed: int) -> dict[str, list[Instance]]:
    """Random tasks by cell."""
    n = budget.instances
    families: dict[str, list[ExactFamily]] = {
        **{f"robust, M = {tasks}": list(robust(n // tasks**2 + 1, seed, tasks=tasks)) for tasks in (1, 2, 3)},
        **{f"polynomials, M = {tasks}": list(polynomials(n, seed, tasks=tasks)) for tasks in (1, 2)},
    }
    return {
        label: [
            counted(family, ratio / (family.L1 if label.startswith("robust") else 1))
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


CLAIM = Claim(
    rule=Rule("no function for which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={name: partial(unbalanced, change=change) for name, change in MISTAKES.items()},
    evidence="proved exactly",
    axes=("maxima", "minima"),
    scale="linear",
)
