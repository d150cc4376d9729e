"""The command for a GPU, on a CPU and at a tiny size: what it runs, keeps and shows."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future

import pytest
import torch

from benchmarks import gpu, page
from reproductions.study import RECORDS
from reproductions.tables.specification import Cell
from sharp_maml import Result, load_checkpoint, provenance, read_result
from tests.sharp_maml.tiny import tiny_config, tiny_dataset

TESTS = {"exit_code": 0, "said": "9 passed, 700 deselected"}
LENGTHS = {"speed": 6, "compared": 3, "trained": 4}
PAPER = {variant: Cell.from_words("table1", variant, "paper", "0", "cuda").config for variant in gpu.VARIANTS}


class Here:
    """A pool of no process: the work is done at once, in this one."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two modes and one variant, in this process; gives settings, data and the place of the record."""
    monkeypatch.setattr(gpu, "MODES", {mode: gpu.MODES[mode] for mode in ("eager", "graphs")})
    monkeypatch.setattr(gpu, "TRAINED", ("both",))
    monkeypatch.setattr(gpu, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(gpu, "device_tests", lambda: TESTS)
    tiny_dataset(tmp_path / "tiny")
    configs = {"both": tiny_config(alpha_low=0.05, alpha_up=0.05, validation_episodes=2)}
    return configs, tmp_path / "tiny", tmp_path / "bench/gpu.json"


def test_everything_that_was_asked_for_is_run():
    found = gpu.runs(PAPER)
    speed = {(run.variant, run.mode): run.config for run in found if run.part == "speed"}
    assert len(speed) == 4 * 2 * len(gpu.MODES)
    for (variant, mode), config in speed.items():
        assert variant == f"{config.variant}-{config.steps}"
        assert config.compile == (mode == "compiled")
        assert config.cuda_graphs == mode.startswith("graphs")
        assert (config.image_size, config.filters, config.meta_batch, config.device) == (84, 64, 4, "cuda")
    for run in found[-2:]:
        assert run.part == "training"
        assert run.config.digest != PAPER[run.variant].digest  # only because it is shorter
        whole = {**run.config.to_dict(), "iterations": 60_000, "cuda_graphs": False}
        assert whole == PAPER[run.variant].to_dict()
    assert [run.variant for run in found[-2:]] == ["maml", "both"]
    assert len({run.place(page.Path()) for run in found}) == len(found)
    assert all(str(run.place(page.Path())).replace("-", "").isalnum() for run in found)


def test_the_record_holds_every_run_and_graphs_change_nothing_on_a_cpu(small):
    configs, data, output = small
    measured = gpu.measure(configs, data, output, provenance(module="benchmarks.gpu"), **LENGTHS)
    result = read_result(output, "gpu")
    assert result.payload == json.loads(json.dumps(measured.payload))
    assert "benchmarks.gpu" in result.provenance["sources"]
    assert result.payload["tests"] == TESTS
    assert result.payload["whole"] == 8
    assert {variant: list(rows) for variant, rows in result.payload["speed"].items()} == {
        "both-1": ["eager", "graphs"],
        "both-5": ["eager", "graphs"],
    }
    equality = result.payload["equality"]["both"]
    assert [row["iterations"] for row in equality.values()] == [3, 3, 3]
    assert {mode: row.get("apart") for mode, row in equality.items()} == {"eager": None, "eager again": 0, "graphs": 0}
    training = result.payload["training"]["both"]["graphs"]
    assert training["iterations"] == 4
    assert 0 <= training["validation_accuracy"] <= 1
    assert training["gib"] > 0.01
    shown = page.gpu_page(result)
    assert "eager, 1/s | GiB | graphs, 1/s | GiB |" in shown
    assert f"| {training['seconds'] * 8 / 4 / 60:.0f} | 35 |" in shown
    assert TESTS["said"] in shown
    assert "failed" not in shown


def test_what_was_done_is_kept_unless_code_or_lengths_are_others(small, monkeypatch):
    configs, data, output = small
    places = []

    def failing(config, dataset, place):
        places.append(place)
        raise RuntimeError

    monkeypatch.setattr(gpu, "train", failing)

    def tried(commit: str, **lengths: int) -> list[str]:
        places.clear()
        gpu.measure(configs, data, output, {"commit": commit, "dirty": False}, **{**LENGTHS, **lengths})
        return sorted(place.name for place in places)

    every = sorted(run.place(output).name for run in gpu.runs(configs, **LENGTHS))
    assert tried("a") == tried("a") == every  # all failed, and are tried again
    done = places[0]
    done.mkdir(parents=True)
    (done / "row.json").write_text("{}", encoding="utf-8")
    assert tried("a") == [name for name in every if name != done.name]
    assert tried("b") == tried("a", speed=9) == every


def test_a_run_that_fails_is_shown_and_the_others_are_done(small, monkeypatch):
    configs, data, output = small
    train = gpu.train

    def failing(config, *arguments):
        if (config.cuda_graphs and config.steps == 5) or (config.dtype == "float64" and not config.cuda_graphs):
            raise RuntimeError("out of memory\nand much more")
        return train(config, *arguments)

    monkeypatch.setattr(gpu, "train", failing)
    result = gpu.measure(configs, data, output, provenance(module="benchmarks.gpu"), **LENGTHS)
    assert result.payload["speed"]["both-5"]["graphs"] == {"error": "RuntimeError: out of memory"}
    shown = page.gpu_page(result)
    assert "- speed of both-5, graphs: `RuntimeError: out of memory`\n" in shown
    compared = result.payload["equality"]["both"]
    assert all("error" in compared[mode] for mode in ("eager", "eager again", "graphs"))
    assert "- equality of both, graphs: `" in shown
    assert shown.count("| failed |") == 2


def test_an_unfinished_record_is_shown_as_far_as_it_goes():
    row = {"iterations_per_second": 12.34, "gib": 3.21}
    payload = {"data": {"name": "tiny"}, "whole": 8, "tests": TESTS, "speed": {"maml-1": {"eager": row}}}
    origin = {"device": "a device", "torch": "2", "commit": "c" * 40, "dirty": False, "sources": {}}
    shown = page.gpu_page(Result("gpu", origin, payload))
    assert "| maml, 1 step | 12.3 | 3.2 |" in shown


def test_how_far_runs_are_apart_is_relative_to_how_far_they_have_come(small, tmp_path):
    _, data, _ = small
    runs = [gpu.Run("equality", "both", str(rate), tiny_config(iterations=2, beta_up=rate)) for rate in (0.01, 0.02)]
    for run in runs:
        assert "error" not in gpu.done(run, data, tmp_path)
    first, second = (load_checkpoint(run.place(tmp_path) / "last.safetensors").tensors for run in runs)
    start = gpu.build(runs[0].config, channels=3).init(0)
    apart = sum((first[f"params/{name}"] - second[f"params/{name}"]).square().sum() for name in start) ** 0.5
    come = sum((first[f"params/{name}"] - start[name]).square().sum() for name in start) ** 0.5
    dataset = gpu.open_dataset(data, size=16)
    assert gpu.apart(*runs, dataset, tmp_path) == pytest.approx(float(apart / come), rel=1e-5)
    assert gpu.apart(runs[0], runs[0], dataset, tmp_path) == 0


def test_a_run_is_made_in_a_process_of_its_own(tmp_path):
    tiny_dataset(tmp_path / "tiny")
    threads = torch.get_num_threads()
    run = gpu.Run("speed", "maml-1", "eager", tiny_config(iterations=1, validation_episodes=1, threads=threads + 1))
    row = gpu.done(run, tmp_path / "tiny", tmp_path / "runs")
    assert row["iterations"] == 1
    assert torch.get_num_threads() == threads


def test_without_a_gpu_a_line_says_so_and_the_code_is_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([str(tmp_path), "--output", str(tmp_path / "gpu.json")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: torch finds no CUDA device")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_tests_that_need_a_gpu_are_run_and_their_outcome_is_told(monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy(gpu.ROOT / "tests/conftest.py", tmp_path / "tests")
    shutil.copy(gpu.ROOT / "pyproject.toml", tmp_path)
    test = (
        "import pytest\n\n@pytest.mark.gpu\ndef test_device():\n    assert {}\n\ndef test_other():\n    assert False\n"
    )
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(RECORDS.parent))
    for outcome, code, said in ((True, 0, "1 passed, 1 deselected"), (False, 1, "1 failed, 1 deselected")):
        (tmp_path / "tests/test_one.py").write_text(test.format(outcome), encoding="utf-8")
        assert gpu.device_tests() == {"exit_code": code, "said": said}


def test_without_a_record_the_first_line_says_that_nothing_was_run():
    assert "not run on a GPU" in page.gpu_page(None).splitlines()[0]
    assert "make gpu DATA=" in page.gpu_page(None)
