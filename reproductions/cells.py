"""Training the cells that are missing: one process a cell, as many at a time as asked, each resumable.

A cell's directory below `results/` holds the run (see `sharp_maml.train`), its `log.txt` and, once evaluated,
`record.json`. `python -m reproductions.cells DATA RESULTS TABLE ROW TIER SEED DEVICE` runs one cell. `run_here` runs
them in processes that are forked from one that has imported torch and computed nothing, and watches them;
`run_on_cluster` hands them to a scheduler.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from reproductions.specification import MODE, Cell
from sharp_maml import BatchNorm, Dataset, Record, load_checkpoint, open_dataset, read_records, write_record
from sharp_maml.evaluate import evaluate, time_prediction
from sharp_maml.train import duration, time_iteration, train

POLL_SECONDS = 0.5
EPISODES = "episodes.txt"
"""In a cell's directory: a phase, its episodes done, and how many there are. It counts while newer than the metrics."""

PRELOADED = [__name__, "torch._dynamo", "torch.utils.tensorboard"]
"""What is imported before cells are forked: all of this module, and what the trainer's optimizer and report import."""


def run(cell: Cell, dataset: Dataset, results: Path) -> None:
    """Train a cell (or go on), judge its best checkpoint on the test episodes in both modes, write its record."""
    directory = cell.directory(results)
    tell = _teller(directory, "validation", cell.config.validation_episodes)
    state = train(cell.config, dataset, directory, on_validation_episode=tell)
    logging.info("evaluating %d %s episodes in two batch norm modes", cell.tier.episodes, cell.table.split)
    checkpoint = load_checkpoint(directory / "best.safetensors", config_digest=cell.config.digest)
    tell = _teller(directory, "evaluation", cell.evaluations)

    def judge(**way: Any) -> Record:
        return evaluate(
            checkpoint, dataset, name=cell.row.name, episodes=cell.tier.episodes, on_episode=tell,
            **{"split": cell.table.split, **way},
        )  # fmt: skip

    record = judge()
    metrics = {**record.metrics}
    for way in cell.judged:
        name = " ".join(f"{key} {value}" for key, value in way.items())
        logging.info("evaluating with %s", name)
        metrics[f"accuracy_{MODE}, {name}"] = judge(**way, modes=[MODE]).metrics[f"accuracy_{MODE}"]
    # The checkpoint knows the run up to its own step; the record tells all of it.
    whole = replace(
        record,
        metrics=metrics,
        seconds=state.seconds,
        peak_memory_bytes=state.peak_memory_bytes,
        learning_curve=[{**point} for point in state.curve],
    )
    write_record(directory / "record.json", whole)


@dataclass(frozen=True)
class Cost:
    """Seconds of one meta-iteration, of one episode of a validation, and of one of the evaluation in both modes."""

    iteration: float
    validation: float
    evaluation: float

    def left(self, cell: Cell, seen: Seen) -> tuple[float, float, float]:
        """Seconds of training, of validations and of the evaluation that a cell has before it."""
        config = cell.config
        due = seen.step % config.validate_every == 0 or seen.step == config.iterations
        validated = math.ceil(seen.step / config.validate_every) if due else seen.step // config.validate_every
        validations = math.ceil(config.iterations / config.validate_every) - validated
        if due and seen.step and not seen.validated:
            validations += 1
        of_validation, of_evaluation = (
            seen.episodes if seen.phase == phase else 0 for phase in ("validation", "evaluation")
        )
        return (
            (config.iterations - seen.step) * self.iteration,
            (validations * config.validation_episodes - of_validation) * self.validation,
            (cell.evaluations - of_evaluation) * self.evaluation,
        )


class Seen(NamedTuple):
    """How far a cell is, as its files tell: steps done, a word about them, whether the last one due was validated.

    phase, episodes: `validation` or `evaluation`, and the episodes of it that are done; empty while it trains.
    """

    step: int = 0
    status: str = "starting"
    validated: bool = False
    phase: str = ""
    episodes: int = 0


def measure_costs(cells: Sequence[Cell], data: Path) -> dict[str, Cost]:
    """What things cost on this machine, by row: one iteration and one episode of each kind are timed."""
    costs = {}
    for name, config in {cell.row.name: cell.config for cell in cells}.items():
        dataset = open_dataset(data, size=config.image_size)
        episodes = (time_prediction(config, dataset, modes) for modes in ([config.batch_norm], get_args(BatchNorm)))
        costs[name] = Cost(time_iteration(config, dataset), *episodes)
    return costs


