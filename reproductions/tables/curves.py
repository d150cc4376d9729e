"""Learning curves of a table's rows, with bands over training seeds.

The command draws them beside the table.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib import rcParams, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproductions.tables.specification import Row
from sharp_maml import Estimate, Record, interval_over_seeds
from sharp_maml.paper import save_figure, say

LABEL_WIDTH = 66
"""Characters of a row's name in the legend, two of which stand beside each other."""


def validation_curve(records: Sequence[Record]) -> dict[int, Estimate]:
    """Accuracy on the validation classes after each step that every record has a value for, over seeds, in per cent."""
    curves = [
        {int(point["step"]): 100 * point["validation_accuracy"] for point in record.learning_curve}  # type: ignore[operator,arg-type]
        for record in records
    ]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {step: interval_over_seeds([curve[step] for curve in curves], unit="%") for step in shared}


def says(rows: Sequence[Row], baseline: Row, records: Sequence[Record]) -> str:
    """Where the highest curve ends, and that of the baseline, or the next one if the baseline's is the highest."""
    curves = {row.label: validation_curve([each for each in records if each.name == row.name]) for row in rows}
    ends = {label: curve[max(curve)] for label, curve in curves.items() if curve}
    best, *others = sorted(ends, key=lambda label: ends[label].mean, reverse=True)
    of_one = ", with one seed," if len({each.seed for each in records}) == 1 else ""
    said = f"On the validation classes{of_one} {best} ends highest, at {ends[best].mean:.1f} %"
    beside = baseline.label if baseline.label in others else next(iter(others), None)
    if beside is None:
        return f"{said}."
    overlap = min(ends[best].n, ends[beside].n) > 2 and ends[best].low <= ends[beside].high
    return f"{said}, and {beside} at {ends[beside].mean:.1f} %{'; their bands overlap' if overlap else ''}."


def draw(title: str, rows: Sequence[Row], records: Sequence[Record], path: Path) -> None:
    """Draw the mean over seeds of each row's validation accuracy, with its 95% interval over seeds as a band.

    Args:
        title: Above the figure.
        rows: In the order of the legend; one without records is left out.
        records: Any number of seeds per row.
        path: A PNG file.
    """
    save_figure(drawn(title, rows, {"": records}), path)


def drawn(title: str, rows: Sequence[Row], panels: Mapping[str, Sequence[Record]]) -> Figure:
    """The curves of the same rows at one budget or more, side by side on one scale of accuracy.

    Args:
        title: Above the figure.
        rows: As for `draw`; one without records at any budget is left out.
        panels: The records of each budget by its name, which stands above its curves.

    Returns:
        The figure.
    """
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.4), layout="constrained")
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        named = {record.name for records in panels.values() for record in records}
        shown = [row for row in rows if row.name in named]
        for axes, (name, records) in zip(every, panels.items(), strict=True):
            for place, row in enumerate(shown):
                curve = validation_curve([record for record in records if record.name == row.name])
                _draw_curve(axes, place, curve)
            axes.set(title=name, xlabel="meta-iteration")
        every[0].set(ylabel="accuracy on the validation classes, %")
        whole = title.replace(" %", "\N{NO-BREAK SPACE}%").replace("Sharp-", "Sharp\N{NON-BREAKING HYPHEN}")
        say(figure, whole)  # neither is broken at the end of a line
        if shown:
            labels = [textwrap.fill(f"{row.label} ({_seeds(row, panels.values())})", LABEL_WIDTH) for row in shown]
            figure.legend(every[0].get_lines(), labels, loc="outside lower center", ncols=2)
    return figure


def _draw_curve(axes: Axes, place: int, curve: Mapping[int, Estimate]) -> None:
    """A row's curve in the colour of its place; without points, only what the legend shows."""
    steps, estimates = list(curve), list(curve.values())
    form = "o-" if place < len(rcParams["axes.prop_cycle"]) else "s--"  # where colours begin anew
    axes.plot(steps, [each.mean for each in estimates], form, color=f"C{place}")
    if estimates and estimates[0].n > 2:  # two seeds give bands wider than the figure
        axes.fill_between(
            steps, [each.low for each in estimates], [each.high for each in estimates],
            color=f"C{place}", alpha=0.12, linewidth=0,
        )  # fmt: skip


def _seeds(row: Row, panels: Iterable[Sequence[Record]]) -> str:
    """How many seeds a row has, in every panel."""
    counts = [sum(record.name == row.name for record in records) for records in panels]
    return f"{' and '.join(map(str, counts))} seed{'' if set(counts) == {1} else 's'}"
