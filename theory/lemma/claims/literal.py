"""The source's statement as it is worded, for every set of tasks.

Statement: "MAML has more stationary points and local minimizers than ERM".

Source: the source text, on the landscape of MAML; its Lemma 1.

Assumptions: none is stated. Read as worded, it is about every set of tasks and every step size.

Why: it is false. On C0, C1 and C2 (two robust regressions) and C3 (two quadratic regressions) ERM has three
stationary points and two minima, MAML one minimum, for C1 at ERM's maximum. Even one parabola has one of each. What
holds is in `lemma_single`, `lemma_fold` and `lemma_phase`.

Setting: C0 to C5, C7 and C8, and random tasks with beta_low L1 = 1/2 for one and two tasks, all counted exactly. A
number is that of the cases in which MAML does not have more.

Controls: the restated form, one task whose inner step folds the line, for which the same rule must be supported.

Limits: that it fails somewhere does not say how often: see `lemma_phase`.
"""

from __future__ import annotations

from fractions import Fraction as Q

from theory.check.claim import Budget, Claim, Evidence, Item, Rule
from theory.lemma.line import count
from theory.lemma.setting import CASES, EXACT, Instance, counted, counted_case, landscape_of, robust, violations


def more_points(case: Instance) -> bool:
    """MAML has more stationary points."""
    return len(case.maml) > len(case.erm)


def more_minima(case: Instance) -> bool:
    """MAML has more local minimizers."""
    return count(case.maml, "minimum") > count(case.erm, "minimum")


def both(label: str, cases: list[Instance]) -> tuple[Item, Item]:
    """Violations of the two halves of the statement."""
    return (
        violations(f"{label}: not more stationary points", more_points, cases),
        violations(f"{label}: not more local minimizers", more_minima, cases),
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations over the named cases and over random tasks."""
    items = [item for name in CASES for item in both(name, [counted_case(name)])]
    for tasks in (1, 2):
        drawn = [counted(family, Q(1, 2) / family.L1) for family in robust(budget.instances, seed, tasks=tasks)]
        items += both(f"M = {tasks}, beta L1 = 1/2", drawn)
    return Evidence(tuple(items), (*landscape_of("C0"), *landscape_of("C1", shift=1.5)))


def one_folding_task(budget: Budget, seed: int) -> Evidence:
    """The restated form: one task, beta L1 = 2."""
    return Evidence(
        both("M = 1", [counted(family, 2 / family.L1) for family in robust(budget.instances, seed, tasks=1)])
    )


CLAIM = Claim(
    rule=Rule("no case without more", below=EXACT, above=EXACT),
    measure=measure,
    controls={"one task that folds": one_folding_task},
    evidence="proved exactly",
    expected="refuted",
    literal=True,
    axes=("x", "loss (C1 shifted up by 1.5)"),
    scale="linear",
)