def estimate(cells: Sequence[Cell], results: Path, costs: Mapping[str, Cost], jobs: int) -> str:
    """What missing cells will take, less what those that were cut off have done."""
    each = [costs[cell.row.name].left(cell, look(cell.directory(results))) for cell in cells]
    parts = [sum(part) / min(jobs, len(cells)) for part in zip(*each, strict=True)]
    training, validation, evaluation = map(duration, parts)
    return (
        f"{len(cells)} cells to train, {jobs} at a time: about {duration(sum(parts))} "
        f"(training {training}, validation {validation}, evaluation {evaluation})"
    )


def missing(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """The cells without a record.

    Raises:
        ValueError: A cell has a record of other settings than those of today: `table1.toml` was changed in between.
    """
    without = []
    for cell in cells:
        path = cell.directory(results) / "record.json"
        if not path.exists():
            without.append(cell)
        elif read_records(path)[0].config_digest != cell.config.digest:
            raise ValueError(
                f"{path.parent} was made with other settings than {cell.row.name} has now on tier {cell.tier.name}: "
                "delete the directory to run it again, or choose another --results"
            )
    return without


def run_here(
    cells: Sequence[Cell], data: Path, results: Path, *, costs: Mapping[str, Cost], jobs: int, console: Console
) -> None:
    """Run cells in processes of their own and show how far they are.

    Args:
        cells: What to run, in this order.
        data: The data, as `open_dataset` takes it.
        results: Where run directories lie.
        costs: By row; they weigh what is done and what is left.
        jobs: Processes at a time. Cells of the device `cuda` are spread over the machine's GPUs.
        console: Where progress is shown; on something that is no terminal, a line a finished cell.

    Raises:
        RuntimeError: A cell failed; the message has the end of its log. The others are stopped and can go on later.
        KeyboardInterrupt: The user stopped; all cells have saved their state.
    """
    waiting: list[Cell] = list(cells)
    running: list[tuple[Cell, BaseProcess, TaskID]] = []
    gpus = torch.cuda.device_count()  # counted without a context of CUDA, which would not survive the fork
    left = {cell.directory(results): _left(cell, costs, look(cell.directory(results))) for cell in cells}
    total, began = sum(left.values()), time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[status]}"), console=console, disable=not console.is_terminal,
    )  # fmt: skip
    whole = bar.add_task("all cells", total=total, count=f"0/{len(cells)}", status="")

    def show() -> str:
        """Update the bar of all cells; a word about the time left, at the speed so far.

        The speed at the start is as if a tenth of the whole had been done before, at the cost that was measured.
        """
        remaining, done = sum(left.values()), len(cells) - len(waiting) - len(running)
        head, seconds = total / 10, time.monotonic() - began
        each = (seconds + head / min(jobs, len(cells))) / (total - remaining + head)
        words = f"about {duration(remaining * each)} left"
        bar.update(whole, completed=total - remaining, count=f"{done}/{len(cells)}", status=words)
        return words

    with bar:
        show()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    name = f"{cell.row.name}, seed {cell.seed}"
                    task = bar.add_task(name, total=left[cell.directory(results)], count="", status="starting")
                    taken = [other.device for other, *_ in running]
                    cell = replace(cell, device=_least_used(cell.device, gpus, taken))
                    with _signals_later():
                        running.append((cell, _start(cell, data, results), task))
                wait([process.sentinel for _, process, _ in running], POLL_SECONDS)
                for entry in list(running):
                    cell, process, task = entry
                    code, directory = process.exitcode, cell.directory(results)
                    seen = Seen(cell.config.iterations, "done") if code == 0 else look(directory)
                    left[directory] = 0.0 if code == 0 else _left(cell, costs, seen)
                    completed = (bar.tasks[task].total or 0) - left[directory]
                    steps = f"{seen.step}/{cell.config.iterations}"
                    bar.update(task, completed=completed, count=steps, status=seen.status)
                    if code is None:
                        continue
                    running.remove(entry)
                    if code:
                        raise RuntimeError(_failure(cell, code, results))
                    words, others = show(), len(waiting) + len(running)
                    if not console.is_terminal:
                        words = f", {words}" if others else ""
                        console.print(f"{cell.row.name}, seed {cell.seed}: done, {others} cells left{words}")
                show()
        finally:
            for _, process, _ in running:
                process.terminate()  # the trainer finishes its step and saves
            for _, process, _ in running:
                process.join()


def _least_used(device: str, gpus: int, taken: Sequence[str]) -> str:
    """The GPU with the fewest of the running cells, where `cuda` names several; the device itself otherwise."""
    if device != "cuda" or gpus < 2:
        return device
    return min((f"cuda:{index}" for index in range(gpus)), key=taken.count)


def _left(cell: Cell, costs: Mapping[str, Cost], seen: Seen) -> float:
    return sum(costs[cell.row.name].left(cell, seen))


