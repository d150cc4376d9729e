"""Training the cells that are missing: one process a cell, as many at a time as asked, each resumable.

`run_here` runs cells in processes that are forked from one that has imported torch and computed nothing, and watches
them. Read next: `cells.py`, which is what each process does; `clusters.py`, which hands cells to schedulers instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from reproductions.tables.cells import POLL_SECONDS, Seen, look, run_named
from reproductions.tables.check import TableError
from reproductions.tables.costs import Cost, estimate, measure_costs, seconds_left
from reproductions.tables.data import check_data, prepare_data
from reproductions.tables.specification import Cell
from sharp_maml import Record, RunDirectoryLock, end_with_parent, read_records
from sharp_maml.progress import duration

Run = Callable[[Sequence[Cell], Path, Path], None]
"""Runs cells on the data at a path, into a results folder, until all have a record."""

Work = Callable[[Sequence[str]], None]
"""What a process does with the words that name its cell."""

PRELOADED = [__name__, "torch._dynamo", "torch.utils.tensorboard"]
"""What is imported before cells are forked: all of this module, and what the trainer's optimizer and report import."""


def train_missing(
    cells: Sequence[Cell], data: Path | None, results: Path, *, run: Run, console: Console
) -> list[Record]:
    """Train the cells that have no record.

    Args:
        cells: Cells of one table on one tier.
        data: The tier's data, where it does not make its own.
        results: Where runs lie; nobody else may work on the tier's at the same time.
        run: What trains them.
        console: Where it is said that the data are not the tier's.

    Returns:
        The records of all cells.

    Raises:
        ValueError: The data or the records that are there do not belong to the cells.
        RuntimeError: A cell failed.
    """
    tier = cells[0].tier
    (results / tier.name).mkdir(parents=True, exist_ok=True)
    with RunDirectoryLock(results / tier.name):
        to_run = missing(cells, results)
        if data is not None and tier.data != "synthetic":
            check_data(cells, to_run, data, results, console)
        if to_run:
            run(to_run, prepare_data(tier, data, results), results)
    return read_records([cell.directory(results) / "record.json" for cell in cells])


