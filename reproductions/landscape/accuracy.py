"""Accuracy of trained networks beside their sharpness, from records alone. Read next: `figures.py`.

The accuracy on the test classes stands beside the six measures of sharpness, and beside the accuracy on the training
classes: the gap that flatness is supposed to close. What it shows was not planned, and is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import spearmanr

from reproductions.landscape.decide import BASELINE
from reproductions.landscape.measure import MEASURES
from reproductions.tables.specification import MODE
from sharp_maml import Estimate, Record, interval_over_seeds

TRAINING = f"accuracy_{MODE}, split train"
"""The metric of a record that holds the accuracy on the training classes."""


@dataclass(frozen=True)
class Point:
    """A trained network: its row and seed, accuracies in per cent on test and training classes, and its sharpness."""

    row: str
    seed: int
    test: float
    training: float
    sharpness: Mapping[str, float]


def points(records: Sequence[Record], measured: Mapping[str, Any]) -> list[Point]:
    """The networks that have both a record of the table and measures of the landscape, of one configuration.

    Args:
        records: Records of the tier's table.
        measured: The record of its landscape.

    Returns:
        One point per network; those without an accuracy on the training classes are left out.
    """
    cells = {(cell["row"], cell["seed"], cell["config_digest"]): cell for cell in measured["cells"]}
    return [
        Point(
            record.name,
            record.seed,
            100 * float(np.mean(record.accuracies[MODE])),
            100 * record.metrics[TRAINING].mean,
            {name: cells[key][name] for name in MEASURES},
        )
        for record in records
        if (key := (record.name, record.seed, record.config_digest)) in cells and TRAINING in record.metrics
    ]


def rank_correlation(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Spearman's rank correlation with the interval of Bonett and Wright.

    With z = artanh r, the interval is tanh(z ± q sqrt((1 + r^2 / 2) / (n - 3))), where q is the normal quantile.

    Args:
        a: n values, at least 4.
        b: The other value of each pair.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        The estimate; without an interval where the ranks agree or disagree perfectly, or fewer than 4 are given.

    Source: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations",
    Psychometrika 2000.
    """
    n, r = np.size(a), float(spearmanr(a, b).statistic)
    if n < 4 or abs(r) > 1 - 1e-12:
        return Estimate(r, -math.inf, math.inf, n)
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return Estimate(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), n)


def correlations(found: Sequence[Point]) -> dict[str, Estimate]:
    """Rank correlation over networks of the accuracy on the test classes with each measure of sharpness, by measure."""
    tests = [point.test for point in found]
    return {name: rank_correlation([point.sharpness[name] for point in found], tests) for name in MEASURES}


def gaps(found: Sequence[Point]) -> dict[str, Estimate]:
    """Accuracy on training classes less that on test classes, as a paired difference to the baseline's, by row."""
    gap = {(point.row, point.seed): point.training - point.test for point in found}
    base = {seed: value for (row, seed), value in gap.items() if row == BASELINE}
    rows = [row for row in dict.fromkeys(point.row for point in found) if row != BASELINE]
    own = {row: [gap[row, seed] - base[seed] for seed in base if (row, seed) in gap] for row in rows}
    return {row: interval_over_seeds(values, unit="points") for row, values in own.items() if values}
