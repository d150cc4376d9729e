"""How a claim is drawn: its plan says one sentence and names what draws it, `lines` or a function of the part.

The plans of a part are in `theory/<part>/figures.py`, outside the files of the claims: a record does not become stale
because its figure has changed. Controls have one colour and dotted lines everywhere, what was predicted is dashed, what
the rule allows is grey. Each number with its interval is in the report's tables. Read next: `report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sharp_maml.paper import COLUMN, PAGE, save_figure, say, wrapped
from theory.check.claim import Curve, Verdict

CONTROL: dict[str, Any] = {"color": "#D55E00", "linestyle": ":", "marker": "x", "markersize": 3.5}
ALLOWED = "0.91"
MARKERS = "osD^vP*X"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DENSE = 30
"""A curve of more points is drawn without markers."""

Draw = Callable[[Verdict, Axes], None]
"""Draws a verdict, or a part of it, into a panel."""


def lines(
    verdict: Verdict, axes: Axes, *, labels: Sequence[str] = (), controls: Sequence[str] = (), paired: str = ""
) -> None:
    """The curves of a record: measured ones in colours, predicted ones dashed, those of controls dotted.

    Args:
        verdict: The decided claim.
        axes: Where to draw.
        labels: Those to draw; all if empty.
        controls: Measured curves of the claim that are to look like a control's.
        paired: What the predicted curves are, if each measured one has its own, in the same order and then colour.
    """
    curves = [curve for curve in verdict.evidence[""].curves if not labels or curve.label in labels]
    measured = [curve for curve in curves if curve.role != "predicted" and curve.label not in controls]
    predicted = [curve for curve in curves if curve.role == "predicted"]
    wrong = [replace(curve, role="control") for curve in curves if curve.label in controls]
    for place, curve in enumerate(measured):
        line(axes, curve, color=f"C{place}", marker=MARKERS[place])
    for place, curve in enumerate(predicted):
        if paired:
            line(axes, replace(curve, label="" if place else paired), color=f"C{place}", linestyle="--")
        else:
            grey = str(0.15 + 0.4 * place / len(predicted))
            line(axes, curve, color=grey, linestyle="-." if place else "--")
    for place, curve in enumerate([*wrong, *of_controls(verdict)]):
        line(axes, curve, **CONTROL | {"marker": "x+1234|_"[place]})
    scales(verdict, axes, [*measured, *predicted])


def line(axes: Axes, curve: Curve, **look: Any) -> None:
    """A curve and its band."""
    if curve.role == "points":
        look["linestyle"] = "none"
    if len(curve.x) > DENSE and curve.role != "points":
        look["marker"] = ""
    axes.plot(curve.x, curve.y, label=curve.label or None, **look)
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, lw=0)


def scales(verdict: Verdict, axes: Axes, curves: Iterable[Curve]) -> None:
    """Labels of the axes and their scale; horizons as powers of two."""
    claim = verdict.claim
    axes.set(xscale=claim.scale, yscale=claim.scale, xlabel=claim.axes[0], ylabel=wrapped(claim.axes[1], 28))
    shown = sorted({x for curve in curves for x in curve.x})
    # Ratios span a few per cent: a logarithmic axis without a power of ten in it has no readable ticks.
    low, high = axes.get_ylim()
    if claim.scale == "log" and high < 10 * low:
        axes.set_yscale("linear")
    plain_ticks(axes)
    if claim.scale == "log" and all(np.log2(x) % 1 == 0 for x in shown):
        axes.set_xticks(shown, ["2" + f"{np.log2(x):.0f}".translate(SUPERSCRIPT) for x in shown])
        axes.xaxis.set_minor_locator(NullLocator())


def plain_ticks(axes: Axes) -> None:
    """Numbers as plain text on logarithmic axes: mathematical text takes longer to draw than all the rest."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            if high < 100 * low:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(_number))
            axis.set_minor_formatter(NullFormatter())


def _number(x: float, _: int) -> str:
    return f"{x:g}" if 1e-3 <= x < 1e4 else "10" + f"{np.log10(x):.0f}".translate(SUPERSCRIPT)


def of_controls(verdict: Verdict) -> list[Curve]:
    """The curves of a claim's controls."""
    return [c for name in verdict.claim.controls for c in verdict.evidence[name].curves if c.role == "control"]


class Plan(NamedTuple):
    """What a figure says, and what draws it.

    Attributes:
        says: One sentence in plain words, its title.
        panels: What draws each panel; several stand side by side, on both columns.
    """

    says: str
    panels: tuple[Draw, ...] = (lines,)


def plan(claim: str) -> Plan:
    """The plan of a claim.

    Args:
        claim: Its id.

    Raises:
        KeyError: It has none.
    """
    part, name = claim.split("_", 1)
    found: Mapping[str, Plan] = import_module(f"theory.{part}.figures").FIGURES
    return found[name]


def draw(verdict: Verdict, directory: Path) -> Path:
    """Draw a claim as `<id>.png` and `<id>.pdf`.

    Args:
        verdict: The decided claim.
        directory: Where to write; made if missing.

    Returns:
        The path of the PNG file.
    """
    says, panels = plan(verdict.claim.id)
    width = COLUMN if len(panels) == 1 else PAGE
    with style.context("sharp_maml.paper"):
        figure, layout = Figure(figsize=(width, 2.6)), ConstrainedLayoutEngine()
        figure.set_layout_engine(layout)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for draw_panel, axes in zip(panels, grid, strict=True):
            draw_panel(verdict, axes)
        title = say(figure, says if verdict.passed else f"Not as expected, {verdict.outcome}: {says}")
        legend: dict[str, Any] = {}
        for axes in grid:
            legend |= {wrapped(label, 36): of for of, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        columns = max(1, min(len(legend), int(17 * width) // (6 + max(map(_width, legend), default=0))))
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=columns)
        figure.set_figheight(2.3 + 0.14 * (title.count("\n") - (-len(legend) // columns)))
        layout.execute(figure)  # once, for both files
        figure.set_layout_engine(None)
        path = directory / f"{verdict.claim.id}.png"
        save_figure(figure, path)
    return path


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))
