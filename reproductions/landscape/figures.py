"""What is shown of the landscape's record: planes and measures, the decisions, and accuracy beside sharpness."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure, SubFigure
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as RichTable

from reproductions.landscape.accuracy import Point, correlations
from reproductions.landscape.measure import MEASURES
from sharp_maml import Estimate
from sharp_maml.paper import say

ACROSS = 4
"""Planes side by side in the figure."""


def landscapes(record: Mapping[str, Any]) -> Figure:
    """The planes of one seed side by side, same scale; below, the measures over those of MAML, a point per seed."""
    rows = list(dict.fromkeys(cell["row"] for cell in record["cells"]))
    columns = min(len(rows), ACROSS)
    high = -(-len(rows) // columns)
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 2.4 + 1.9 * high), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.05 * high, 1))  # type: ignore[misc]
        _planes(top, record, rows, high, columns)
        _measures(bottom, record, rows)
        say(figure, says(record))
    return figure


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    found = [line["verdict"] for line in record["decisions"]]
    counts = [f"{found.count(verdict)} {verdict}" for verdict in ("smoother", "less smooth", "not decided")]
    return f"The variants' landscapes in {len(found)} measures, beside MAML's: {', '.join(counts)}."


def _planes(figure: SubFigure, record: Mapping[str, Any], rows: Sequence[str], high: int, columns: int) -> None:
    """The meta-loss around each row's network of the first seed."""
    cells = record["cells"]
    first = min(cell["seed"] for cell in cells)
    planes = {row: next(c for c in cells if c["row"] == row and c["seed"] == first) for row in rows}
    values = np.array([planes[row]["plane"] for row in rows])
    levels = np.geomspace(values.min(), values.max(), 18)
    grid = figure.subplots(high, columns, sharex=True, sharey=True, squeeze=False)
    axes = grid.flat[: len(rows)]
    for axis in grid.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, row in zip(axes, rows, strict=True):
        at = planes[row]["coordinates"]
        shown = axis.contourf(at, at, np.transpose(planes[row]["plane"]), levels=levels, cmap="viridis", norm="log")
        axis.contour(at, at, np.transpose(planes[row]["plane"]), levels=levels, colors="white", linewidths=0.4)
        axis.plot(0, 0, "+", color="white", markersize=9)
        title = "\n".join(textwrap.wrap(record["labels"][row], 20))
        axis.set(title=title, xlabel="direction 1", aspect="equal")
    for axis in grid[:, 0]:
        axis.set_ylabel("direction 2, in filter norms")
    bar = figure.colorbar(shown, ax=grid, shrink=0.9, format="%.2g", label="meta-loss F")
    bar.set_ticks(levels[::4].tolist())
    bar.minorticks_off()


def _measures(figure: SubFigure, record: Mapping[str, Any], rows: Sequence[str]) -> None:
    """Each measure by row, a point per seed, with the row's verdict above."""
    cells = sorted(record["cells"], key=lambda cell: cell["seed"])
    colours = {row: f"C{place}" for place, row in enumerate(rows)}
    verdicts = {(line["row"], line["measure"]): line["verdict"] for line in record["decisions"]}
    signs = {"smoother": "▼", "less smooth": "▲", "not decided": "?"}
    below = figure.subplots(1, len(MEASURES), squeeze=False)[0]
    for axis, (name, title) in zip(below, MEASURES.items(), strict=True):
        for place, row in enumerate(rows):
            mine = [cell[name] for cell in cells if cell["row"] == row]
            axis.plot([place] * len(mine), mine, "o", color=colours[row], alpha=0.5)
            axis.plot([place - 0.3, place + 0.3], [np.mean(mine)] * 2, color=colours[row], linewidth=2)
            if (row, name) in verdicts:
                mark = signs[verdicts[row, name]]
                axis.annotate(mark, (place, 1.0), xycoords=("data", "axes fraction"), ha="center")
        axis.set_xticks(range(len(rows)), rows, rotation=60)
        axis.set_xlim(-0.6, len(rows) - 0.4)
        axis.margins(y=0.12)
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        axis.set_title("\n".join(textwrap.wrap(title, 15)), pad=14)


def accuracy_beside_sharpness(found: Sequence[Point], labels: Mapping[str, str]) -> Figure:
    """Accuracy against each measure of sharpness, a point per network, coloured by row, with `correlations`."""
    rows = list(dict.fromkeys(point.row for point in found))
    colours = {row: f"C{place}" for place, row in enumerate(rows)}
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 4.8), layout="constrained")
        axes, ranks = figure.subplots(2, 3, sharey=True), correlations(found)
        for axis, (name, title) in zip(axes.flat, MEASURES.items(), strict=True):
            for row in rows:
                own = [point for point in found if point.row == row]
                axis.plot(
                    [point.sharpness[name] for point in own], [point.test for point in own],
                    "o", color=colours[row], label=labels[row], markersize=5, alpha=0.8,
                )  # fmt: skip
            axis.set_title(f"{ranks[name]:.2f}")
            axis.set_xlabel(title)
        for axis in axes[:, 0]:
            axis.set_ylabel("accuracy on test classes, %")
        low, high = (choose(r.mean for r in ranks.values()) for choose in (min, max))
        say(
            figure,
            f"Sharpness and accuracy of {len(found)} networks. Above a panel stands the rank correlation within a "
            f"seed, its mean over seeds with a 95% interval: {low:.2f} to {high:.2f}.",
        )
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def decisions(record: Mapping[str, Any]) -> RichTable:
    """The decisions as a table."""
    table = RichTable(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for header in ("variant", "measure", "MAML", "difference \\[95%]", "p", "smoother\nthan MAML?"):
        is_number = header[:1] in "Mdp"
        table.add_column(header, justify="right" if is_number else "left", no_wrap=header != "measure", overflow="fold")
    for line in record["decisions"]:
        difference = Estimate.from_dict(line["difference"])
        table.add_row(
            line["row"],
            MEASURES[line["measure"]],
            f"{line['maml']:.4g}",
            escape(f"{difference.mean:+.3g} [{difference.low:.3g}, {difference.high:.3g}]"),
            f"{line['p']:.2g}",
            line["verdict"],
        )
    return table
