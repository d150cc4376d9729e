"""Cells that a scheduler gets: submitit's processes on this machine, preempted, and a Ray cluster that loses a node."""

from __future__ import annotations

import io
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from reproductions.tables.cells import run_named
from reproductions.tables.check import TableError
from reproductions.tables.clusters import Requeued, run_on_cluster, scheduler_option
from reproductions.tables.specification import cells_of, load
from reproductions.tables.train import missing
from sharp_maml import load_checkpoint, read_records
from sharp_maml.train import Interrupted
from tests.reproductions.tables import stand_in
from tests.reproductions.tables.records_for_tests import cell, dataset
from tests.sharp_maml.tiny import assert_same_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def submitit(monkeypatch):
    """Submitit, whose jobs find the repository."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return pytest.importorskip("submitit", reason="the extra `cluster` is not installed")


def handed(cells, place: Path, cluster: str, lines: str | None = None, **options: object) -> str:
    """Hand cells to a scheduler; what is shown."""
    shown = Console(file=io.StringIO(), width=300)
    work = {} if lines is None else {"work": partial(stand_in.work, lines)}
    for each in cells if lines is not None else ():
        each.directory(place / "results").mkdir(parents=True, exist_ok=True)
    data, results = place / "data", place / "results"
    run_on_cluster(cells, data, results, cluster=cluster, options=options, console=shown, **work)
    return shown.file.getvalue()


def test_every_cell_is_a_job_of_one_batch_and_the_first_that_fails_is_named_when_all_have_ended(
    submitit, tmp_path, monkeypatch
):
    batches = []
    original = submitit.AutoExecutor._internal_process_submissions
    monkeypatch.setattr(
        submitit.AutoExecutor,
        "_internal_process_submissions",
        lambda self, each: batches.append(len(each)) or original(self, each),
    )
    own = [cell("maml"), cell("low", 1), cell("maml", 1)]
    lines = "if row == 'low': raise OSError('disk full')\n(place / 'done').write_text(str(results))"
    with pytest.raises(RuntimeError, match=r"(?s)^low, seed 1: job \d+, log .* failed: .*OSError: disk full"):
        handed(own, tmp_path, "local", lines, timeout_min=5)
    assert batches == [3]
    done = [each.directory(tmp_path / "results") / "done" for each in own]
    assert [path.exists() for path in done] == [True, False, True]
    assert done[2].read_text() == str((tmp_path / "results").resolve())


def of_tier(*rows: str):
    """Cells of the specification's own tier that shows that everything runs."""
    tables, tiers = load()
    return [each for each in cells_of(tables["table1"], tiers["smoke"], seeds=1, device="cpu") if each.row.name in rows]


def assert_as_uninterrupted(own, place: Path) -> None:
    """Bit for bit what the same words give in this process."""
    whole = place / "whole"
    run_named([str(place / "data"), str(whole), *own.words])
    found, expected = (each / own.directory(Path()) for each in (place / "results", whole))
    assert_same_run(expected, found)
    records = [read_records(each / "record.json")[0] for each in (expected, found)]
    assert records[0].accuracies == records[1].accuracies


@pytest.mark.slow
def test_a_job_that_is_preempted_saves_is_handed_over_again_and_ends_as_if_nothing_had_happened(submitit, tmp_path):
    """In training, two steps after the start of six, of which only the third saves; then in its evaluation."""
    dataset(tmp_path / "data")
    (own,) = of_tier("both")
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local", local_max_num_timeout=5)
    executor.update_parameters(timeout_min=5)
    words = [str(tmp_path / "data"), str(tmp_path / "results"), *own.words]
    job = executor.submit(Requeued(stand_in.preempted), words)
    assert job.exception() is None
    directory = own.directory(tmp_path / "results")
    assert (directory / "trained").exists()
    assert (directory / "judged").exists()
    log = job.paths.stderr.read_text()
    assert log.count("Requeued job") == 2
    assert re.search(r"signal 15: saved step [2-5] in", log)
    assert load_checkpoint(directory / "last.safetensors").metadata["progress"]["interruptions"] == 1
    assert_as_uninterrupted(own, tmp_path)


def test_a_job_that_is_stopped_by_another_signal_is_not_handed_over_again(submitit, monkeypatch):
    handed_over = []
    monkeypatch.setattr(signal, "getsignal", {signal.SIGUSR2: handed_over.append}.get)
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with pytest.raises(Interrupted):
            Requeued(interrupted)(["words"])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert handed_over == []


def interrupted(words) -> None:
    raise Interrupted(128 + signal.SIGTERM)


@pytest.mark.parametrize(("cluster", "package"), [("local", "submitit"), ("ray", "ray")])
def test_without_its_package_the_extra_is_named(monkeypatch, tmp_path, cluster, package):
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"submitit": "cluster", "ray": "ray"}[package]
    with pytest.raises(RuntimeError, match=rf"sharp-maml\[{extra}\]"):
        handed([cell()], tmp_path, cluster)


@pytest.mark.slow
def test_ray_runs_every_cell_again_whose_worker_was_killed_and_names_one_that_fails(ray, tmp_path):
    """On a cluster of this machine, which ends with the command."""
    lines = """
import os
if row == "low":
    raise OSError("disk full")
with (place / "begun").open("a") as file:
    file.write("x")
if (place / "begun").stat().st_size == 1:
    os.kill(os.getpid(), 9)
"""
    own = [cell("low", 1), cell("maml")]
    with pytest.raises(RuntimeError, match=r"(?s)^low, seed 1: task .* failed: .*OSError: disk full"):
        handed(own, tmp_path, "ray", lines, num_cpus=0.5)
    assert (own[1].directory(tmp_path / "results") / "begun").read_text() == "xx"
    assert not ray.is_initialized()


@pytest.mark.slow
def test_cells_of_a_ray_cluster_of_two_nodes_end_as_if_nothing_had_happened_when_one_is_killed(ray, tmp_path):
    from ray.cluster_utils import Cluster

    dataset(tmp_path / "data")
    own = of_tier("maml", "both")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
        begun = [each.directory(tmp_path / "results") / "metrics.jsonl" for each in own]

        def kill_one() -> None:
            while not all(path.exists() and '"step": 2' in path.read_text() for path in begun):
                time.sleep(0.01)
            cluster.remove_node(nodes[0], allow_graceful=False)

        killer = threading.Thread(target=kill_one)
        killer.start()
        shown = handed(own, tmp_path, "ray", address=cluster.address)
        killer.join()
    finally:
        cluster.shutdown()
    assert shown.count("done") == 2
    assert missing(own, tmp_path / "results") == []
    for each in own:
        assert_as_uninterrupted(each, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timeout_min=600", ("timeout_min", 600)),
        ("slurm_partition=gpu", ("slurm_partition", "gpu")),
        ("mem_gb=1.5", ("mem_gb", 1.5)),
        ("slurm_comment=a=b", ("slurm_comment", "a=b")),
    ],
)
def test_an_option_of_the_scheduler_is_a_name_and_a_toml_value_or_text(text, expected):
    assert scheduler_option(text) == expected


@pytest.mark.parametrize("text", ["timeout_min", "=3"])
def test_an_option_of_the_scheduler_without_name_or_value_is_refused(text):
    with pytest.raises(TableError, match="KEY=VALUE"):
        scheduler_option(text)
