"""One cell in a process of its own: training that goes on where it was cut off, evaluation, and the record.

A cell's directory below `results/` holds the run (see `sharp_maml.train`), its `log.txt` and, once evaluated,
`record.json`; while it works it tells how far it is. Read next: `costs.py`, `train.py`, which run many.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reproductions.tables.specification import MODE, Cell
from sharp_maml import Dataset, Record, load_checkpoint, open_dataset, write_record
from sharp_maml.evaluate import evaluate
from sharp_maml.train import train

POLL_SECONDS = 0.5
"""How often a cell tells how far it is, and how often one who watches looks."""

EPISODES = "episodes.txt"
"""In a cell's directory: a phase, its episodes done, and how many there are. It counts while newer than the metrics."""


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


def run_named(arguments: Sequence[str]) -> None:
    """Run the cell that words name, in a process that `run_here` or a scheduler started.

    Args:
        arguments: The path of the data, that of the results, and the words of `Cell.words`.
    """
    data, results, *words = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cell = Cell.from_words(*words)
    run(cell, open_dataset(data, size=cell.config.image_size, ways=cell.config.ways), Path(results))


class Seen(NamedTuple):
    """How far a cell is, as its files tell: steps done, a word about them, whether the last one due was validated.

    phase, episodes: `validation` or `evaluation`, and the episodes of it that are done; empty while it trains.
    """

    step: int = 0
    status: str = "starting"
    validated: bool = False
    phase: str = ""
    episodes: int = 0


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
