"""Accuracy beside sharpness, from records alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from reproductions.landscape import accuracy, flatness
from reproductions.landscape.measure import MEASURES
from reproductions.tables.specification import Cell, load
from sharp_maml import Result, interval_over_episodes, write_record, write_result
from tests.reproductions.tables.records_for_tests import record

TABLES, TIERS = load()


def measured(rows, seeds=(0, 1, 2), digest=lambda row, seed: record(row, seed).config_digest):
    cells = [
        {"row": row, "seed": seed, "config_digest": digest(row, seed)} | dict.fromkeys(MEASURES, 10.0 * index + seed)
        for index, row in enumerate(rows)
        for seed in seeds
    ]
    return {"cells": cells, "labels": {row: row.upper() for row in rows}}


def judged(row, seed, test, training):
    made = record(row, seed, [test] * 4)
    return replace(made, metrics={accuracy.TRAINING: interval_over_episodes([training / 100] * 4)})


def network(row, seed, test, sharpness):
    return accuracy.Point(row, seed, test, test, dict.fromkeys(MEASURES, sharpness))


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_of_a_single_seed_it_is_spearmans_in_any_scale(a, b):
    found = accuracy.correlations([network(str(i), 0, np.exp(a[i]), b[i] ** 3) for i in range(6)])
    squares = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    assert [each.mean for each in found.values()] == pytest.approx([1 - 6 * squares / (6 * 35)] * len(MEASURES))
    assert {each.n for each in found.values()} == {1}


def test_what_seeds_differ_by_does_not_count():
    points = [network(row, seed, 10 * seed + i, 100 * seed - i) for seed in range(4) for i, row in enumerate("abc")]
    found = accuracy.correlations(points)["rise"]
    assert (found.mean, found.n) == (pytest.approx(-1), 4)
    assert found.high == pytest.approx(-1)
    assert spearmanr([p.sharpness["rise"] for p in points], [p.test for p in points]).statistic > 0.5


def test_a_seed_whose_networks_are_tied_orders_nothing():
    points = [network(row, seed, 10 + seed * i, i) for seed in range(2) for i, row in enumerate("abc")]
    found = accuracy.correlations(points)["rise"]
    assert (found.mean, found.n) == (pytest.approx(0.5), 2)


def test_networks_are_matched_by_row_seed_and_configuration():
    records = [judged("maml", 0, 40, 60), judged("low", 0, 42, 59), judged("low", 1, 41, 58), record("low", 2)]
    found = accuracy.points(records, measured(["maml", "low"], seeds=(0, 2)))
    assert [(point.row, point.seed, point.test, point.training) for point in found] == [
        ("maml", 0, 40, 60), ("low", 0, 42, 59),
    ]  # fmt: skip
    assert found[1].sharpness["rise"] == 10
    assert accuracy.points(records, measured(["maml", "low"], digest=lambda *_: "another")) == []


def test_the_gap_is_paired_over_seeds_with_the_baselines():
    records = [
        judged(row, seed, 40 + seed, 60 + seed * 2 - (row == "low")) for row in ("maml", "low") for seed in range(3)
    ]
    (estimate,) = accuracy.gaps(accuracy.points(records, measured(["maml", "low"]))).values()
    assert (estimate.mean, estimate.n) == (pytest.approx(-1), 3)
    assert estimate.high - estimate.low == pytest.approx(0, abs=1e-9)


def test_the_command_draws_from_a_results_folder(tmp_path, capsys):
    tier = TIERS["smoke"]
    rows = {row.name: row for row in TABLES["table1"].rows}
    for row in ("maml", "low", "up"):
        for seed in range(2):
            own = Cell(TABLES["table1"], rows[row], tier, seed)
            made = replace(
                judged("maml", seed, 40 + seed, 60),
                name=row,
                config=own.config.to_dict(),
                config_digest=own.config.digest,
            )
            write_record(own.directory(tmp_path) / "record.json", made)
    digest = lambda row, seed: Cell(TABLES["table1"], rows[row], tier, seed).config.digest  # noqa: E731
    path = tmp_path / "landscape/smoke.json"
    write_result(path, Result("landscape", {}, measured(["maml", "low", "up"], (0, 1), digest)))
    assert flatness.main(["--tier", "smoke", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "rank correlation" in out
    assert "low: gap from training to test classes" in out
    assert (tmp_path / "landscape/flatness.png").stat().st_size > 10_000


def test_without_records_it_says_what_is_missing(tmp_path, capsys):
    assert flatness.main(["--tier", "smoke", "--results", str(tmp_path)]) == 2
    assert "make it with: make landscape" in capsys.readouterr().err
