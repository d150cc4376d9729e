"""Learning curves from records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from reproductions.tables.curves import draw, drawn, says, validation_curve
from reproductions.tables.specification import load
from tests.reproductions.tables.records_for_tests import TABLE, record


def run(row: str, seed: int, accuracies):
    points = [{"step": 10 * i, "loss": 1.0, "validation_accuracy": each} for i, each in enumerate(accuracies, 1)]
    return replace(record(row, seed), learning_curve=points)


def test_a_curve_is_the_mean_over_seeds_with_students_interval():
    curve = validation_curve([run("maml", seed, [0.3, each]) for seed, each in enumerate((0.4, 0.5, 0.6))])
    assert list(curve) == [10, 20]
    assert (curve[10].low, curve[10].mean, curve[10].high) == pytest.approx((30, 30, 30))
    half = stats.t.ppf(0.975, 2) * 10 / np.sqrt(3)
    assert (curve[20].mean, curve[20].high, curve[20].n) == (pytest.approx(50), pytest.approx(50 + half), 3)


def test_a_step_that_a_run_has_not_reached_is_left_out():
    assert list(validation_curve([run("maml", 0, [0.3, 0.4]), run("maml", 1, [0.3])])) == [10]
    assert validation_curve([]) == {}


def test_the_sentence_names_the_row_that_ends_highest_and_where_the_baseline_ends():
    made = [run("maml", seed, [0.3, each]) for seed, each in enumerate((0.4, 0.5))] + [run("low", 0, [0.6, 0.46])]
    said = "On the validation classes Sharp-MAML low ends highest, at 46.0 %"
    assert says(TABLE.rows, TABLE.baseline, made) == f"{said}, and MAML at 45.0 %."
    assert says(TABLE.rows, TABLE.baseline, made[2:]) == f"{said.replace('classes', 'classes, with one seed,')}."
    assert says(TABLE.rows, TABLE.baseline, made[:2]) == "On the validation classes MAML ends highest, at 45.0 %."
    made[2] = run("low", 0, [0.6, 0.44])
    highest = "On the validation classes MAML ends highest, at 45.0 %, and Sharp-MAML low at 44.0 %."
    assert says(TABLE.rows, TABLE.baseline, made) == highest


@pytest.mark.parametrize(
    ("others", "words"), [((0.46, 0.5, 0.54), "%; their bands overlap."), ((0.6, 0.6, 0.6), "%."), ((0.5, 0.54), "%.")]
)
def test_the_sentence_says_where_the_bands_at_the_end_overlap(others, words):
    made = [run("maml", seed, [end]) for seed, end in enumerate((0.44, 0.48, 0.52))]
    said = says(TABLE.rows, TABLE.baseline, made + [run("low", seed, [end]) for seed, end in enumerate(others)])
    assert said.endswith(f"and MAML at 48.0 {words}")


def heights(axes) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axes.get_lines()]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_line_for_every_row_that_has_records_and_a_band_from_three_seeds_on():
    made = [run("maml", seed, [0.3, 0.4]) for seed in range(3)] + [run("low", seed, [0.2, 0.5]) for seed in range(2)]
    figure = drawn("A title", TABLE.rows, {"": made})
    (axes,) = figure.axes
    assert heights(axes) == [pytest.approx([30, 40]), pytest.approx([20, 50])]
    assert legend(figure) == ["MAML (3 seeds)", "Sharp-MAML low (2 seeds)"]
    assert len(axes.collections) == 1
    assert drawn("A title", TABLE.rows, {"": []}).axes[0].get_lines() == []


def test_budgets_stand_side_by_side_with_one_colour_a_row():
    small = [run(row, seed, [0.3, 0.4]) for row in ("maml", "low") for seed in range(3)]
    figure = drawn("A title", TABLE.rows, {"small": small, "large": [run("low", 0, [0.35, 0.45, 0.55])]})
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["small", "large"]
    assert heights(right) == [[], pytest.approx([35, 45, 55])]
    assert [line.get_color() for line in left.get_lines()] == [line.get_color() for line in right.get_lines()]
    assert left.get_ylim() == right.get_ylim()
    assert legend(figure) == ["MAML (3 and 0 seeds)", "Sharp-MAML low (3 and 1 seeds)"]


@pytest.mark.parametrize("table", load()[0].values(), ids=lambda table: table.name)
def test_the_names_of_all_rows_fit_below_the_curves(table):
    made = [replace(run("maml", 0, [0.3, 0.4]), name=row.name) for row in table.rows]
    figure = drawn("A title", table.rows, {"": made})
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1


def test_the_figure_is_written_with_records_and_without(tmp_path):
    made = [run(row, seed, [0.3, 0.4]) for row in ("maml", "low") for seed in range(3)]
    draw("A title", TABLE.rows, made, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[2] == 4
    draw("A title", TABLE.rows, [], tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()
