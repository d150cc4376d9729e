"""Accuracy of trained networks beside their sharpness, from records alone. Read next: `figures.py`.

The accuracy on the test classes stands beside the six measures of sharpness, and beside the accuracy on the training
classes: the gap that flatness is supposed to close. It was planned as exploratory: docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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


def correlations(found: Sequence[Point]) -> dict[str, Estimate]:
    """Do flat networks of one seed tend to be the accurate ones? Spearman's rank correlation, by measure.

    The networks of a seed share their start and their episodes, so that those of all seeds together are not
    independent. The correlation is therefore taken over the rows of a seed, and is one number of that seed.

    Args:
        found: Networks of several rows and seeds.

    Returns:
        For each measure of sharpness the mean correlation over seeds with Student's interval; 0 counts for a seed whose
        networks are all tied in the measure or in the accuracy.
    """
    by_seed: dict[int, list[Point]] = {}
    for point in found:
        by_seed.setdefault(point.seed, []).append(point)

    def of_seed(own: Sequence[Point], name: str) -> float:
        pair = [point.sharpness[name] for point in own], [point.test for point in own]
        return float(spearmanr(*pair).statistic) if all(len(set(values)) > 1 for values in pair) else 0.0

    return {name: interval_over_seeds([of_seed(own, name) for own in by_seed.values()]) for name in MEASURES}


def gaps(found: Sequence[Point]) -> dict[str, Estimate]:
    """Accuracy on training classes less that on test classes, as a paired difference to the baseline's, by row."""
    gap = {(point.row, point.seed): point.training - point.test for point in found}
    base = {seed: value for (row, seed), value in gap.items() if row == BASELINE}
    rows = [row for row in dict.fromkeys(point.row for point in found) if row != BASELINE]
    own = {row: [gap[row, seed] - base[seed] for seed in base if (row, seed) in gap] for row in rows}
    return {row: interval_over_seeds(values, unit="points") for row, values in own.items() if values}
