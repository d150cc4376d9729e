"""Training the cells that are missing: one process a cell, as many at a time as asked, each resumable.

A cell's directory below `results/` holds the run (see `sharp_maml.train`), its `log.txt` and, once evaluated,
`record.json`. `python -m reproductions.cells TIER ROW SEED DATA RESULTS` runs one cell; `run_missing` starts these
processes and watches them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from reproductions.specification import Cell, load
from sharp_maml import Dataset, load_checkpoint, open_dataset, write_record
from sharp_maml.evaluate import evaluate
from sharp_maml.train import train

POLL_SECONDS = 0.5


def run(cell: Cell, dataset: Dataset, results: Path) -> None:
    """Train a cell (or go on), judge its best checkpoint on the test episodes in both modes, write its record."""
    directory = cell.directory(results)
    train(cell.config, dataset, directory)
    logging.info("evaluating %d test episodes in two batch norm modes", cell.tier.episodes)
    checkpoint = load_checkpoint(directory / "best.safetensors", config_digest=cell.config.digest)
    write_record(
        directory / "record.json", evaluate(checkpoint, dataset, name=cell.row.name, episodes=cell.tier.episodes)
    )


def missing(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """The cells without a record."""
    return [cell for cell in cells if not (cell.directory(results) / "record.json").exists()]


def run_missing(cells: Sequence[Cell], data: Path, results: Path, *, jobs: int, console: Console) -> None:
    """Run cells in processes of their own and show how far they are.

    Args:
        cells: What to run, in this order.
        data: The data, as `open_dataset` takes it.
        results: Where run directories lie.
        jobs: Processes at a time.
        console: Where progress is shown; on something that is no terminal, a line a finished cell.

    Raises:
        RuntimeError: A cell failed; the message has the end of its log. The others are stopped and can go on later.
        KeyboardInterrupt: The user stopped; all cells have saved their state.
    """
    waiting, running = list(cells), dict[Cell, tuple[subprocess.Popen[bytes], TaskID]]()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[status]}"), console=console, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    task = bar.add_task(f"{cell.row.name}, seed {cell.seed}", total=cell.config.iterations, status="")
                    running[cell] = (_start(cell, data, results), task)
                time.sleep(POLL_SECONDS)
                for cell, (process, task) in list(running.items()):
                    step, status = _progress(cell.directory(results))
                    bar.update(task, completed=step, status=status)
                    if process.poll() is None:
                        continue
                    del running[cell]
                    if process.returncode:
                        raise RuntimeError(_failure(cell, process.returncode, results))
                    bar.update(task, completed=cell.config.iterations, status="done")
                    if not console.is_terminal:
                        console.print(
                            f"{cell.row.name}, seed {cell.seed}: done, {len(waiting) + len(running)} cells left"
                        )
        finally:
            for process, _ in running.values():
                process.send_signal(signal.SIGTERM)  # the trainer finishes its step and saves
            for process, _ in running.values():
                process.wait()


def _start(cell: Cell, data: Path, results: Path) -> subprocess.Popen[bytes]:
    directory = cell.directory(results)
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "reproductions.cells", cell.tier.name, cell.row.name, str(cell.seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(cell.config.threads)} if cell.config.threads else None
    with (directory / "log.txt").open("ab") as log:
        return subprocess.Popen([*command, str(data), str(results)], stdout=log, stderr=log, env=environment)


def _progress(directory: Path) -> tuple[int, str]:
    """Steps done and a word about them, from the end of the metrics file."""
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
            lines = [json.loads(line) for line in file.read().decode().splitlines()[1:] if line.endswith("}")]
    except (OSError, ValueError):
        return 0, "starting"
    trained = [line for line in lines if "loss" in line]
    if not trained:
        return 0, "starting"
    return int(trained[-1]["step"]), f"loss {trained[-1]['loss']:.3f}, {trained[-1]['seconds']:.3f} s/it"


def _failure(cell: Cell, code: int, results: Path) -> str:
    log = cell.directory(results) / "log.txt"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    return f"{cell.row.name}, seed {cell.seed} ended with exit code {code}; the end of {log}:\n{tail}"


def main(arguments: Sequence[str]) -> None:
    """Run one cell; called by `run_missing`."""
    tier, row, seed, data, results = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    tables, tiers = load()
    rows = {each.name: each for table in tables.values() for each in table.rows}
    cell = Cell(rows[row], tiers[tier], int(seed))
    run(cell, open_dataset(data, size=cell.config.image_size), Path(results))


if __name__ == "__main__":
    main(sys.argv[1:])
