"""Learning curves of a table's rows, with bands over training seeds.

The command draws them beside the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rcParams, style
from matplotlib.figure import Figure

from reproductions.tables.specification import Row
from sharp_maml import Estimate, Record, interval_over_seeds
from sharp_maml.paper import save_figure, say


def validation_curve(records: Sequence[Record]) -> dict[int, Estimate]:
    """Accuracy on the validation classes after each step that every record has a value for, over seeds, in per cent."""
    curves = [
        {int(point["step"]): 100 * point["validation_accuracy"] for point in record.learning_curve}  # type: ignore[operator,arg-type]
        for record in records
    ]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {step: interval_over_seeds([curve[step] for curve in curves], unit="%") for step in shared}


def says(rows: Sequence[Row], baseline: Row, records: Sequence[Record]) -> str:
    """Where the highest curve ends, and that of the baseline, in a sentence."""
    curves = {row.label: validation_curve([each for each in records if each.name == row.name]) for row in rows}
    ends = {label: curve[max(curve)].mean for label, curve in curves.items() if curve}
    best = max(ends, key=ends.__getitem__)
    said = f"On the validation classes {best} ends highest, at {ends[best]:.1f} %"
    beside = f", and {baseline.label} at {ends[baseline.label]:.1f} %" if baseline.label in {*ends} - {best} else ""
    return f"{said}{beside}."


def draw(title: str, rows: Sequence[Row], records: Sequence[Record], path: Path) -> None:
    """Draw the mean over seeds of each row's validation accuracy, with its 95% interval over seeds as a band.

    Args:
        title: Above the figure.
        rows: In the order of the legend; one without records is left out.
        records: Any number of seeds per row.
        path: A PNG file.
    """
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.4), layout="constrained")
        axes = figure.subplots()
        shown = [row for row in rows if any(record.name == row.name for record in records)]
        for place, row in enumerate(shown):
            colour = f"C{place}"
            curve = validation_curve([record for record in records if record.name == row.name])
            steps, estimates = list(curve), list(curve.values())
            seeds = estimates[0].n if estimates else 0
            label = f"{row.label} ({seeds} seed{'s' if seeds > 1 else ''})"
            form = "o-" if place < len(rcParams["axes.prop_cycle"]) else "s--"  # where colours begin anew
            axes.plot(steps, [each.mean for each in estimates], form, color=colour, label=label)
            if seeds > 2:  # two seeds give bands wider than the figure
                axes.fill_between(
                    steps, [each.low for each in estimates], [each.high for each in estimates],
                    color=colour, alpha=0.12, linewidth=0,
                )  # fmt: skip
        axes.set(xlabel="meta-iteration", ylabel="accuracy on the validation classes, %")
        say(figure, title)
        if shown:
            figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, path)
