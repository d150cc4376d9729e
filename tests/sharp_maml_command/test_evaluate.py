from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from sharp_maml import BatchNorm, load_checkpoint, read_records, save_checkpoint
from sharp_maml.evaluate import PRESETS, evaluate
from sharp_maml_command import Mode, main
from tests.sharp_maml.tiny import tiny_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set and a run of it, read by all tests and changed by none."""
    return tiny_run(tmp_path_factory.mktemp("evaluate"))


def test_the_command_prints_both_accuracies_with_their_intervals_and_writes_the_record(trained, tmp_path, capsys):
    _, checkpoint, data = trained
    path = tmp_path / "a folder with a rather long name that no line of a terminal would hold" / "record.json"
    assert main(["evaluate", str(checkpoint), str(data), "--episodes", "5", "--record", str(path)]) == 0
    (record,) = read_records(path)
    lines = capsys.readouterr().out.splitlines()
    for line, mode in zip(lines, ("transductive", "support"), strict=False):
        estimate = record.metrics[f"accuracy_{mode}"]
        assert line == (
            f"test, {mode} batch norm: {100 * estimate.mean:.2f}% [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"
            f", 5 episodes, step {record.selected_step}"
        )
    assert lines[2:] == [f"record: {path}"]
    assert record.name == "run"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_knows_numbers_of_episodes_by_name(trained, monkeypatch, capsys, preset):
    monkeypatch.setitem(PRESETS, preset, 2)
    arguments = ["evaluate", str(trained[1]), str(trained[2]), "--episodes", preset, "--batch-norm", "support"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert ", 2 episodes" in out
    assert "transductive" not in out


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "abc", "", "10,000", "Quick"])
def test_the_command_says_what_a_number_of_episodes_is(trained, capsys, text):
    assert main(["evaluate", str(trained[1]), str(trained[2]), f"--episodes={text}"]) == 2
    error = capsys.readouterr().err
    assert f"--episodes must be a number >= 1 or one of quick, standard, full, got {text!r}" in error


def test_the_command_names_a_missing_checkpoint(trained, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none.safetensors"), str(trained[2])]) == 2
    assert str(tmp_path / "none.safetensors") in capsys.readouterr().err


def test_the_command_names_missing_data(trained, tmp_path, capsys):
    assert main(["evaluate", str(trained[1]), str(tmp_path / "nowhere"), "--episodes", "2"]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_the_command_names_a_truncated_checkpoint(trained, tmp_path, capsys):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(trained[1].read_bytes()[:-100])
    assert main(["evaluate", str(path), str(trained[2])]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "whole checkpoint" in error


def test_the_command_refuses_a_checkpoint_that_is_not_the_trainers(trained, tmp_path, capsys):
    save_checkpoint(tmp_path / "own.safetensors", tensors={"x": torch.ones(1)}, metadata={"config_digest": "1"})
    assert main(["evaluate", str(tmp_path / "own.safetensors"), str(trained[2])]) == 2
    assert "expected a checkpoint of the trainer" in capsys.readouterr().err


def test_the_command_names_a_record_that_cannot_be_written(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "record.json"
    assert main(["evaluate", str(trained[1]), str(trained[2]), "--episodes", "1", "--record", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_the_command_sets_the_threads(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert main(["evaluate", str(trained[1]), str(trained[2]), "--episodes", "1", "--threads", "1"]) == 0
    assert asked == [1]


def test_the_command_prints_the_record_as_json(trained, tmp_path, capsys):
    path = tmp_path / "record.json"
    given = ["evaluate", str(trained[1]), str(trained[2]), "--episodes", "3"]
    assert main([*given, "--json", "--record", str(path)]) == 0
    assert capsys.readouterr().out == path.read_text()
    (record,) = read_records(path)
    expected = evaluate(load_checkpoint(trained[1]), trained[0], name="run", episodes=3)
    assert record.accuracies == expected.accuracies


@pytest.mark.parametrize(
    ("option", "choices"), [("--split", "test validation train"), ("--batch-norm", "both support")]
)
def test_the_command_lists_the_choices_of_an_option(trained, capsys, option, choices):
    assert main(["evaluate", str(trained[1]), str(trained[2]), f"{option}=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(choice in line for choice in [option, *choices.split()])


def test_the_choices_and_numbers_of_the_help_are_those_of_the_package(capsys):
    assert get_args(Mode) == get_args(BatchNorm)
    assert main(["evaluate", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ", ".join(f"{name} ({number:,})" for name, number in PRESETS.items()) in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_and_no_accuracy(trained, tmp_path, capsys, value):
    """The largest of them has a place, and so would be an answer."""
    checkpoint = load_checkpoint(trained[1])
    tensors = {name: each.clone() for name, each in checkpoint.tensors.items()}
    tensors["params/head.bias"][0] = value
    save_checkpoint(tmp_path / "spoiled.safetensors", tensors=tensors, metadata=checkpoint.metadata)
    assert main(["evaluate", str(tmp_path / "spoiled.safetensors"), str(trained[2]), "--episodes", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the logits of test episode 0 (transductive batch norm) are not finite: ")
