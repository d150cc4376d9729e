"""What cells cost on this machine, and what they have before them. Read next: `train.py`, which runs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from reproductions.tables.cells import Seen, look
from reproductions.tables.specification import Cell
from sharp_maml import BatchNorm, open_dataset
from sharp_maml.evaluate import time_prediction
from sharp_maml.progress import duration, time_iteration


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


def measure_costs(cells: Sequence[Cell], data: Path) -> dict[str, Cost]:
    """What things cost on this machine, by row: one iteration and one episode of each kind are timed."""
    costs = {}
    for name, config in {cell.row.name: cell.config for cell in cells}.items():
        dataset = open_dataset(data, size=config.image_size)
        episodes = (time_prediction(config, dataset, modes) for modes in ([config.batch_norm], get_args(BatchNorm)))
        costs[name] = Cost(time_iteration(config, dataset), *episodes)
    return costs


def seconds_left(cell: Cell, costs: Mapping[str, Cost], seen: Seen) -> float:
    """Seconds that a cell has before it in all."""
    return sum(costs[cell.row.name].left(cell, seen))


def estimate(cells: Sequence[Cell], results: Path, costs: Mapping[str, Cost], jobs: int) -> str:
    """What missing cells will take, less what those that were cut off have done."""
    each = [costs[cell.row.name].left(cell, look(cell.directory(results))) for cell in cells]
    parts = [sum(part) / min(jobs, len(cells)) for part in zip(*each, strict=True)]
    training, validation, evaluation = map(duration, parts)
    return (
        f"{len(cells)} cells to train, {jobs} at a time: about {duration(sum(parts))} "
        f"(training {training}, validation {validation}, evaluation {evaluation})"
    )
