"""The kl form is for independent losses: n M given the support sets, M without.

Statement: the kl form with N = n M holds with probability 0.95 for the risk given the observed support sets, and with
N = M for the risk over support sets.

Source: Maurer's and Seeger's inequality; which N is right was derived here.

Assumptions: losses in [0, 1], independent given what the risk is taken over.

Why: the query losses of a task share its support set. Given that set they are independent, n of them a task; over
support sets, only the M tasks' means are.

Setting: n = 10 to 300, beta_low = 3; support losses of slope +1 or -1 with probability 1/2, so that the adapted
parameter is x - 3 (mean of the slopes), and the query loss 1/2 + y, clipped to [0, 1], at that parameter y, the same
for all query samples; twenty such tasks. Or, given the support set of one task, query losses 0 or 1 with that mean,
for the worst set. x = 0, j = 0, delta = 0.05. Probabilities of a violation are sums of binomial probabilities and
their convolutions.

Controls: N = n M for the risk over support sets.

Limits: an extreme case, chosen so that all query losses of a task move together; `generalization_carried_over` has it
with one loss and a stationary x.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from scipy.stats import binom

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.extreme import inner_risks
from theory.generalization.pac_bayes import kl_bound
from theory.generalization.setting import DELTA

STEP = 3
TASKS = 20
SIZES = (10, 30, 100, 300)


def limit(risk: float, number: int) -> float:
    """The kl form without parameters: |x| = 0 and the first prior, so that KL = 0."""
    return kl_bound(risk, 0.0, dim=1, deviation=1.0, number=number, confidence=1 - DELTA).total


def over_support_sets(samples: int, tasks: int, number: int) -> float:
    """P(1/2 > bound): the risk over support sets against the bound from the mean of M observed tasks."""
    total = reduce(np.convolve, [inner_risks(STEP, samples)] * tasks)
    risks = np.arange(len(total)) / (len(total) - 1)
    # the bound increases with the observed risk
    low, high = 0, len(risks)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if limit(float(risks[middle]), number) < 0.5 else (low, middle)
    return float(total[:low].sum())


def given_support_sets(samples: int) -> float:
    """The largest probability, over support sets, that the risk given the set exceeds the bound from n query losses."""
    worst = 0.0
    limits = np.array([limit(k / samples, samples) for k in range(samples + 1)])
    for place in np.flatnonzero(inner_risks(STEP, samples)):
        risk = place / (2 * samples)
        wrong = np.flatnonzero(limits < risk)
        worst = max(worst, float(binom.pmf(wrong, samples, risk).sum()))
    return worst


def measure(budget: Budget, seed: int) -> Evidence:
    """Exact probabilities of a violation, with the right N."""
    given = [given_support_sets(n) for n in SIZES]
    right = [over_support_sets(n, TASKS, TASKS) for n in SIZES]
    wrong = [over_support_sets(n, TASKS, n * TASKS) for n in SIZES]
    return Evidence(
        (
            *(Item(f"given the support set, N = n = {n}", p, DELTA) for n, p in zip(SIZES, given, strict=True)),
            *(Item(f"over support sets, n = {n}, N = M = 20", p, DELTA) for n, p in zip(SIZES, right, strict=True)),
        ),
        (
            Curve("given the support set of one task, N = n", SIZES, given),
            Curve("over support sets, N = M", SIZES, right),
            Curve("over support sets, N = n M", SIZES, wrong),
            Curve("delta", SIZES, [DELTA] * len(SIZES), "predicted"),
        ),
    )


def all_samples(budget: Budget, seed: int) -> Evidence:
    """N = n M over support sets."""
    return Evidence(tuple(Item(f"n = {n}", over_support_sets(n, TASKS, n * TASKS), DELTA) for n in SIZES))


CLAIM = Claim(
    rule=Rule("every probability of a violation is at most delta = 0.05", below=math.inf, above=0.0),
    measure=measure,
    controls={"N = n M for the risk over support sets": all_samples},
    evidence="proved exactly",
    axes=("n", "probability of a violation"),
    scale="linear",
)
