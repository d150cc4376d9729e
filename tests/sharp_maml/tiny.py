"""A tiny data set that a tiny network learns in seconds, each class a colour with noise; and whether runs are equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sharp_maml import Config, Dataset, load_checkpoint, write_cache
from sharp_maml.train import train

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


def tiny_run(place: Path) -> tuple[Dataset, Path, Path]:
    """A data set, the best checkpoint of a run on it, and where the data lie."""
    dataset = tiny_dataset(place / "tiny")
    train(tiny_config(alpha_low=0.05, seed=7), dataset, place / "run")
    return dataset, place / "run/best.safetensors", place / "tiny"


def assert_same_run(one: Path, other: Path) -> None:
    """Bitwise: weights, optimizer, random state, validation curve and metrics, all but the seconds."""
    a, b = (load_checkpoint(directory / "last.safetensors") for directory in (one, other))
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert a.metadata["progress"]["curve"] == b.metadata["progress"]["curve"]
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]
        for path in (one / "metrics.jsonl", other / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]
