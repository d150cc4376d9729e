"""Repetitions of a claim's experiment whose truth is planted, and what the claim's rule makes of them.

Repetitions are drawn with replacement from a pool of runs, and a factor on their values puts their truth anywhere.
Read next: `calibration.py`, which does it for every statistical claim and says what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from theory.check.claim import Budget, Claim, Evidence, Item, Rule

MORE_SEEDS = 4
"""Times the budget's, in the pool that experiments are drawn from; data sets are many already."""
PLACES = (0.0, 0.25, 0.5, 0.65, 0.8, 0.875, 0.95, 1.0, 1.05, 1.125, 1.25, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)
"""Planted truths, in half-widths from the middle of a region, to both sides of it."""
SHARES = (0.5, 0.7, 0.8, 0.9, 0.94, 0.96, 0.98, 0.99, 1.0, 1.01, 1.02, 1 / 0.97, 1.05, 1.07, 1.1, 1.2, 1.3, 1.5, 2.0)
"""Planted truths where a region has one edge, in units of it."""
ALPHAS = (0.05, 0.01, 0.001)
"""Levels at which the p-values are looked at."""
KINDS = ("outside", "inside")
"""What a p-value is against."""


@dataclass(frozen=True, eq=False)
class Repetitions:
    """What a number came to when its experiment was repeated; of a share of trials everything that it can come to.

    Attributes:
        item: The number in the pool, with as many samples as an experiment has.
        measured: The number of every repetition.
        error: Its standard error.
    """

    item: Item
    measured: NDArray[np.float64]
    error: NDArray[np.float64]

    def planted(self, truth: float) -> tuple[list[Item], NDArray[np.float64]]:
        """The repetitions as they are with a given truth, and the weight of each."""
        item, n = self.item, self.item.n
        if item.successes is not None:
            counts = range(n + 1)
            return [Item.share(item.label, k, n, item.predicted) for k in counts], binom.pmf(counts, n, truth)
        if item.sample is not None and item.sample.is_exponent:
            measured, error = self.measured + (truth - item.measured), self.error
        else:
            measured, error = self.measured * (truth / item.measured), self.error * abs(truth / item.measured)
        values = zip(measured.tolist(), error.tolist(), strict=True)
        items = [Item(item.label, value, item.predicted, of_value, n) for value, of_value in values]
        return items, np.ones(len(items))


@lru_cache(maxsize=8)
def draws(group: int, pool: int, n: int, replications: int) -> NDArray[np.int64]:
    """Which of the pool each repetition has: the same for numbers of the same runs, as in the experiment."""
    return np.random.default_rng([group, pool, n]).integers(0, pool, (replications, n))


