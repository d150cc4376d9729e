"""One table in four forms: for the terminal, in markdown, in LaTeX, and as a figure of dots with intervals.

All take the same `Line`s, so that no form can say what another does not.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import HORIZONTALS
from rich.markup import escape
from rich.table import Table as TerminalTable

from reproductions.study import WIDTH
from reproductions.tables.lines import Line
from reproductions.tables.verdicts import MARGIN
from sharp_maml.paper import save_figure, say

HEADER = (
    "Method",
    "Source",
    "Re-run",
    "Over seeds",
    "Support-set norm",
    "Difference to {baseline}",
    "Source's difference",
    "Verdict",
    "Runs",
)

TERMINAL_HEADER = (
    ("Method", False),
    ("Source,\n%", False),
    ("Re-run,\n%", False),
    ("Support-set\nnorm, %", True),
    ("Difference,\npoints", False),
    ("Source's,\npoints", False),
    ("Verdict", False),
    ("Runs", True),
)
"""The columns in two lines, accuracy and interval over seeds in one; and what a narrow terminal does without."""

VERDICT_WIDTH = 13
"""Columns that a verdict is wrapped to; what is then too wide is taken from the method's name."""

NARROWEST, WIDEST = 7, 24
"""Characters of a column in a page; what is wider is wrapped."""

LABEL_WIDTH = 40
"""Characters that fit under the axis of the differences."""

MOST_POINTS = 25
"""Where the axis of the differences ends: intervals of two seeds, far wider than any difference, leave it."""

