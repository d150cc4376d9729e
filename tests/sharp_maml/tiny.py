"""A tiny data set that a tiny network learns in seconds: each class is a colour with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sharp_maml import Config, Dataset, write_cache

SETTINGS = {
    "image_size": 16,
    "filters": 4,
    "ways": 3,
    "queries": 4,
    "steps": 1,
    "test_steps": 2,
    "beta_low": 0.2,
    "beta_up": 0.01,
    "meta_batch": 2,
    "iterations": 8,
    "validate_every": 4,
    "validation_episodes": 5,
    "checkpoint_every": 3,
    "threads": 1,
}


def tiny_config(**settings: object) -> Config:
    return Config.from_mapping({**SETTINGS, **settings})


def tiny_dataset(directory: Path, *, size: int = 16, channels: int = 3, seed: int = 0, classes: int = 5) -> Dataset:
    rng = np.random.default_rng(seed)

    def images() -> np.ndarray:
        colour = rng.integers(0, 200, channels)
        return (colour + rng.integers(0, 56, (12, size, size, channels))).astype(np.uint8)

    return write_cache(
        directory,
        name="tiny",
        splits={
            split: {f"{split}{index}": images() for index in range(classes)}
            for split in ("train", "validation", "test")
        },
    )
