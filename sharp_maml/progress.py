"""What a user sees of a run: its cost beforehand, a progress bar or log lines, `metrics.jsonl`, and TensorBoard's file.

Read next: `train.py`, which makes the steps that are told here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sharp_maml.checkpoint import write_atomically
from sharp_maml.config import Config
from sharp_maml.data import Dataset, Protocol, episode
from sharp_maml.evaluate import to_device
from sharp_maml.methods import Experiment, build

log = logging.getLogger(__name__)


class Report:
    """A progress bar or log lines, `metrics.jsonl`, and TensorBoard's file if it is installed, while a run is made.

    Args:
        config: The configuration.
        directory: The run directory, which exists.
        step: Meta-iterations done before.
        curve: The learning curve so far.
        speaks: Whether this process writes and speaks: of several, rank 0 does.
        bar: Whether to show the bar where standard error is a terminal.
    """

    def __init__(
        self, config: Config, directory: Path, step: int, curve: list[dict[str, Any]], *, speaks: bool, bar: bool
    ) -> None:
        self.config, self.directory, self.at, self.speaks = config, directory, step, speaks
        self.accuracy = curve[-1]["validation_accuracy"] if curve else math.nan
        self.spoke = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            disable=not (speaks and bar and sys.stderr.isatty()),
            transient=True,
        )
        self.task = self.bar.add_task(config.variant, total=config.iterations, completed=step, status="")

    def __enter__(self) -> Self:
        """Open the files."""
        if self.speaks:
            self.metrics = (self.directory / "metrics.jsonl").open("a", buffering=1)
            self.board = _tensorboard(self.directory)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files, and say how far the run has come."""
        self.bar.stop()
        if self.speaks:
            with suppress(OSError):  # it tries once more what could not be written, of which the error has told
                self.metrics.close()
            if self.board is not None:
                self.board.close()
            log.info("step %d of %d, %s", self.at, self.config.iterations, self.directory)

    def steps(self, last: int, results: Sequence[dict[str, float]], seconds: float) -> None:
        """Tell of meta-iterations until a last one: losses and gradient norms, and how long all of them took."""
        for step, result in enumerate(results, last - len(results) + 1):
            self._step(step, result, seconds / len(results))

    def _step(self, step: int, result: dict[str, float], seconds: float) -> None:
        self.at, last = step, self.config.iterations
        if not self.speaks:
            return
        status = f"loss {result['loss']:.3f}  validation {100 * self.accuracy:.1f}%  {seconds:.2f} s/it"
        self.bar.update(self.task, completed=step, status=status)
        self._write({"step": step, **result, "seconds": round(seconds, 6)})
        if self.bar.disable and time.monotonic() - self.spoke > 30:
            self.spoke = time.monotonic()
            left = duration((last - step) * seconds)
            log.info("step %d of %d: loss %.3f, %.3f s/it, %s left", step, last, result["loss"], seconds, left)

    def validation_episode(self, index: int) -> None:
        """Tell that a validation has come to an episode, from 0."""
        self.bar.update(self.task, status=f"validation episode {index + 1} of {self.config.validation_episodes}")

    def validation(self, point: dict[str, Any] | None) -> None:
        """Tell of a validation: its point of the learning curve; None where another process made it."""
        if point is None:
            return
        step, self.accuracy, low, high = (point[key] for key in ("step", "validation_accuracy", "low", "high"))
        self._write({"step": step, "validation_accuracy": self.accuracy})
        interval = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
        log.info("step %d: validation accuracy %.2f%%%s", step, 100 * self.accuracy, interval)

    def _write(self, line: dict[str, float]) -> None:
        with _naming(Path(self.metrics.name)):
            self.metrics.write(json.dumps(line) + "\n")
        if self.board is not None:
            self.board.add(line)


class _Board:
    """A file of scalars that TensorBoard shows.

    Torch's writer has a thread, which prints an error of the disk in a traceback, and names the machine in the file.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        directory.mkdir(exist_ok=True)
        self._path = directory / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
        self._writer = RecordWriter(self._path.open("wb", buffering=0))
        self._write(file_version="brain.Event:2")

    def add(self, line: dict[str, float]) -> None:
        """Write the numbers of a line of metrics."""
        values = [self._summary.Value(tag=key, simple_value=value) for key, value in line.items() if key != "step"]
        self._write(step=int(line["step"]), summary=self._summary(value=values))

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        with _naming(self._path):
            self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())


def _tensorboard(directory: Path) -> _Board | None:
    try:
        return _Board(directory / "tensorboard")
    except ImportError:  # the extra `tracking` is not installed
        return None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error of a disk names the file, which that of a write to an open one does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def cut_metrics(directory: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` after a step, and one that was cut off: a run goes on from there."""
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    write_atomically(metrics, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinite for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def tell_cost(config: Config, dataset: Dataset, *, left: int, build: Callable[..., Experiment] = build) -> None:
    """Say in a log line what the iterations that are left will cost.

    Args:
        config: The configuration.
        dataset: The images.
        left: Meta-iterations to go.
        build: See `train`.
    """
    each = time_iteration(config, dataset, build=build)
    log.info(
        "%s on %s: %d of %d iterations to go, about %s at %.3f s each (validation not counted), %.2f GiB of memory",
        config.variant,
        dataset.name,
        left,
        config.iterations,
        duration(left * each),
        each,
        peak_memory(config.device) / 2**30,
    )


def time_iteration(config: Config, dataset: Dataset, *, build: Callable[..., Experiment] = build) -> float:
    """Seconds of one meta-gradient, after a warm-up; nothing is updated.

    Args:
        config: The configuration; sets torch's threads, as `train` does.
        dataset: The images.
        build: See `train`.

    Returns:
        The seconds, on the machine as busy as it is.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    experiment = build(replace(config, compile=False), channels=dataset.channels)  # compiling takes longer than this
    params = experiment.init(config.seed)
    protocol, dtype = Protocol(config.ways, config.shots, config.queries), getattr(torch, config.dtype)
    drawn = [
        to_device(episode(dataset, "train", protocol, seed=config.seed, index=index, dtype=dtype), config.device)
        for index in range(config.meta_batch)
    ]
    experiment.method.gradient(params, drawn).loss.item()  # asked for, so that a GPU has finished
    began = time.perf_counter()
    experiment.method.gradient(params, drawn).loss.item()
    return time.perf_counter() - began


def peak_memory(device: str) -> int:
    """Largest resident set of this process so far, or largest memory held on the device, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
