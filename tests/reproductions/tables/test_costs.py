"""What cells cost, and what they have before them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reproductions.tables import costs
from reproductions.tables.cells import Seen
from reproductions.tables.costs import Cost, estimate, measure_costs
from tests.reproductions.tables.records_for_tests import cell, dataset

COST = Cost(2.0, 0.25, 0.75)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(), (12, 1.5, 3)),
        (Seen(2), (8, 1.5, 3)),
        (Seen(3), (6, 1.5, 3)),
        (Seen(3, phase="validation", episodes=2), (6, 1.0, 3)),
        (Seen(3, validated=True), (6, 0.75, 3)),
        (Seen(5), (2, 0.75, 3)),
        (Seen(6, validated=True), (0, 0, 3)),
        (Seen(6, validated=True, phase="evaluation", episodes=2), (0, 0, 1.5)),
    ],
)
def test_what_is_left_of_a_cell_is_training_validations_and_evaluation(seen, expected):
    assert COST.left(cell(), seen) == expected


def test_the_last_step_is_validated_whatever_its_number():
    odd = cell(tier=replace(cell().tier, settings={**cell().tier.settings, "validate_every": 4}))
    assert [COST.left(odd, Seen(step, validated=True))[1] for step in (0, 4, 5, 6)] == [1.5, 0.75, 0.75, 0]


def test_the_estimate_is_of_everything_that_is_left_over_the_processes(tmp_path):
    todo = [cell("maml", seed) for seed in (0, 1)]
    assert estimate(todo, tmp_path, {"maml": COST}, 1) == (
        "2 cells to train, 1 at a time: about 33 s (training 24 s, validation 3 s, evaluation 6 s)"
    )
    assert "about 16 s" in estimate(todo, tmp_path, {"maml": COST}, 2)
    assert estimate(todo, tmp_path, {"maml": COST}, 9) == estimate(todo, tmp_path, {"maml": COST}, 2).replace(
        "2 at a time", "9 at a time"
    )
    directory = todo[0].directory(tmp_path)
    directory.mkdir(parents=True)
    line = {"step": 5, "loss": 1.25, "seconds": 0.5}
    (directory / "metrics.jsonl").write_text(f"first\n{json.dumps(line)}\n")
    assert "about 22 s (training 14 s" in estimate(todo, tmp_path, {"maml": COST}, 1)


def test_costs_are_measured_once_a_row(tmp_path, monkeypatch):
    dataset(tmp_path / "data")
    timed = []
    monkeypatch.setattr(costs, "time_iteration", lambda config, data: timed.append(config.variant) or 1.0)
    monkeypatch.setattr(
        costs, "time_prediction", lambda config, data, modes: timed.append(tuple(modes)) or 0.25 * len(modes)
    )
    todo = [cell(row, seed) for row in ("maml", "low") for seed in (0, 1)]
    assert measure_costs(todo, tmp_path / "data") == dict.fromkeys(("maml", "low"), Cost(1.0, 0.25, 0.5))
    episodes = [("transductive",), ("transductive", "support")]
    assert [each for each in timed if isinstance(each, tuple)] == episodes * 2
    assert [each for each in timed if isinstance(each, str)] == ["maml", "low"]
