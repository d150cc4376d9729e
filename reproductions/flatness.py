"""Are flat networks more accurate? `python -m reproductions.flatness --tier cpu [--results DIR]`.

Puts the accuracy of each trained network on the test classes beside the six measures of its sharpness, and beside its
accuracy on the training classes: the gap that flatness is supposed to close. Reads the records of the tier's table and
of its landscape, and measures nothing itself; what it shows was not planned, and is exploratory. Read next:
`landscape.py`, whose measures these are.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from rich.console import Console
from scipy.special import ndtri
from scipy.stats import spearmanr

from reproductions import landscape
from reproductions.specification import HERE, MODE, Tier, load
from reproductions.table1 import finished_records, tracked_records
from sharp_maml import Estimate, Record, interval_over_seeds

FIGURES = HERE.parent / "docs" / "figures"
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
        records: Of the tier's table.
        measured: The record of its landscape.

    Returns:
        One point a network; those without an accuracy on the training classes are left out.
    """
    cells = {(cell["row"], cell["seed"], cell["config_digest"]): cell for cell in measured["cells"]}
    return [
        Point(
            record.name,
            record.seed,
            100 * float(np.mean(record.accuracies[MODE])),
            100 * record.metrics[TRAINING].mean,
            {name: cells[key][name] for name in landscape.MEASURES},
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


def gaps(found: Sequence[Point]) -> dict[str, Estimate]:
    """Accuracy on training classes less that on test classes, as a paired difference to the baseline's, by row."""
    gap = {(point.row, point.seed): point.training - point.test for point in found}
    base = {seed: value for (row, seed), value in gap.items() if row == landscape.BASELINE}
    rows = [row for row in dict.fromkeys(point.row for point in found) if row != landscape.BASELINE]
    own = {row: [gap[row, seed] - base[seed] for seed in base if (row, seed) in gap] for row in rows}
    return {row: interval_over_seeds(values, unit="points") for row, values in own.items() if values}


def drawn(found: Sequence[Point], labels: Mapping[str, str]) -> Figure:
    """Accuracy against each measure of sharpness, a point a network, coloured by row, with the rank correlation."""
    rows = list(dict.fromkeys(point.row for point in found))
    colours = dict(zip(rows, sns.color_palette("colorblind", len(rows)), strict=True))
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(10.5, 6.4), layout="constrained")
        axes = figure.subplots(2, 3, sharey=True)
        for axis, (name, title) in zip(axes.flat, landscape.MEASURES.items(), strict=True):
            for row in rows:
                own = [point for point in found if point.row == row]
                axis.plot(
                    [point.sharpness[name] for point in own], [point.test for point in own],
                    "o", color=colours[row], label=labels[row], markersize=5, alpha=0.8,
                )  # fmt: skip
            r = rank_correlation([point.sharpness[name] for point in found], [point.test for point in found])
            axis.set_title(f"rank correlation {r:.2f}", fontsize=9)
            axis.set_xlabel(title)
        for axis in axes[:, 0]:
            axis.set_ylabel("accuracy on test classes, %")
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def read(tier: Tier, results: Path | None) -> tuple[list[Record], dict[str, Any]]:
    """The records of a tier's table and of its landscape: the tracked ones, or those of a results folder."""
    tables, _ = load()
    table = tables[tier.tables[0]]
    if results is None:
        return tracked_records(table, tier), landscape.read(landscape.TRACKED / f"{tier.name}.json")
    return finished_records(table, tier, results), landscape.read(results / "landscape" / f"{tier.name}.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    _, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.flatness", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="cpu", choices=sorted(tiers), help="whose networks; default: cpu")
    parser.add_argument("--results", type=Path, help="where runs lie; default: the repository's own records")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    try:
        records, measured = read(tiers[options.tier], options.results)
        found = points(records, measured)
        if not found:
            raise ValueError(f"tier {options.tier} has no network with both accuracies and measures of its landscape")
        path = (FIGURES if options.results is None else options.results / "landscape") / "flatness.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(found, measured["labels"]).savefig(path, dpi=150, metadata={"Software": None})
        for name, title in landscape.MEASURES.items():
            r = rank_correlation([point.sharpness[name] for point in found], [point.test for point in found])
            console.print(f"accuracy against {title}: rank correlation {r:.2f}, {r.n} networks")
        for row, estimate in gaps(found).items():
            console.print(f"{row}: gap from training to test classes, less that of MAML: {estimate:+.2f}")
        console.print(f"figure: {path}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