_LATEX = str.maketrans(
    {character: "\\" + character for character in "%_&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "—": "--", "−": "$-$"}
)


def _header(baseline: str) -> list[str]:
    return [text.format(baseline=baseline) for text in HEADER]


def terminal(title: str, baseline: str, lines: Sequence[Line], notes: Sequence[str], width: int) -> TerminalTable:
    """The table for a terminal of a width: intervals stand below their means, and only texts wrap.

    Below `WIDTH` the columns of support-set norm and of runs are left out; what is left fits 80 columns.
    """
    reading = (
        f"Points: difference to {baseline}, here and in the source. In brackets: 95% interval over training seeds."
    )
    table = TerminalTable(
        title=title, caption=escape("\n".join([reading, *notes])), caption_justify="left", title_style="bold",
        box=HORIZONTALS, show_edge=False, show_lines=True, collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    shown = [index for index, (_, optional) in enumerate(TERMINAL_HEADER) if width >= WIDTH or not optional]
    for index in shown:
        text = TERMINAL_HEADER[index][0]
        is_text = text in ("Method", "Verdict")
        table.add_column(text, justify="left" if is_text else "right", no_wrap=text != "Method", overflow="fold")
    for line in lines:
        label, source, accuracy, seeds, *others = line.cells()
        cells = [label, source, accuracy if line.seeds is None else f"{accuracy} {seeds}", *others]
        cells[-2] = textwrap.fill(cells[-2], VERDICT_WIDTH)
        table.add_row(*(escape(_stacked(cells[index])) for index in shown))
    return table


def _stacked(cell: str) -> str:
    """A cell with what is in brackets on lines of its own."""
    return re.sub(r"one run: ", "one run:\n", re.sub(r" (?=[\[(])", "\n", cell))


def markdown(title: str, baseline: str, lines: Sequence[Line], notes: Sequence[str]) -> str:
    """The table in GitHub's markdown, with the notes as a list under it.

    Dashes under the header tell pandoc how wide a column is: as its longest cell or word of its header, within limits.
    """
    header, cells = _header(baseline), [line.cells() for line in lines]
    widths = [max(map(len, [*head.split(), *column])) for head, *column in zip(header, *cells, strict=True)]
    dashes = ["-" * min(max(width, NARROWEST), WIDEST) for width in widths]
    rules = [f":{dash}" if index in (0, 7) else f"{dash}:" for index, dash in enumerate(dashes)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (header, rules, *cells))
    return f"**{title}**\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def latex(title: str, baseline: str, lines: Sequence[Line], notes: Sequence[str]) -> str:
    """A LaTeX fragment to be included as it is; needs the package booktabs."""
    alignment = "".join("l" if index in (0, 7) else "r" for index in range(len(HEADER)))
    body = [" & ".join(map(_escape, row)) + r" \\" for row in (line.cells() for line in lines)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{_escape(title)}. {_escape(' '.join(notes))}}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(map(_escape, _header(baseline))) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def says(baseline: str, lines: Sequence[Line]) -> str:
    """What the verdicts say of all rows together, in a sentence."""
    verdicts = Counter(line.verdict.split(":")[0] for line in lines if line.difference is not None)
    found = "; ".join(f"{verdict} in {rows} row{'s' * (rows > 1)}" for verdict, rows in verdicts.most_common())
    return f"Beside {baseline}: {found or 'nothing to compare'}."


def figure(title: str, baseline: str, lines: Sequence[Line], notes: Sequence[str], path: Path) -> None:
    """Dots with intervals: accuracy (left) with the source's value marked, and paired difference (right)."""
    drawn = [line for line in lines if line.accuracy is not None]
    with style.context("sharp_maml.paper"):
        plot = Figure(figsize=(6.8, 1.2 + 0.34 * len(drawn)), layout="constrained")
        left, right = plot.subplots(1, 2, sharey=True, width_ratios=(1.1, 1))
        _dots(left, right, drawn)
        right.axvline(0, color="0.3", linewidth=0.8)
        within = f"equivalent: a mean difference within {MARGIN:g} points"
        right.axvspan(-MARGIN, MARGIN, color="0.92", zorder=0, label=within)
        bounds = [bound for line in drawn if line.difference for bound in (line.difference.low, line.difference.high)]
        widest = max((abs(bound) for bound in bounds if math.isfinite(bound)), default=0.0)
        if widest > MOST_POINTS:
            right.set_xlim(-MOST_POINTS, MOST_POINTS)
        left.set_yticks(range(len(drawn), 0, -1), [line.label for line in drawn])
        left.set_ylim(0.4, len(drawn) + 0.6)
        left.set_xlabel("accuracy, %")
        compared = textwrap.fill(f"paired difference to {baseline},", LABEL_WIDTH)
        right.set_xlabel(f"{compared}\npercentage points (95% over seeds)")
        say(plot, title)
        plot.draw_without_rendering()  # the layout is settled; what follows is put below it
        plot.set_layout_engine("none")
        inch = 1 / plot.get_figheight()
        plot.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
        wrapped = [line for note in notes for line in textwrap.wrap(note, 115, subsequent_indent="   ")]
        plot.text(0.01, -0.35 * inch, "\n".join(wrapped), fontsize=7, va="top")
    save_figure(plot, path, bbox_inches="tight")


def _dots(left: Axes, right: Axes, drawn: Sequence[Line]) -> None:
    """The estimates of each line from top to bottom, and what the source prints, with entries for the legend."""
    blue, orange, grey = "C0", "C1", "C7"
    for y, line in zip(range(len(drawn), 0, -1), drawn, strict=True):
        for axes, estimate, marker, offset, colour in (
            (left, line.accuracy, "o", 0.0, blue),
            (left, line.support, "s", -0.22, grey),
            (right, line.difference, "o", 0.0, blue),
        ):
            if estimate is None:
                continue
            if math.isfinite(estimate.low):
                axes.plot([estimate.low, estimate.high], [y + offset] * 2, color=colour, linewidth=1.6)
            axes.plot(estimate.mean, y + offset, marker, color=colour)
        for axes, value in ((left, line.source), (right, line.source_difference)):
            if value is not None:
                axes.plot(value, y + 0.22, "D", color=orange)
    for marker, colour, label in (
        ("o", blue, "re-run, 95% over test episodes"),
        ("s", grey, "same checkpoints, support-set batch norm"),
        ("D", orange, "printed by the source (miniImageNet)"),
    ):
        if colour != orange or any(line.source is not None for line in drawn):
            left.plot([], [], marker, color=colour, label=label)
