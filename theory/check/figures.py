"""One shape of figure for every claim: what was measured on the left, what the rule looked at on the right.

Left: measured curves, the predicted ones dashed, controls in red. Right: each number of the rule in units of its
region, so that the claim's region is grey and every control must leave it. Read next: `report.py`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theory.check.claim import Curve, Item, Rule, Verdict

WIDEST = 4.0
"""Half-widths of the region that the right panel shows; what lies beyond is drawn as an arrow at the edge."""
CONTROL = "#c44e52"
MANY = 12


def draw(verdict: Verdict, directory: Path) -> Path:
    """Draw a claim as `<id>.png` and `<id>.pdf`.

    Args:
        verdict: The decided claim.
        directory: Where to write; made if missing.

    Returns:
        The path of the PNG file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(verdict))
    with sns.axes_style("ticks"), matplotlib.rc_context({"font.size": 9, "legend.fontsize": 7.5}):
        figure = Figure(
            figsize=(11, max(3.6, 1.2 + (0.26 if len(rows) < 25 else 0.19) * len(rows))), layout="constrained"
        )
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _curves(left, verdict)
        handles, labels = left.get_legend_handles_labels()
        columns = max(1, min(4, 150 // (12 + max(map(len, labels), default=0))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        _decisions(right, verdict.claim.rule, rows)
        figure.suptitle(f"{verdict.claim.id}: {verdict.outcome} ({verdict.claim.evidence})", fontsize=10)
        figure.draw_without_rendering()  # the layout is settled once for both files
        figure.set_layout_engine("none")
        path = directory / f"{verdict.claim.id}.png"
        figure.savefig(path, dpi=150, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    return path


def _curves(axes: Axes, verdict: Verdict) -> None:
    claim = verdict.claim
    curves = list(verdict.evidence[""].curves)
    controls = [curve for name, brought in verdict.evidence.items() if name for curve in brought.curves]
    measured = sum(curve.role != "predicted" for curve in curves)
    colours = iter(sns.color_palette("colorblind", max(measured, 1)))
    predicted = iter(sns.color_palette("gray", 1 + sum(curve.role == "predicted" for curve in curves)))
    styles = cycle(["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))])
    markers = iter("osD^vP*X<>" * (1 + measured // 10))
    for curve in curves:
        if curve.role == "predicted":
            axes.plot(curve.x, curve.y, "--", color=next(predicted), lw=1, label=curve.label or None)
        else:
            style = "none" if curve.role == "points" else "-"
            _band(axes, curve, colour=next(colours), marker=next(markers), style=style)
    for curve in controls:
        if curve.role == "control":
            _band(axes, curve, colour=CONTROL, marker=".", style=next(styles), alpha=0.75)
    axes.set_xscale(claim.scale)
    axes.set_yscale(claim.scale)
    shown = sorted({x for curve in curves for x in curve.x})
    if claim.scale == "log" and all(np.log2(x) % 1 == 0 for x in shown):
        axes.set_xticks(shown, [f"$2^{{{np.log2(x):.0f}}}$" for x in shown], minor=False)
        axes.set_xticks([], minor=True)
    axes.set_xlabel(claim.axes[0])
    axes.set_ylabel(claim.axes[1])
    # Ratios span a few per cent: a logarithmic axis without a power of ten in it has no readable ticks.
    low, high = axes.get_ylim()
    if claim.scale == "log" and high < 10 * low:
        axes.set_yscale("linear")
    sns.despine(ax=axes)


def _band(axes: Axes, curve: Curve, *, colour: object, marker: str, style: object, alpha: float = 1.0) -> None:
    axes.plot(
        curve.x, curve.y, linestyle=style, marker=marker, ms=3.5, lw=1.2, color=colour, alpha=alpha, label=curve.label
    )
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18 * alpha, lw=0)


def _rows(verdict: Verdict) -> Iterable[tuple[str, bool, list[Item]]]:
    """Label, whether it is a control, and items: one a row, or those that differ in their last part only."""
    items = verdict.evidence[""].items
    grouped: dict[str, list[Item]] = {}
    for item in items:
        label = item.label.rsplit(", ", 1)[0] if len(items) > MANY else item.label
        grouped.setdefault(label, []).append(item)
    for label, of_row in grouped.items():
        yield label, False, of_row
    for name, brought in verdict.evidence.items():
        if name:
            yield name, True, list(brought.items)


def _decisions(axes: Axes, rule: Rule, rows: list[tuple[str, bool, list[Item]]]) -> None:
    one_sided = np.isinf(rule.below)
    region = (0.0, 1.0) if one_sided else (-1.0, 1.0)
    axes.axvspan(*region, color="0.9", lw=0)
    axes.axvline(0.0 if not one_sided else 1.0, color="0.5", lw=0.8, ls="--")
    edges = (-0.15, 2.5) if one_sided else (-WIDEST, WIDEST)
    for y, (_, is_control, items) in enumerate(rows):
        colour = CONTROL if is_control else "black"
        places = [[rule.position(item, value) for value in (*item.interval(), item.measured)] for item in items]
        low, high, middle = np.reshape(places, (-1, 3)).T
        inside = (edges[0] <= middle) & (middle <= edges[1])
        axes.hlines(
            [y] * int(inside.sum()), np.maximum(low[inside], edges[0]), np.minimum(high[inside], edges[1]),
            color=colour, lw=1.1, alpha=0.8,
        )  # fmt: skip
        axes.plot(middle[inside], [y] * int(inside.sum()), "o", ms=3, color=colour, alpha=0.8)
        for edge, marker, beyond in ((edges[1], ">", middle > edges[1]), (edges[0], "<", middle < edges[0])):
            if beyond.any():
                axes.plot(edge, y, marker, ms=4.5, color=colour)
    axes.set_yticks(range(len(rows)), [textwrap.shorten(label, 52) for label, *_ in rows], fontsize=7)
    for tick, (_, is_control, _) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(CONTROL if is_control else "black")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(edges[0] - 0.1, edges[1] + 0.1)
    axes.set_xlabel("measured / predicted" if one_sided else "(measured - predicted) / half-width of the region")
    # Where matplotlib would put the title, and the label that there is none of, if it measured every row's label again.
    axes.set_title("\n".join(textwrap.wrap(rule.text, 60)), fontsize=8, y=1.0)
    axes.yaxis.set_label_coords(0.0, 0.5)
    sns.despine(ax=axes)
