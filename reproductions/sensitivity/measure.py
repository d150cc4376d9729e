"""A network judged again with one choice of the protocol changed, and how far that moves its accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from reproductions.tables.specification import MODE, Cell
from sharp_maml import (
    Dataset,
    Estimate,
    interval_over_seeds,
    joint_sources,
    load_checkpoint,
    open_dataset,
    sources,
    write_atomically,
)
from sharp_maml.evaluate import evaluate

REFERENCE = "as in the table"
CHECKPOINTS = ("best", "last")
"""The checkpoints of a network that are judged."""
Judged = tuple[dict[str, float], dict[str, str] | None]
"""Accuracies by choice, and the digests of the code that judged, None if nobody wrote them down."""

CHOICES: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "1 test step": {"test_steps": 1},
    "10 test steps": {"test_steps": 10},
    "5 queries a class": {"queries": 5},
    "support-set batch norm": {"modes": ["support"]},
    "the last checkpoint": {"checkpoint": "last"},
    "400 episodes": {"episodes": 400},
    "10,000 episodes": {"episodes": 10_000},
}
"""What is changed, as keywords of `evaluate`; all else is as in the table of the tier."""


def measure(cell: Cell, dataset: Dataset, results: Path, choice: Mapping[str, Any]) -> float:
    """Accuracy of a cell's network with one choice changed, in per cent."""
    settings = {"checkpoint": "best", "episodes": cell.tier.episodes, "modes": [MODE], **choice}
    checkpoint = load_checkpoint(cell.directory(results) / f"{settings.pop('checkpoint')}.safetensors")
    record = evaluate(checkpoint, dataset, name=cell.row.name, split="test", **settings)
    (accuracies,) = record.accuracies.values()
    return 100 * float(np.mean(accuracies))


def shifts(accuracies: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
    """For each choice how far it moves the accuracy, over training seeds, in percentage points.

    Args:
        accuracies: By seed, then by choice, in per cent.

    Returns:
        The estimates by choice, without the reference.
    """
    return {
        name: interval_over_seeds(
            [of_seed[name] - of_seed[REFERENCE] for of_seed in accuracies.values()], unit="points"
        )
        for name in CHOICES
        if name != REFERENCE
    }


def judge(cell: Cell, data: Path, results: Path, console: Console) -> Judged:
    """Accuracy of a cell's network by choice, and the code that judged; what was judged before is read."""
    directory = cell.directory(results)
    for name in CHECKPOINTS:
        if not (directory / f"{name}.safetensors").exists():
            raise FileNotFoundError(
                f"{directory / name}.safetensors is missing; train it with: make reproduce-table1 TIER={cell.tier.name}"
            )
    path = directory / "sensitivity.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    is_same = before.get("config_digest") == cell.config.digest
    found = before["accuracies"] if is_same else {}
    code = sources("reproductions.sensitivity.measure")
    held = joint_sources([before.get("sources"), code]) if found else code
    dataset = open_dataset(data, size=cell.config.image_size)
    for name, choice in CHOICES.items():
        if name not in found:
            found[name] = measure(cell, dataset, results, choice)
            console.print(f"{cell.row.name}, seed {cell.seed}, {name}: {found[name]:.2f} %", highlight=False)
            content = {"config_digest": cell.config.digest, "sources": held, "accuracies": found}
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return {name: found[name] for name in CHOICES}, held