def repeat(item: Item, replications: int) -> Repetitions:
    """Repetitions of the experiment behind a number.

    Args:
        item: The number in the pool.
        replications: How many.

    Returns:
        The repetitions; none are made of a share.
    """
    if item.sample is None:
        return Repetitions(item, np.empty(0), np.empty(0))
    more = MORE_SEEDS if item.sample.per_seed else 1
    groups = [
        (values, draws(group, values.shape[-1], values.shape[-1] // more, replications))
        for group, values in enumerate(item.sample.values)
    ]
    found = np.empty((2, replications))
    for i in range(replications):
        again = item.sample.estimate(*(values[..., drawn[i]] for values, drawn in groups))
        found[:, i] = again.measured, again.error
    return Repetitions(replace(item, n=item.n // more), *found)


def scale(rule: Rule, item: Item) -> tuple[float, float]:
    """Middle and half-width of the region of a number; 0 and its edge where it has only one."""
    low, high = rule.region(item)
    return (0.0, high) if math.isinf(rule.below) else ((low + high) / 2, (high - low) / 2)


def noise(rule: Rule, one: Repetitions) -> float:
    """The standard error in units of the region; of a share, the largest that it can have."""
    middle, unit = scale(rule, one.item)
    if one.item.successes is not None:
        return 0.5 / math.sqrt(one.item.n) / unit
    return float(np.median([item.error for item in one.planted(middle or unit)[0]])) / unit


def decide(
    rule: Rule, every: Sequence[Evidence], weights: NDArray[np.float64], levels: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Probability that evidence is called supported, and refuted, at each level."""
    outside, inside = np.array([rule.p_values(evidence) for evidence in every]).T
    found: dict[str, dict[str, float]] = {"supported": {}, "refuted": {}}
    for name, level in levels.items():
        supported = outside <= level
        found["supported"][name] = float(weights @ supported / weights.sum())
        found["refuted"][name] = float(weights @ (~supported & (inside <= level)) / weights.sum())
    return found


def curve(rule: Rule, one: Repetitions, numbers: int, levels: Mapping[str, float]) -> list[dict[str, Any]]:
    """The operating curve of a rule: what comes of a number whose truth is planted, beside others that are inside.

    Args:
        rule: The rule.
        one: Repetitions of the number.
        numbers: How many the claim has.
        levels: Levels of the decision, by name.

    Returns:
        For every planted truth its place, in half-widths from the middle or in units of the only edge, and the
        probabilities.
    """
    middle, unit = scale(rule, one.item)
    others = (Item("another", one.item.predicted, one.item.predicted),) * (numbers - 1)
    places = SHARES if math.isinf(rule.below) else sorted({*PLACES, *(-place for place in PLACES)})
    found = []
    for place in places:
        truth = middle + place * unit
        if one.item.successes is None or 0 <= truth <= 1:
            items, weights = one.planted(truth)
            evidence = [Evidence((item, *others)) for item in items]
            found.append({"place": place, "truth": truth, **decide(rule, evidence, weights, levels)})
    return found


def on_the_edge(rule: Rule, repeated: Sequence[Repetitions]) -> dict[str, Any]:
    """How often the p-values of single numbers are small whose truth is on an edge: the largest share over all of them.

    Args:
        rule: The rule.
        repeated: Repetitions of every number.

    Returns:
        Number of shares over which the largest was taken, and by kind of p-value and level that share and its number.
    """
    largest: dict[str, dict[str, tuple[float, str]]] = {kind: {} for kind in KINDS}
    tests = 0
    for one in repeated:
        for edge in rule.region(one.item):
            if math.isinf(edge) or (one.item.successes is not None and not 0 < edge < 1):
                continue
            items, weights = one.planted(edge)
            p_values = np.array([rule.p_values(Evidence((item,))) for item in items])
            for kind, of_kind in zip(KINDS, p_values.T, strict=True):
                for alpha in ALPHAS:
                    tests += 1
                    share = float(weights @ (of_kind <= alpha) / weights.sum())
                    largest[kind][str(alpha)] = max(
                        largest[kind].get(str(alpha), (0.0, "")), (share, f"{one.item.label}, at {edge:.4g}")
                    )
    return {"tests": tests, **largest}


def calibrate(
    claim: Claim, budget: Budget, seed: int, replications: int, levels: Mapping[str, float]
) -> dict[str, Any]:
    """What is written down of a claim.

    Args:
        claim: A statistical claim.
        budget: What its experiment has.
        seed: Base seed of the pool.
        replications: Repetitions of its experiment.
        levels: Levels of the decisions, by name.

    Returns:
        Its rule, its noisiest number, the operating curve, what the whole claim came out as in the repetitions, and the
        p-values on the edges.
    """
    pool = claim.measure(replace(budget, seeds=MORE_SEEDS * budget.seeds), seed).items
    noisy = [item for item in pool if item.is_noisy]
    repeated = [repeat(item, replications) for item in noisy]
    noisiest = max(repeated, key=lambda one: noise(claim.rule, one))
    item = noisiest.item
    is_exact = item.successes is not None
    found: dict[str, Any] = {
        "rule": claim.rule.text,
        "expected": claim.expected,
        "number": item.label,
        "numbers": len(pool),
        "region": [None if math.isinf(edge) else edge for edge in claim.rule.region(item)],
        "half_width": scale(claim.rule, item)[1],
        "noise": noise(claim.rule, noisiest),
        "n": item.n,
        "pool": noisy[repeated.index(noisiest)].n,
        "replications": None if is_exact else replications,
        "curve": curve(claim.rule, noisiest, len(pool), levels),
        "edge": on_the_edge(claim.rule, repeated),
    }
    if not is_exact:
        still = tuple(item for item in pool if not item.is_noisy)
        together = zip(*(one.planted(one.item.measured)[0] for one in repeated), strict=True)
        evidence = [Evidence((*items, *still)) for items in together]
        found["as measured"] = decide(claim.rule, evidence, np.ones(replications), levels)
    return found