def missing(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """The cells without a record.

    Raises:
        ValueError: A cell has a record of other settings than those of today: `tables.toml` was changed in between.
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


def train_here(
    cells: Sequence[Cell],
    data: Path,
    results: Path,
    *,
    jobs: int,
    gpus: int,
    console: Console,
    began: float,
    work: Work = run_named,
) -> None:
    """Say what cells will take on this machine, and run them on it as `run_here` does.

    Args:
        cells: What to run, in this order.
        data: The data, as `open_dataset` takes it.
        results: Where run directories lie.
        jobs: Processes at a time.
        gpus: How many the machine has.
        console: Where progress is shown.
        began: When the command began, by `time.perf_counter`, in seconds.
        work: What a process does.
    """
    costs = measure_costs(cells, data)
    ready = f"data ready after {duration(time.perf_counter() - began)}"
    console.print(f"{estimate(cells, results, costs, jobs)}; {ready}")
    run_here(cells, data, results, costs=costs, jobs=jobs, gpus=gpus, console=console, work=work)


def run_here(
    cells: Sequence[Cell],
    data: Path,
    results: Path,
    *,
    costs: Mapping[str, Cost],
    jobs: int,
    console: Console,
    gpus: int = 0,
    work: Work = run_named,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Run cells in processes of their own and show how far they are.

    Args:
        cells: What to run, in this order.
        data: The data, as `open_dataset` takes it.
        results: Where run directories lie.
        costs: By row; they weigh what is done and what is left.
        jobs: Processes at a time.
        console: Where progress is shown; on something that is no terminal, a line a finished cell.
        gpus: How many the machine has; cells of the device `cuda` are spread over them.
        work: What a process does with the words that name its cell; importable by that process.
        poll_seconds: How often it is looked how far the cells are.

    Raises:
        RuntimeError: A cell failed; the message has the end of its log. The others are stopped and can go on later.
        KeyboardInterrupt: The user stopped; all cells have saved their state.
    """
    waiting: list[Cell] = list(cells)
    running: list[tuple[Cell, BaseProcess]] = []
    board = _Board(cells, results, costs, jobs, console)
    with board.bars:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    cell = replace(cell, device=_least_used(cell.device, gpus, [other.device for other, _ in running]))
                    board.add(cell)
                    with _signals_later():
                        running.append((cell, _start(cell, data, results, work)))
                wait([process.sentinel for _, process in running], poll_seconds)
                for cell, process in list(running):
                    code = process.exitcode
                    board.update(cell, is_done=code == 0)
                    if code is None:
                        continue
                    running.remove((cell, process))
                    if code:
                        raise RuntimeError(_failure(cell, code, results))
                    board.finish(cell, others=len(waiting) + len(running))
                board.show(others=len(waiting) + len(running))
        finally:
            for _, process in running:
                process.terminate()  # the trainer finishes its step and saves
            for _, process in running:
                process.join()


class _Board:
    """The bars of all cells and of each that was started, and the time that is left."""

    def __init__(
        self, cells: Sequence[Cell], results: Path, costs: Mapping[str, Cost], jobs: int, console: Console
    ) -> None:
        self.results, self.costs, self.console = results, costs, console
        self.count, self.at_a_time = len(cells), min(jobs, len(cells))
        self.left = {self._place(cell): seconds_left(cell, costs, look(self._place(cell))) for cell in cells}
        self.total, self.began = sum(self.left.values()), time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[status]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.whole = self.bars.add_task("all cells", total=self.total, count="", status="")
        self.of_cell: dict[Path, TaskID] = {}
        self.show(others=len(cells))

    def _place(self, cell: Cell) -> Path:
        return cell.directory(self.results)

    def add(self, cell: Cell) -> None:
        """A bar for a cell that is about to start."""
        place = self._place(cell)
        name = f"{cell.row.name}, seed {cell.seed}"
        self.of_cell[place] = self.bars.add_task(name, total=self.left[place], count="", status="starting")

    def update(self, cell: Cell, *, is_done: bool) -> None:
        """Bring a cell's bar to where the cell is."""
        place, steps = self._place(cell), cell.config.iterations
        seen = Seen(steps, "done") if is_done else look(place)
        self.left[place] = 0.0 if is_done else seconds_left(cell, self.costs, seen)
        task = self.of_cell[place]
        completed = (self.bars.tasks[task].total or 0) - self.left[place]
        self.bars.update(task, completed=completed, count=f"{seen.step}/{steps}", status=seen.status)

    def show(self, *, others: int) -> str:
        """Bring the bar of all cells to where they are, `others` of which are not done; a word about the time left.

        The time is at the speed so far. The speed at the start is as if a tenth of the whole had been done before, at
        the cost that was measured.
        """
        remaining = sum(self.left.values())
        head, seconds = self.total / 10, time.monotonic() - self.began
        each = (seconds + head / self.at_a_time) / (self.total - remaining + head)
        words = f"about {duration(remaining * each)} left"
        count = f"{self.count - others}/{self.count}"
        self.bars.update(self.whole, completed=self.total - remaining, count=count, status=words)
        return words

    def finish(self, cell: Cell, *, others: int) -> None:
        """Where there is no terminal, say in a line that a cell is done."""
        words = self.show(others=others)
        if not self.console.is_terminal:
            words = f", {words}" if others else ""
            self.console.print(f"{cell.row.name}, seed {cell.seed}: done, {others} cells left{words}")


def _least_used(device: str, gpus: int, taken: Sequence[str]) -> str:
    """The GPU with the fewest of the running cells, where `cuda` names several; the device itself otherwise."""
    if device != "cuda" or gpus < 2:
        return device
    return min((f"cuda:{index}" for index in range(gpus)), key=taken.count)


def require_device(device: str, gpus: int) -> None:
    """Refuse a GPU that a machine with so many does not have.

    Raises:
        TableError: It is not there.
    """
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number if number.isdecimal() else 0) >= gpus:
        raise TableError(f"--device {device}: there is no such device here ({gpus} CUDA devices); choose cpu")


def _start(cell: Cell, data: Path, results: Path, work: Work) -> BaseProcess:
    """Start a cell's process, on Linux from a server that has imported this module and started no threads of torch."""
    linux = sys.platform == "linux"
    context = multiprocessing.get_context("forkserver") if linux else multiprocessing.get_context("spawn")
    context.set_forkserver_preload(PRELOADED)
    log = cell.directory(results) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_logged, args=(log, work, [str(data), str(results), *cell.words]))
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


def _logged(log: Path, work: Work, arguments: Sequence[str]) -> None:
    """Work with standard output and error in a log, as a process of its own."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    end_with_parent()
    work(arguments)


def _failure(cell: Cell, code: int, results: Path) -> str:
    log = cell.directory(results) / "log.txt"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
    return f"{cell.row.name}, seed {cell.seed} {how}; the end of {log}:\n{tail}"
