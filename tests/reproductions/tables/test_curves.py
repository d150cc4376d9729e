"""Learning curves from records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from reproductions.tables.curves import draw, says, validation_curve
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
    assert says(TABLE.rows, TABLE.baseline, made[2:]) == f"{said}."
    assert says(TABLE.rows, TABLE.baseline, made[:2]) == "On the validation classes MAML ends highest, at 45.0 %."


def test_the_figure_is_drawn_for_rows_that_have_records(tmp_path):
    made = [run(row, seed, [0.3, 0.4]) for row in ("maml", "low") for seed in range(3)]
    draw("A title", TABLE.rows, made, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[2] == 4
    draw("A title", TABLE.rows, [], tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()