def run_on_cluster(
    cells: Sequence[Cell], data: Path, results: Path, *, cluster: str, options: Mapping[str, object], console: Console
) -> None:
    """Hand the cells to a scheduler through submitit, one job a cell, and wait for them.

    Args:
        cells: What to run.
        data: The data; like `results` on a file system that the jobs share.
        results: Where run directories lie; the jobs' own logs go to `cluster/` there.
        cluster: `slurm`, or `local` for processes on this machine.
        options: Parameters of submitit's executor, such as `timeout_min`, `gpus_per_node` or `slurm_partition`.
        console: Where job numbers are shown.

    Raises:
        RuntimeError: submitit is not installed, or a job failed. Cells that were cut off go on in the next call.
    """
    try:
        import submitit
    except ImportError as error:
        raise RuntimeError("--cluster needs submitit: pip install 'sharp-maml[cluster]'") from error
    executor = submitit.AutoExecutor(folder=results / "cluster", cluster=cluster)
    executor.update_parameters(name="sharp-maml", **options)
    words = [[str(data.resolve()), str(results.resolve()), *cell.words] for cell in cells]
    jobs = [executor.submit(main, each) for each in words]
    for cell, job in zip(cells, jobs, strict=True):
        console.print(f"{cell.row.name}, seed {cell.seed}: job {job.job_id}, log {job.paths.stderr}")
    for cell, job in zip(cells, jobs, strict=True):
        if (failure := job.exception()) is not None:
            raise RuntimeError(f"{cell.row.name}, seed {cell.seed}: job {job.job_id} failed: {failure}")


def _start(cell: Cell, data: Path, results: Path) -> BaseProcess:
    """Start a cell's process, on Linux from a server that has imported this module and started no threads of torch."""
    linux = sys.platform == "linux"
    context = multiprocessing.get_context("forkserver") if linux else multiprocessing.get_context("spawn")
    context.set_forkserver_preload(PRELOADED)
    log = cell.directory(results) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_logged, args=(log, main, [str(data), str(results), *cell.words]))
    process.start()
    return process


@contextmanager
def _signals_later() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is over, and start processes with both of them blocked.

    They must not end the server, which comes with the first cell and tells how each ended, when they are sent to all
    processes of this command; and a cell that was started while they came must be known, to be stopped.
    """
    both, received = (signal.SIGINT, signal.SIGTERM), []
    resource_tracker.ensure_running()  # it unblocks them when it comes, with the first cell
    handlers = {each: signal.signal(each, lambda signum, frame: received.append(signum)) for each in both}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, both)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for signum in received:
            signal.raise_signal(signum)


def _logged(log: Path, work: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    """Work with standard output and error in a log, as a process of its own."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    work(arguments)


def look(directory: Path) -> Seen:
    """How far a cell is: from the end of its metrics, and from the episodes that it tells while these stand still."""
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            changed = os.fstat(file.fileno())
            file.seek(max(0, changed.st_size - 1000))
            lines = [json.loads(line) for line in file.read().decode().splitlines()[1:] if line.endswith("}")]
    except (OSError, ValueError):
        return Seen()
    trained = [line for line in lines if "loss" in line]
    if not trained:
        return Seen()
    last = trained[-1]
    seen = Seen(int(last["step"]), f"loss {last['loss']:.3f}, {last['seconds']:.3f} s/it", lines[-1] is not last)
    try:
        path = directory / EPISODES
        phase, done, of = path.read_text().split()
        if path.stat().st_mtime_ns < changed.st_mtime_ns:  # of a validation that is over
            return seen
        return seen._replace(phase=phase, episodes=int(done), status=f"{phase} episode {done} of {of}")
    except (OSError, ValueError):  # nothing told yet, or being written
        return seen


def _teller(directory: Path, phase: str, total: int) -> Callable[[int], None]:
    """What a cell calls before each of the episodes of a phase, to tell `look`; it writes twice a second at most."""
    calls, spoke = itertools.count(), -math.inf

    def tell(index: int) -> None:
        nonlocal spoke
        done, now = next(calls) % total, time.monotonic()
        if done == 0 or now - spoke > POLL_SECONDS:
            spoke = now
            (directory / EPISODES).write_text(f"{phase} {done} {total}")

    return tell


def _failure(cell: Cell, code: int, results: Path) -> str:
    log = cell.directory(results) / "log.txt"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
    return f"{cell.row.name}, seed {cell.seed} {how}; the end of {log}:\n{tail}"


def main(arguments: Sequence[str]) -> None:
    """Run one cell, in a process that `run_here` or a scheduler started."""
    data, results, *words = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cell = Cell.from_words(*words)
    run(cell, open_dataset(data, size=cell.config.image_size, ways=cell.config.ways), Path(results))


if __name__ == "__main__":
    main(sys.argv[1:])
