"""Learning curves of a table's rows, with bands over training seeds.

The command draws them beside the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib import style
from matplotlib.figure import Figure

from reproductions.tables.specification import Row
from sharp_maml import Estimate, Record, interval_over_seeds
from sharp_maml.paper import save_figure


def validation_curve(records: Sequence[Record]) -> dict[int, Estimate]:
    """Accuracy on the validation classes after each step that every record has a value for, over seeds, in per cent."""
    curves = [
        {int(point["step"]): 100 * point["validation_accuracy"] for point in record.learning_curve}  # type: ignore[operator,arg-type]
        for record in records
    ]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {step: interval_over_seeds([curve[step] for curve in curves], unit="%") for step in shared}


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
            axes.plot(steps, [each.mean for each in estimates], "o-", color=colour, label=label)
            if seeds > 2:  # two seeds give bands wider than the figure
                axes.fill_between(
                    steps, [each.low for each in estimates], [each.high for each in estimates],
                    color=colour, alpha=0.12, linewidth=0,
                )  # fmt: skip
        axes.set(xlabel="meta-iteration", ylabel="accuracy on the validation classes, %")
        figure.suptitle("\n".join(wrap(title, 95)))
        if shown:
            figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, path)
