"""A table of four rows on a tiny tier, and records of its cells with the accuracies that a test names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reproductions.tables.specification import Cell, Row, Table, Tier
from sharp_maml import Dataset, Record, interval_over_episodes, write_cache

ROWS = {
    row.name: row
    for row in (
        Row("matching", "Matching Nets", source=43.56, quoted=True, settings={"method": "matching"}),
        Row("maml", "MAML", source=47.13),
        Row("low", "Sharp-MAML low", source=48.87),
        Row("own", "no value of the source", settings={"perturb_at_test": True}, like="low"),
    )
}
TABLE = Table("table1", "A title", ROWS["maml"], tuple(ROWS.values()))
TIER = Tier(
    "smoke", "made-up images", ("table1",), "synthetic", seeds=2, episodes=4,
    settings={"image_size": 16, "filters": 4, "queries": 20, "steps": 1, "beta_low": 0.4, "iterations": 6, "threads": 1,
              "validate_every": 3, "validation_episodes": 3, "checkpoint_every": 3, "meta_batch": 2, "beta_up": 1e-12},
    rows={"low": {"alpha_low": 0.02}}, images_a_class=24,
)  # fmt: skip
REAL = replace(TIER, data="miniimagenet", label="miniImageNet at a budget")
"""A tier like it whose data must be given."""


def cell(row: str = "maml", seed: int = 0, **changes: Any) -> Cell:
    """A cell of the table."""
    return Cell(**{"table": TABLE, "row": ROWS[row], "tier": TIER, "seed": seed, **changes})


def record(
    row: str = "maml", seed: int = 0, percents: Sequence[int] = (40, 50, 45, 41), protocol: Any = None, **changes: Any
) -> Record:
    """A record of a cell: accuracy of each test episode in per cent (one point less in `support` mode)."""
    config = cell(row, seed).config
    accuracies = {
        "transductive": [value / 100 for value in percents],
        "support": [(value - 1) / 100 for value in percents],
    }
    values: dict[str, Any] = {
        "name": row,
        "config": config.to_dict(),
        "config_digest": config.digest,
        "provenance": {"commit": "c" * 40, "dirty": False, "device": "a processor", "threads": 1},
        "seed": seed,
        "dtype": config.dtype,
        "data_name": "made up",
        "data_digest": "d" * 64,
        "protocol": {
            "ways": 5, "shots": 1, "queries": 20, "batch_norm": "transductive",
            "test_steps": None if config.method == "matching" else config.test_steps,
            "perturb_at_test": config.perturb_at_test, "trained_on": "d" * 64, "split": "test",
            "episodes": len(percents), "evaluation_seed": 1, "selection": "best validation accuracy",
            **(protocol or {}),
        },
        "episodes_digest": "e" * 16,
        "accuracies": accuracies,
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1800.0,
        "peak_memory_bytes": 2**30,
        "metrics": {f"accuracy_{mode}": interval_over_episodes(each) for mode, each in accuracies.items()},
        "selected_step": 3,
        "learning_curve": [],
    }  # fmt: skip
    return Record(**{**values, **changes})


def with_mean(quarters: float) -> list[int]:
    """Four whole per cents, not all equal, whose mean is a given multiple of a quarter of a point."""
    total = round(4 * quarters)
    each = [total // 4 + (i < total % 4) for i in range(4)]
    return [each[0] + 3, each[1] - 3, *each[2:]]


def pairs(row: str, differences: Sequence[float], baseline: float = 45.0) -> list[Record]:
    """Records of the baseline and of a row, one seed a difference (multiples of a quarter of a point)."""
    made = []
    for seed, difference in enumerate(differences):
        made.append(record("maml", seed, with_mean(baseline)))
        made.append(record(row, seed, with_mean(baseline + difference)))
    return made


def dataset(directory: Path, seed: int = 0) -> Dataset:
    """Images that the tier and the specification's own `smoke` tier can be trained on."""
    rng = np.random.default_rng(seed)
    return write_cache(
        directory,
        name="made up",
        splits={
            split: {
                f"{split}{i}": (rng.integers(0, 200, 3) + rng.integers(0, 56, (24, 16, 16, 3))).astype(np.uint8)
                for i in range(5)
            }
            for split in ("train", "validation", "test")
        },
    )
