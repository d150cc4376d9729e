"""How far choices of the protocol move a number: on the smoke tier's networks, against evaluations by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

from reproductions.sensitivity import measure
from reproductions.sensitivity.__main__ import main
from reproductions.tables.cells import run
from reproductions.tables.data import prepare_data
from reproductions.tables.specification import Cell, load
from sharp_maml import NonFiniteError, load_checkpoint, open_dataset, read_records, read_result
from sharp_maml.evaluate import evaluate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with one network of the smoke tier, and the cell."""
    results = tmp_path_factory.mktemp("results")
    tables, tiers = load()
    cell = Cell(tables["table1"], tables["table1"].baseline, tiers["smoke"], 0)
    data = prepare_data(cell.tier, None, results)
    run(cell, open_dataset(data, size=cell.config.image_size), results)
    return results, cell, data


def command(results, *options):
    return main(["--tier", "smoke", "--results", str(results), *options])


@pytest.mark.slow
def test_each_choice_is_that_evaluation_and_the_reference_is_the_record(trained, monkeypatch, capsys):
    results, cell, data = trained
    few = {
        name: {**choice, "episodes": 7} if "episodes" in choice else choice for name, choice in measure.CHOICES.items()
    }
    monkeypatch.setattr(measure, "CHOICES", few)
    assert command(results) == 0
    record = read_result(results / "sensitivity/smoke.json", "sensitivity").payload
    found = record["accuracies"]["0"]
    of_table = read_records(cell.directory(results) / "record.json")[0].accuracies["transductive"]
    assert found[measure.REFERENCE] == pytest.approx(100 * np.mean(of_table))
    assert found["400 episodes"] == pytest.approx(100 * np.mean(of_table[:7]))
    checkpoint = load_checkpoint(cell.directory(results) / "best.safetensors")
    dataset = open_dataset(data, size=cell.config.image_size)
    by_hand = evaluate(checkpoint, dataset, name="maml", episodes=20, modes=["transductive"], test_steps=10, queries=15)
    assert found["10 test steps"] == pytest.approx(100 * np.mean(by_hand.accuracies["transductive"]))
    assert list(record["gains"].values()) == pytest.approx([1.74, 1.90, 2.47])
    assert (results / "sensitivity/smoke.png").stat().st_size > 10_000
    capsys.readouterr()
    assert command(results) == 0  # nothing is judged twice
    assert "seed 0" not in capsys.readouterr().out
    assert command(results, "--seeds", "2") == 0  # of seed 1 there is no network
    assert re.search(r"networks\s+are\s+missing\s+in\s+\S+:\s+seeds\s+1\b", capsys.readouterr().out)
    assert list(read_result(results / "sensitivity/smoke.json", "sensitivity").payload["accuracies"]) == ["0"]


def test_a_shift_is_a_difference_on_the_same_networks_over_seeds():
    names = list(measure.CHOICES)
    accuracies = {str(seed): dict.fromkeys(names, 40.0 + 5 * seed) for seed in range(3)}
    for seed, of_seed in enumerate(accuracies.values()):
        of_seed["1 test step"] -= 1 + 0.1 * seed
    moved = measure.shifts(accuracies)
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (moved["1 test step"].mean, moved["1 test step"].high) == pytest.approx((-1.1, -1.1 + half))
    assert moved["10 test steps"].mean == 0
    assert measure.REFERENCE not in moved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds must be >= 1"),
        (["--row", "matching-fce"], "--row must be one of maml, low, up, both, got 'matching-fce'"),
        (["--row", "low"], "train it with: make reproduce-table1 TIER=smoke"),
    ],
)
def test_what_cannot_be_done_is_one_line(trained, capsys, options, message):
    assert command(trained[0], *options) == 2
    assert message in capsys.readouterr().err


def test_logits_that_are_not_finite_are_one_line(trained, monkeypatch, capsys):
    def refuse(*arguments):
        raise NonFiniteError("the logits of test episode 3 are not finite")

    results, cell, _ = trained
    (cell.directory(results) / "sensitivity.json").unlink(missing_ok=True)
    monkeypatch.setattr(measure, "measure", refuse)
    assert command(results) == 2
    assert capsys.readouterr().err.endswith("error: the logits of test episode 3 are not finite\n")


def test_a_record_of_other_settings_is_judged_anew(trained, monkeypatch):
    results, cell, _ = trained
    path = cell.directory(results) / "sensitivity.json"
    path.write_text(json.dumps({"config_digest": "another", "accuracies": dict.fromkeys(measure.CHOICES, 1.0)}))
    monkeypatch.setattr(measure, "measure", lambda *arguments: 2.0)
    assert command(results) == 0
    found = read_result(results / "sensitivity/smoke.json", "sensitivity").payload["accuracies"]
    assert set(found["0"].values()) == {2.0}
    path.unlink()
