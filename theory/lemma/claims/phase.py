"""How often MAML has more, as many, or fewer stationary points than ERM.

Statement: for robust regression, one task with one target, MAML has exactly as many stationary points as ERM for
beta_low L1 < 1, and more for beta_low L1 > 1. For several tasks nothing is asserted: the diagram shows what random
tasks do.

Source: derived here; the honest form of the source's Lemma 1.

Assumptions: random tasks as in the setting; the shares are of this ensemble.

Why: for one task see `lemma_single` and `lemma_fold`; with one target rho''(0) = 2 is the largest second derivative,
so that T folds for beta_low L1 > 1. For several tasks the wells of l_m(T_m) widen below 1/L1 and may merge or part,
and every T_m that folds adds points.

Setting: robust regression, one, two and three tasks, weights 1/4 to 2, targets in [-3, 3] on a grid, L1 = 2 max w;
the same tasks for every beta_low L1. Bands are Clopper-Pearson intervals at 99 per cent.

Controls: the labels of beta_low L1 shuffled.

Limits: shares depend on how tasks are drawn; on the torus of `lemma_torus` more than half have more points at
beta_low L1 = 9/10, and linear regressions never have more, whatever the step.
"""

from __future__ import annotations

from fractions import Fraction as Q
from functools import cache

from sharp_maml import clopper_pearson
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.setting import EXACT, counted, failures, robust

RATIOS = (Q(1, 4), Q(1, 2), Q(3, 4), Q(9, 10), Q(5, 4), Q(3, 2), Q(2), Q(4))
SHUFFLED = (*RATIOS[4:], *RATIOS[:4])
TASKS = (1, 2, 3)
CONFIDENCE = 0.99


@cache
def differences(budget: Budget, seed: int, tasks: int) -> dict[Q, list[int]]:
    """Stationary points of MAML minus those of ERM, of the same random tasks for each beta L1."""
    found: dict[Q, list[int]] = {ratio: [] for ratio in RATIOS}
    for family in robust(budget.instances, seed, tasks=tasks):
        for ratio in RATIOS:
            case = counted(family, ratio / family.L1)
            found[ratio].append(len(case.maml) - len(case.erm))
    return found


def one_task(budget: Budget, seed: int, labels: tuple[Q, ...]) -> tuple[Item, ...]:
    """Cases of one task that are not as stated, if beta L1 is what the labels say."""
    found = differences(budget, seed, 1)
    return tuple(
        failures(
            f"M = 1, beta L1 = {label}: not {'as many' if label < 1 else 'more'}",
            [difference != 0 if label < 1 else difference <= 0 for difference in found[ratio]],
        )
        for ratio, label in zip(RATIOS, labels, strict=True)
    )


def shares(budget: Budget, seed: int, tasks: int) -> tuple[Curve, Curve]:
    """Shares with more and with fewer points, against beta L1."""
    found = differences(budget, seed, tasks)
    curves = []
    for name, sign in (("more", 1), ("fewer", -1)):
        estimates = [
            clopper_pearson(sum(sign * d > 0 for d in found[ratio]), len(found[ratio]), confidence=CONFIDENCE)
            for ratio in RATIOS
        ]
        curves.append(
            Curve(
                f"{name}, {tasks} task{'s' if tasks > 1 else ''}",
                [float(ratio) for ratio in RATIOS],
                [estimate.mean for estimate in estimates],
                low=[estimate.low for estimate in estimates],
                high=[estimate.high for estimate in estimates],
            )
        )
    return curves[0], curves[1]


def measure(budget: Budget, seed: int) -> Evidence:
    """What is stated of one task, and the shares of all."""
    return Evidence(
        one_task(budget, seed, RATIOS), tuple(curve for tasks in TASKS for curve in shares(budget, seed, tasks))
    )


def shuffled(budget: Budget, seed: int) -> Evidence:
    """The claim's numbers with the labels of beta L1 shuffled."""
    return Evidence(one_task(budget, seed, SHUFFLED))


CLAIM = Claim(
    rule=Rule("no case of one task in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"labels of beta_low L1 shuffled": shuffled},
    evidence="proved exactly",
    axes=("beta_low L1", "share of sets of tasks"),
    scale="linear",
)
