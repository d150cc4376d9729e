"""Handing cells to a scheduler: to Slurm, or processes of this machine, through submitit; or to a Ray cluster.

A cell that is cut off there is handed over again, and goes on from its last checkpoint. Read next: `cells.py`, which is
what a scheduler runs.
"""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from reproductions.tables.cells import run_named
from reproductions.tables.check import TableError
from reproductions.tables.specification import Cell
from sharp_maml import InUseError
from sharp_maml.train import Interrupted

Work = Callable[[Sequence[str]], None]
"""What is done with the words that name a cell."""

RETRIES = 1000
"""How often a cell that was cut off is handed over again: a long one has many time limits to pass."""


def run_on_cluster(
    cells: Sequence[Cell],
    data: Path,
    results: Path,
    *,
    cluster: str,
    options: Mapping[str, Any],
    console: Console,
    work: Work = run_named,
) -> None:
    """Hand all cells to a scheduler at once, and wait for them.

    Args:
        cells: What to run.
        data: The data; like `results` on a file system that the machines share.
        results: Where run directories lie; submitit's own files go to `cluster/` there.
        cluster: `slurm`; `local`, submitit's processes on this machine; or `ray`.
        options: Options of submitit's executor, such as `timeout_min`, `gpus_per_node` or `slurm_partition`; of Ray,
            `address` (without one a cluster is made of this machine) and what it is told of each cell, such as
            `num_cpus`, `num_gpus`, `memory` or `max_retries`.
        console: Where it is shown what was handed over.
        work: What is done with the words that name a cell; importable where it is done.

    Raises:
        RuntimeError: The scheduler's package is not installed, or a cell failed; the first that did is named when all
            have ended. Cells that were cut off go on in the next call.
    """
    names = [f"{cell.row.name}, seed {cell.seed}" for cell in cells]
    words = [[str(data.resolve()), str(results.resolve()), *cell.words] for cell in cells]
    if cluster == "ray":
        ended = _by_ray(words, work, options)
    else:
        ended = _by_submitit(words, work, cluster, results / "cluster", options)
    failures = []
    for name, (job, failure) in zip(names, ended, strict=True):
        console.print(f"{name}: {job} {'failed' if failure else 'done'}")
        failures += [f"{name}: {job} failed: {failure}"] if failure else []
    if failures:
        raise RuntimeError(failures[0])


Ended = Iterator[tuple[str, BaseException | None]]
"""By cell, in their order, when each has ended: what the scheduler calls it, and why it failed."""


def _by_submitit(
    words: Sequence[Sequence[str]], work: Work, cluster: str, folder: Path, options: Mapping[str, Any]
) -> Ended:
    try:
        import submitit
    except ImportError as error:
        raise RuntimeError(f"--cluster {cluster} needs submitit: pip install 'sharp-maml[cluster]'") from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **{f"{cluster}_max_num_timeout": RETRIES})
    executor.update_parameters(name="sharp-maml", **options)
    with executor.batch():
        jobs = [executor.submit(Requeued(work), each) for each in words]
    for job in jobs:
        yield f"job {job.job_id}, log {job.paths.stderr},", job.exception()


class Requeued:
    """Work that submitit hands to the scheduler again when it is preempted, or near its time limit.

    The trainer finishes its step and saves before; what is not training is begun again.

    Args:
        work: What is done with the words that name a cell.
    """

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, words: Sequence[str]) -> None:
        """Do the work; a handler of submitit's signal is there, and hands it over again."""
        import submitit

        warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        outside, hand_over = signal.getsignal(signal.SIGTERM), signal.getsignal(warning)
        is_warned = False

        def stop(signum: int, frame: FrameType | None) -> None:
            nonlocal is_warned
            is_warned = True
            if signal.getsignal(signal.SIGTERM) is outside:
                raise Interrupted(128 + signum)
            signal.raise_signal(signal.SIGTERM)  # the trainer's

        signal.signal(warning, stop)
        try:
            self.work(words)
        except Interrupted:
            if is_warned and callable(hand_over):
                hand_over(warning, None)
            raise

    def checkpoint(self, words: Sequence[str]) -> Any:
        """What is handed over again; the state lies in the run directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, words)


def _by_ray(words: Sequence[Sequence[str]], work: Work, options: Mapping[str, Any]) -> Ended:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("--cluster ray needs Ray: pip install 'sharp-maml[ray]'") from error
    own = {name: value for name, value in options.items() if name != "address"}
    # A worker whose node was lost can hold the lock of its directory a little longer than it takes to start the next.
    task = ray.remote(**{"num_cpus": 1, "max_retries": RETRIES, "retry_exceptions": [InUseError], **own})(_do)
    ray.init(address=options.get("address", "local"), include_dashboard=False, log_to_driver=False)
    try:
        for reference in [task.remote(work, each) for each in words]:
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                yield f"task {reference.task_id().hex()}", error
            else:
                yield f"task {reference.task_id().hex()}", None
    finally:
        ray.shutdown()


def _do(work: Work, words: Sequence[str]) -> None:
    """The work as a function of a module, which is what Ray takes."""
    work(words)


def scheduler_option(text: str) -> tuple[str, object]:
    """Name and value of a `name=value` text; what is not a TOML value is text."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise TableError(f"--cluster-options must be KEY=VALUE, got {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value
