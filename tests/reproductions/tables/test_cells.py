"""One cell: trained, judged, and telling how far it is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reproductions.tables import cells
from reproductions.tables.cells import Seen, look, run, run_named
from reproductions.tables.specification import load
from reproductions.tables.train import missing
from sharp_maml import load_checkpoint, read_records
from sharp_maml.data import open_cache
from sharp_maml.evaluate import evaluate
from tests.reproductions.tables.records_for_tests import cell, dataset


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def test_running_a_cell_trains_it_and_writes_a_record_of_the_best_step_and_of_the_whole_run(tmp_path, results):
    """Steps of 1e-12 change no answer, so that the first validation stays the best: the run goes on after it."""
    run(cell("low", 1), dataset(tmp_path / "data"), results)
    directory = cell("low", 1).directory(results)
    (found,) = read_records(directory / "record.json")
    last = load_checkpoint(directory / "last.safetensors").metadata["progress"]
    assert (found.name, found.seed, found.config_digest) == ("low", 1, cell("low", 1).config.digest)
    assert (found.protocol["split"], found.protocol["episodes"]) == ("test", 4)
    assert found.accuracies.keys() == {"transductive", "support"}
    assert found.selected_step == 3
    assert [point["step"] for point in found.learning_curve] == [3, 6]
    assert (found.seconds, found.peak_memory_bytes) == (last["seconds"], last["peak_memory_bytes"])
    assert missing([cell("low", 1)], results) == []


def test_other_ways_to_judge_a_network_are_metrics_of_its_record(tmp_path, results):
    tier = replace(cell().tier, also=({"test_steps": 1}, {"split": "train"}))
    own, matching = cell(tier=tier), cell("matching", tier=tier)
    data = dataset(tmp_path / "data")
    run(own, data, results)
    run(matching, data, results)
    (found,) = read_records(own.directory(results) / "record.json")
    checkpoint = load_checkpoint(own.directory(results) / "best.safetensors")
    for name, way in (("test_steps 1", {"test_steps": 1}), ("split train", {"split": "train"})):
        by_hand = evaluate(checkpoint, data, name="maml", episodes=4, modes=["transductive"], **way)
        assert found.metrics[f"accuracy_transductive, {name}"] == by_hand.metrics["accuracy_transductive"]
    (of_matching,) = read_records(matching.directory(results) / "record.json")
    assert "accuracy_transductive, split train" in of_matching.metrics
    assert not any("test_steps" in name for name in of_matching.metrics)  # it does not adapt
    assert (own.evaluations, matching.evaluations) == (12, 8)
    assert cell(tier=tier, table=replace(cell().table, split="validation")).evaluations == 4  # it only chooses


def test_a_table_of_validation_classes_is_judged_on_them(tmp_path, results):
    own = cell(table=replace(cell().table, split="validation"))
    run(own, dataset(tmp_path / "data"), results)
    (found,) = read_records(own.directory(results) / "record.json")
    assert found.protocol["split"] == "validation"


def test_the_command_of_a_cell_runs_the_cell_of_the_specification_that_its_words_name(tmp_path, results):
    dataset(tmp_path / "data")
    run_named([str(tmp_path / "data"), str(results), "table1", "up", "smoke", "0", "cpu"])
    (found,) = read_records(results / "smoke/up/seed0/record.json")
    _, tiers = load()
    assert found.config["alpha_up"] == tiers["smoke"].rows["up"]["alpha_up"]
    assert found.data_digest == open_cache(tmp_path / "data").digest


LINE = {"step": 59, "loss": 1.25, "seconds": 0.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (0, "starting")),
        ("", (0, "starting")),
        ("no JSON\n{no JSON}", (0, "starting")),
        ("\n".join(json.dumps({**LINE, "step": i}) for i in range(1, 60)), (59, "loss 1.250, 0.500 s/it")),
        (f'{{"step": 4}}\n{json.dumps(LINE)}\n{{"step": 60, "lo', (59, "loss 1.250, 0.500 s/it")),
        (f'{{}}\n{json.dumps(LINE)}\n{{"step": 59, "validation_accuracy": 0.5}}', (59, "loss 1.250, 0.500 s/it")),
    ],
    ids=["no file", "empty", "damaged", "long", "torn", "validation"],
)
def test_progress_is_the_last_whole_line_of_training_in_the_metrics(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert look(tmp_path)[:2] == expected


def test_progress_skips_the_line_that_the_part_that_is_read_begins_in(tmp_path):
    text = "\n".join([json.dumps({**LINE, "note": "x" * 950}), json.dumps({**LINE, "step": 60})])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert look(tmp_path)[:2] == (60, "loss 1.250, 0.500 s/it")


@pytest.mark.parametrize("newer", [True, False])
def test_told_episodes_count_while_they_are_newer_than_the_metrics(tmp_path, newer):
    (tmp_path / "metrics.jsonl").write_text(f"first\n{json.dumps(LINE)}\n")
    cells._teller(tmp_path, "validation", 40)(0)
    moment = (tmp_path / "metrics.jsonl").stat().st_mtime_ns + (10**9 if newer else -(10**9))
    os.utime(tmp_path / cells.EPISODES, ns=(moment, moment))
    told = Seen(59, "validation episode 0 of 40", False, "validation", 0)
    assert look(tmp_path) == (told if newer else Seen(59, "loss 1.250, 0.500 s/it"))


@pytest.mark.parametrize("text", ["", "valid", "validation 3", "validation x 40"])
def test_a_torn_word_on_episodes_is_passed_over(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(f"first\n{json.dumps(LINE)}\n")
    (tmp_path / cells.EPISODES).write_text(text)
    assert look(tmp_path) == Seen(59, "loss 1.250, 0.500 s/it")


def test_episodes_are_told_from_the_first_of_each_validation_and_not_each_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "time", SimpleNamespace(monotonic=iter([0, 0.1, 0.7, 0.8, 0.9, 1.0, 1.3]).__next__))
    tell, seen = cells._teller(tmp_path, "validation", 5), []
    for index in (0, 1, 2, 3, 4, 0, 1):
        tell(index)
        seen.append((tmp_path / cells.EPISODES).read_text())
    assert seen == [f"validation {done} 5" for done in (0, 0, 2, 2, 2, 0, 0)]


def test_a_trained_cell_has_told_its_last_evaluation(tmp_path, results):
    run(cell("low", 1), dataset(tmp_path / "data"), results)
    seen = look(cell("low", 1).directory(results))
    assert (seen.step, seen.validated, seen.phase) == (6, True, "evaluation")
