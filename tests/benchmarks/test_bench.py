"""The benchmark compares like with like: both sides compute the same number, and its operations are counted right."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import bench
from benchmarks.work import Work, flops, ours, plain
from reproductions.study import RECORDS
from sharp_maml import read_result
from tests.sharp_maml.oracles import relative_error

GFLOP = {
    "maml-1": 200,
    "maml-5": 330,
    "up-1": 400,
    "up-5": 661,
    "low-1": 211,
    "low-5": 386,
    "both-1": 412,
    "both-5": 717,
}


@pytest.mark.parametrize("form", ["fused", "elementary"])
@pytest.mark.parametrize("variant", GFLOP)
def test_both_sides_compute_the_same_meta_gradient(variant: str, form: str) -> None:
    work = Work(variant, 21, episodes=2, ways=3, queries=2, filters=4)
    params, episodes = work.data(torch.float64)
    assert relative_error(ours(work, params, episodes, form=form), plain(work, params, episodes)) < 1e-8


@pytest.mark.parametrize(("variant", "expected"), GFLOP.items())
def test_the_operations_of_a_meta_iteration_are_those_of_the_paper_and_pencil(variant: str, expected: float) -> None:
    assert flops(Work(variant, 84)) / 1e9 == pytest.approx(expected, rel=0.02)


def test_float32_is_as_exact_as_in_the_plain_loop() -> None:
    error = bench.float32_error()
    assert error["ours"] < 3 * error["plain"]


@pytest.mark.slow
def test_the_benchmark_writes_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--only", "low-1@16", "--repeats", "2", "--output", str(tmp_path / "bench.json")])
    result = read_result(tmp_path / "bench.json", "speed")
    (row,) = result.payload["rows"]
    assert "benchmarks.work" in result.provenance["sources"]
    assert row["work"] == "low-1@16"
    ratio = row["ratio"]["plain"]
    assert ratio["min"] <= ratio["median"] <= ratio["max"]
    assert "low-1@16" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_a_side_without_kernels_does_more_operations_of_torch() -> None:
    profiles = []
    for kernels in (True, False):
        with bench._workers(bench.Side(bench.SMALL._replace(threads=1, kernels=kernels), "ours")) as ask:
            profiles.append(ask("profile"))
    native, torchs = (of["seconds_by_kind"]["pooling and its adjoint"] for of in profiles)
    assert native == 0 < torchs
    row = bench.with_kernels(bench.SMALL, 1)
    assert (row["filters"], row["ratio"]["torch"]["n"]) == (8, 1)


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_of_the_tracked_record_fit_the_terminal(width: int) -> None:
    shown = io.StringIO()
    result = read_result(RECORDS / "bench/speed.json", "speed")
    bench.show(result, Console(file=shown, width=width))
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in result.payload["rows"]:
        assert f"{row['work']} " in text
        assert f"{row['median_seconds']['ours']:.2f}" in text
