"""The numbers of a line, and the notes below the table, from records alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reproductions.tables.lines import build_lines, notes, on_other_data
from tests.reproductions.tables.records_for_tests import REAL, ROWS, TABLE, TIER, pairs, record, with_mean


def lines(*records, table=TABLE):
    return {row.name: line for row, line in zip(table.rows, build_lines(table, records), strict=True)}


# The numbers of a line.


def test_a_row_without_records_is_a_line_of_dashes():
    found = lines(record("maml"))
    assert found["low"].cells() == ("Sharp-MAML low", "48.87", "—", "—", "—", "—", "+1.74", "—", "—")
    assert (found["low"].accuracy, found["low"].runs) == (None, 0)


def test_without_any_record_every_line_is_of_dashes_and_the_notes_say_so():
    assert all(line.accuracy is None for line in lines().values())
    assert notes(TABLE, TIER, []) == ["no records"]


def test_the_sources_values_and_differences_are_those_of_the_rows():
    found = lines()
    assert [found[name].source for name in ROWS] == [43.56, 47.13, 48.87, None]
    differences = [found[name].source_difference for name in ROWS]
    assert differences == [None, None, pytest.approx(1.74), None]  # a quoted value is not compared


@given(st.lists(st.lists(st.integers(1, 99), min_size=4, max_size=4), min_size=2, max_size=5))
def test_accuracy_is_over_episodes_of_the_seeds_mean_and_the_other_interval_over_seeds(percents):
    line = lines(*(record("maml", seed, each) for seed, each in enumerate(percents)))["maml"]
    episodes, seeds = np.mean(percents, axis=0), np.mean(percents, axis=1)
    for found, values, quantile in (
        (line.accuracy, episodes, stats.norm.ppf(0.975)),
        (line.seeds, seeds, stats.t.ppf(0.975, len(seeds) - 1)),
    ):
        half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
        assert found.mean == pytest.approx(np.mean(percents))
        assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert line.support.mean == pytest.approx(line.accuracy.mean - 1)
    assert line.runs == len(percents)


def test_the_difference_is_paired_seed_by_seed_on_the_seeds_that_both_have():
    made = [*pairs("low", [2.0, 1.0, 3.0]), record("maml", 7, with_mean(90)), record("low", 8, with_mean(10))]
    difference = lines(*made)["low"].difference
    half = stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)
    assert (difference.mean, difference.n) == (pytest.approx(2.0), 3)
    assert (difference.low, difference.high) == pytest.approx((2 - half, 2 + half))


def test_the_order_of_the_records_does_not_matter():
    made = pairs("low", [2.0, 1.0, 3.0])
    assert lines(*made) == lines(*reversed(made))


def test_without_a_common_seed_there_is_no_difference():
    line = lines(record("maml", 0), record("low", 1))["low"]
    assert (line.difference, line.verdict) == (None, "—")


def test_a_table_of_some_rows_does_without_its_baseline():
    table = replace(TABLE, rows=(ROWS["low"],))
    line = lines(record("low"), table=table)["low"]
    assert line.accuracy is not None
    assert (line.difference, line.verdict) == (None, "—")


# The verdict; its rule is tested in test_verdicts.py.


@pytest.mark.parametrize(
    ("row", "differences", "expected"),
    [
        ("low", [1.5, 1.75, 2.0], "gain confirmed"),
        ("low", [0.0, 0.25, -0.25], "gain excluded, equivalent within 0.87 points"),
        ("own", [1.5, 1.75, 2.0], "more accurate"),  # the source has no value
        ("matching", [1.5, 1.75, 2.0], "more accurate"),  # it quotes one
        ("low", [50.0], "one seed decides nothing"),
    ],
)
def test_a_row_is_judged_by_its_paired_differences_and_the_sources_gain(row, differences, expected):
    assert lines(*pairs(row, differences))[row].verdict == expected


def test_rows_are_judged_together():
    beside = {(r.name, r.seed): r for r in [*pairs("low", [0.0, 0.5, -0.25]), *pairs("own", [-4.0, 6.0, 1.0])]}
    found = lines(*beside.values())
    assert lines(*pairs("low", [0.0, 0.5, -0.25]))["low"].verdict == "gain excluded, equivalent within 0.87 points"
    assert found["low"].verdict == "gain excluded"  # equivalence is asked of both rows, the printed gain of one
    assert found["own"].verdict.startswith("not enough runs: about ")


# The notes.


def test_the_notes_say_data_budget_radii_episodes_code_and_cost():
    text = "\n".join(notes(TABLE, TIER, [record("maml"), record("low"), record("matching")]))
    for expected in (
        "made-up images (made up, digest dddddddddddd), 16 pixels",
        "conv4 with 4 filters, 1 inner step of 0.4, 5 at test, 2 episodes a meta-iteration, 6 meta-iterations",
        "adam with step 1e-12",
        "Radii: low 0.02 (low), 0 (up).",
        "4 fixed test episodes of 5 ways, 1 shot and 20 queries",
        "commit cccccccccc; a processor, 1 thread a run; 1.50 hours",
    ):
        assert expected in text
    assert "{" not in text


def test_the_notes_count_the_threads_of_all_records():
    first, other = record("maml"), record("low")
    two = replace(other, provenance={**other.provenance, "threads": 2})
    assert "a processor, 1 thread or 2 threads a run" in "\n".join(notes(TABLE, TIER, [first, two, first]))


def test_the_notes_name_a_run_that_was_cut_off():
    point = {"loss": 1.0, "validation_accuracy": 0.5}
    planned = record("maml").config["iterations"]
    whole = replace(record("maml"), learning_curve=[{**point, "step": planned}])
    part = replace(record("low", 1), learning_curve=[{**point, "step": planned - 2}])
    assert "UNFINISHED" not in "\n".join(notes(TABLE, TIER, [whole]))
    expected = f"UNFINISHED, {planned} iterations were planned: low, seed 1, at step {planned - 2}."
    assert expected in notes(TABLE, TIER, [whole, part])


def test_notes_on_methods_without_radii_or_steps_leave_these_out():
    text = "\n".join(notes(TABLE, TIER, [record("matching")]))
    assert "inner step" not in text
    assert "Radii" not in text


# Data that are not miniImageNet, on a tier of miniImageNet.


def test_records_of_miniimagenet_stand_under_its_name_and_are_compared():
    made = [record("maml", data_name="miniimagenet")]
    assert on_other_data(TABLE, REAL, made) == (TABLE, REAL)
    assert on_other_data(TABLE, REAL, []) == (TABLE, REAL)
    assert on_other_data(TABLE, TIER, [record("maml")]) == (TABLE, TIER)  # says itself that it is made up


@pytest.mark.parametrize("name", ["omniglot-small", "folders", "miniimagenet-by-numbers"])
def test_records_of_other_data_stand_under_their_name_and_are_compared_with_nothing(name):
    made = [replace(each, data_name=name) for each in pairs("low", [1.5, 1.75, 2.0])]
    table, tier = on_other_data(TABLE, REAL, made)
    assert table.title == f"A title, on {name}"
    found = lines(*made, table=table)
    assert [(line.source, line.quoted, line.source_difference) for line in found.values()] == [(None, False, None)] * 4
    assert [found[row].verdict for row in ("maml", "low")] == ["baseline", "more accurate"]
    text = "\n".join(notes(table, tier, made))
    assert f"Data: not shown to be miniimagenet ({name}, digest dddd" in text
    assert "nothing is compared with the source" in text
    some = replace(TABLE, rows=(ROWS["low"],))
    assert on_other_data(some, REAL, made)[0].baseline.source is None
