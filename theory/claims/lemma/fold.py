"""With one task, MAML has more stationary points exactly when the inner step folds the line.

Statement: for one task whose loss grows to infinity or whose derivative tends to 0, T(x) = x - beta_low l'(x): if T'
changes sign, MAML has more stationary points than ERM; if T' has no zero, in either sign, the numbers are equal.

Source: derived here; the restated form of the source's Lemma 1.

Assumptions: one task, support and query set the same.

Why: F' = T' l'(T). T covers the line. Where T' has no zero, every stationary point of ERM has one preimage and there
are no others. Where T' changes sign, T takes some value more than once: either the turning point is a stationary
point that ERM does not have, or its image is a stationary point of ERM, which then has another preimage as well.

Setting: random robust regressions (l' -> 0) with beta_low L1 between 1/2 and 4, polynomial regressions of degree four
(l'' -> infinity, so that T' is negative far out and a large step need not fold) with beta_low = 1/8 to 64, and l'' =
1 + (x - 1)^2, l'(0) = 0, beta_low = 1, where T' has a zero without changing sign: it can be either way, and here MAML
has the two points 0 and 1.

Controls: beta_low L1 > 1 in place of the fold, on linear regression, which never folds however large the step is; the
rule of the fold for two tasks.

Limits: one parameter. In more dimensions T folds where I - beta H is singular: see `lemma_torus`.
"""

from __future__ import annotations

from fractions import Fraction as Q

from flint import fmpq_poly

from synthetic import ExactFamily, PolynomialRegression
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.claims.lemma import EXACT, counted, polynomials, robust
from theory.line import Quotient, X, inner_steps, signs, stationary_points

RATIOS = (Q(1, 2), Q(9, 10), Q(5, 4), Q(2), Q(4))
STEPS = (Q(1, 8), Q(1), Q(8), Q(64))


def folds(family: ExactFamily, beta: Q) -> bool | None:
    """Whether the inner step of the first task changes direction; None if it stops without turning."""
    found = signs(inner_steps(family, beta)[0].stretch)
    return {-1, 1} <= found if len(found) != 2 else None


def check(cells: dict[str, list[tuple[ExactFamily, Q]]]) -> tuple[tuple[Item, ...], dict[str, list[int]]]:
    """Violations of both halves by cell, and how many cases of each fold."""
    items, folded = [], {}
    for label, cases in cells.items():
        wrong = {True: 0, False: 0}
        seen = {True: 0, False: 0, None: 0}
        for family, beta in cases:
            case, fold = counted(family, beta), folds(family, beta)
            seen[fold] += 1
            if fold is not None:
                right = len(case.maml) > len(case.erm) if fold else len(case.maml) == len(case.erm)
                wrong[fold] += not right
        items += [
            Item(f"{label}: {name}, {seen[fold]} cases", wrong[fold], 0)
            for fold, name in ((True, "folds and not more"), (False, "does not fold and not equal"))
        ]
        folded[label] = [seen[True], len(cases)]
    return tuple(items), folded


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
    """Violations over random tasks, and the case between the two halves."""
    items, folded = check(cells(budget, seed, 1))
    # l' = x + ((x - 1)^3 + 1) / 3, so that l'' = 1 + (x - 1)^2
    slope = Quotient.of(fmpq_poly([0, 2, -1]) + fmpq_poly([0, 0, 0, 1]) / 3)
    inner = X - slope
    found = stationary_points(slope(inner) * inner.derivative())
    between = (
        Item("T' without change of sign: ERM", len(stationary_points(slope)), 1),
        Item("T' without change of sign: MAML", len(found), 2),
        Item("T' without change of sign: T' >= 0 or T' <= 0", {-1, 1} <= signs(inner.derivative()), 0),
    )
    steps = [label for label in folded if label.startswith("polynomials")]
    share = [folded[label][0] / folded[label][1] for label in steps]
    return Evidence(
        (*items, *between), (Curve("polynomials whose inner step folds", [float(step) for step in STEPS], share),)
    )


def size_in_place_of_fold(budget: Budget, seed: int) -> Evidence:
    """`More` asked wherever beta L1 > 1, of linear regression."""
    drawn = list(polynomials(budget.instances, seed, tasks=1))
    lines = [PolynomialRegression([[(a or Q(1), 0, y) for a, _, y in family.data[0]]]) for family in drawn]
    wrong = sum(len(case.maml) <= len(case.erm) for case in (counted(line, 3 / line.L1) for line in lines))
    return Evidence((Item(f"beta L1 = 3 and not more, {len(lines)} cases", wrong, 0),))


def two_tasks(budget: Budget, seed: int) -> Evidence:
    """The rule with the fold of the first of two tasks."""
    return Evidence(check(cells(budget, seed, 2))[0])


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"beta_low L1 > 1 in place of the fold": size_in_place_of_fold, "two tasks": two_tasks},
    evidence="proved exactly",
    axes=("beta_low", "share"),
    scale="log",
)
