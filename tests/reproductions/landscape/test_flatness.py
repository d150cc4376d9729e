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


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
        min_size=5,
        max_size=30,
        unique_by=(lambda p: p[0], lambda p: p[1]),
    )
)
def test_the_correlation_is_spearmans_and_its_interval_holds_it_and_is_symmetric_in_its_arguments(pairs):
    a, b = zip(*pairs, strict=True)
    found = accuracy.rank_correlation(a, b)
    assert found.mean == pytest.approx(spearmanr(a, b).statistic)
    assert found.low <= found.mean <= found.high
    assert found == accuracy.rank_correlation(b, a)
    assert accuracy.rank_correlation(a, np.negative(b)).mean == pytest.approx(-found.mean)


def test_the_interval_covers_the_truth_of_normal_pairs_at_its_level():
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], (400, 40))
    truth = 6 / np.pi * np.arcsin(0.3)  # Spearman's of a normal pair of correlation 0.6
    covered = [
        estimate.low <= truth <= estimate.high for estimate in (accuracy.rank_correlation(*pairs.T) for pairs in draws)
    ]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_few_networks_have_no_interval():
    assert accuracy.rank_correlation([1, 2, 3], [2, 1, 3]).low == -np.inf
    assert accuracy.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]).high == np.inf


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
