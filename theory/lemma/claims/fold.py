"""With one task, MAML has more stationary points where the inner step folds the line and still covers it.

Statement: let T(x) = x - beta_low l'(x) for one task. If T' has no zero, in either sign, MAML has the stationary
points of ERM and no others. If T' takes both signs and T maps the line onto the line, MAML has more stationary points
than ERM, and more minima if l comes down on the far left and goes up on the far right.

Source: derived here; the restated form of the source's Lemma 1.

Assumptions: one parameter; support and query set the same; l is twice differentiable with a continuous second
derivative, and has finitely many stationary points. T is onto where l' is bounded, and where l'' tends to infinity on
both sides.

Why: F' = T' l'(T), and T(x) = x where l'(x) = 0. If T' has no zero, T takes no value twice, so that T(x) is a
stationary point of ERM only if x is. If T' takes both signs, T has turning points. One that is not stationary for ERM
is stationary for MAML. If all are, take one, c = T(c), say a local maximum: T is onto, so it exceeds c somewhere, and
takes the value c again on the way there, at a point that ERM does not have. Minima: each of these new points is an
extremum, and extrema alternate.

Setting: random robust regressions (l' -> 0) with beta_low L1 between 1/2 and 4, polynomial regressions of degree four
(l'' -> infinity, so that T' is negative far out and a large step need not fold) with beta_low = 1/8 to 64; C7 with
7/8 and 9/8 of its step, where T is onto; and l'' = 1 + (x - 1)^2, l'(0) = 0, beta_low = 1, where T' has a zero
without changing sign: it can be either way, and here MAML has the two points 0 and 1. The figure also shows how often
MAML has a minimum that is no copy of one of ERM.

Controls: T that folds and is not onto, on C6 and C7; beta_low L1 > 1 in place of the fold, on linear regression,
which never folds however large the step is; the rule of the fold for two tasks.

Limits: one parameter. In more dimensions T folds where I - beta H is singular: see `lemma_torus`. Where T' has zeros
and one sign, nothing is stated. Other losses than those of the setting are drawn in
`tests/theory/lemma/test_statements.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as Q
from functools import partial

from flint import fmpq_poly

from synthetic import ExactFamily, PolynomialRegression
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.claims.counterexamples import exponential
from theory.lemma.line import Quotient, Task, X, balance, count, inner_steps, signs, stationary_points
from theory.lemma.setting import CASES, EXACT, Instance, counted, own_minima, polynomials, robust, violations

RATIOS = (Q(1, 2), Q(9, 10), Q(5, 4), Q(2), Q(4))
STEPS = (Q(1, 8), Q(1), Q(8), Q(64))
Cases = list[tuple[Instance, bool | None]]


def folds(family: ExactFamily, beta: Q) -> bool | None:
    """Whether the inner step of the first task changes direction; None if it stops without turning."""
    found = signs(inner_steps(family, beta)[0].stretch)
    return {-1, 1} <= found if len(found) != 2 else None


def covers(task: Task) -> bool:
    """Whether the inner step maps the line onto the line: it grows as an odd power."""
    degree = task.inner.numerator.degree() - task.inner.denominator.degree()
    return degree > 0 and degree % 2 == 1


def as_stated(case: Instance, fold: bool) -> bool:
    """What the statement says of one task whose inner step folds, or has a derivative without a zero."""
    if not fold:
        return len(case.maml) == len(case.erm)
    minima = balance(case.erm) != 1 or count(case.maml, "minimum") > count(case.erm, "minimum")
    return minima and len(case.maml) > len(case.erm)


def check(cells: dict[str, list[tuple[ExactFamily, Q]]]) -> tuple[tuple[Item, ...], dict[str, Cases]]:
    """Violations of both halves by cell, and the cases, each with whether it folds."""
    items, every = [], {}
    for label, cases in cells.items():
        every[label] = found = [(counted(family, beta), folds(family, beta)) for family, beta in cases]
        for fold, name in ((True, "folds and not more"), (False, "does not fold and not equal")):
            of_fold = [case for case, is_fold in found if is_fold is fold]
            items.append(violations(f"{label}: {name}", partial(as_stated, fold=fold), of_fold))
    return tuple(items), every


def cells(budget: Budget, seed: int, tasks: int) -> dict[str, list[tuple[ExactFamily, Q]]]:
    """Random tasks by cell."""
    return {
        **{
            f"robust, beta L1 = {ratio}": [
                (family, ratio / family.L1) for family in robust(budget.instances, seed, tasks=tasks)
            ]
            for ratio in RATIOS
        },
        **{
            f"polynomials, beta = {step}": [
                (family, step) for family in polynomials(budget.instances, seed, tasks=tasks)
            ]
            for step in STEPS
        },
    }


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations over random tasks and on C7 with steps near its own, and the case between the two halves."""
    c7 = CASES["C7"]
    items, every = check({**cells(budget, seed, 1), "C7": [(c7.family, c7.beta * Q(i, 8)) for i in (7, 9)]})
    # l' = x + ((x - 1)^3 + 1) / 3, so that l'' = 1 + (x - 1)^2
    slope = Quotient.of(fmpq_poly([0, 2, -1]) + fmpq_poly([0, 0, 0, 1]) / 3)
    inner = X - slope
    found = stationary_points(slope(inner) * inner.derivative())
    between = (
        Item("T' without change of sign: ERM", len(stationary_points(slope)), 1),
        Item("T' without change of sign: MAML", len(found), 2),
        Item("T' without change of sign: T' >= 0 or T' <= 0", {-1, 1} <= signs(inner.derivative()), 0),
    )
    shares: dict[str, Callable[[Cases], int]] = {
        "polynomials whose inner step folds": lambda of_step: sum(fold is True for _, fold in of_step),
        "polynomials with a minimum of MAML that is no copy": lambda of_step: sum(
            own_minima(case) > 0 for case, _ in of_step
        ),
    }
    drawn = [every[f"polynomials, beta = {step}"] for step in STEPS]
    return Evidence(
        (*items, *between),
        tuple(
            Curve(name, [float(step) for step in STEPS], [share(of_step) / len(of_step) for of_step in drawn])
            for name, share in shares.items()
        ),
    )


def not_onto(budget: Budget, seed: int) -> Evidence:
    """`More` asked of C6 and C7, where T folds and does not cover the line."""
    items, _ = check({"C7": [(CASES["C7"].family, CASES["C7"].beta)]})
    c6 = exponential()
    return Evidence((*items, Item("C6: folds and not more", int(c6.folds and c6.maml <= c6.erm), 0)))


def size_in_place_of_fold(budget: Budget, seed: int) -> Evidence:
    """`More` asked wherever beta L1 > 1, of linear regression."""
    drawn = list(polynomials(budget.instances, seed, tasks=1))
    lines = [PolynomialRegression([[(a or Q(1), 0, y) for a, _, y in family.data[0]]]) for family in drawn]
    cases = [counted(line, 3 / line.L1) for line in lines]
    return Evidence((violations("beta L1 = 3 and not more", lambda case: len(case.maml) > len(case.erm), cases),))


def two_tasks(budget: Budget, seed: int) -> Evidence:
    """The rule with the fold of the first of two tasks."""
    return Evidence(check(cells(budget, seed, 2))[0])


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={
        "T not onto": not_onto,
        "beta_low L1 > 1 in place of the fold": size_in_place_of_fold,
        "two tasks": two_tasks,
    },
    evidence="proved exactly",
    axes=("beta_low", "share"),
    scale="log",
)
