"""Accuracy of a checkpoint over fixed test episodes, as a record: what `sharp-maml evaluate` shows.

Episode i depends on the data, the split, the protocol, one constant seed and i alone: all methods, all processes and
all checkpoints are judged on the same episodes, and differences between them are paired. Read next: `estimates.py`
(what is made of the accuracies), `records.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharp_maml.base import Batch, BatchNorm, Episode, Method, NonFiniteError, Params
from sharp_maml.checkpoint import Checkpoint, CheckpointError, trained_params
from sharp_maml.config import Config
from sharp_maml.data import Dataset, Protocol, episode, episode_digest
from sharp_maml.estimates import interval_over_episodes
from sharp_maml.methods import build
from sharp_maml.records import Record, joined, provenance

EVALUATION_SEED = 220603996
"""Names the sequence of validation and test episodes; one for everybody, and never a training seed."""

_ENTRIES = {
    "config": ("image_size",),
    "data": ("digest", "channels"),
    "progress": ("step", "best_step", "started", "seconds", "peak_memory_bytes", "curve"),
    "provenance": ("commit", "dirty"),
}
"""What the trainer writes into a checkpoint's metadata and a record needs."""

PRESETS = {"quick": 600, "standard": 1000, "full": 10000}
"""Numbers of episodes by name."""


def correct_counts(
    method: Method,
    params: Params,
    dataset: Dataset,
    split: str,
    config: Config,
    *,
    episodes: int,
    modes: Sequence[BatchNorm],
    on_episode: Callable[[int], object] = lambda index: None,
) -> dict[BatchNorm, NDArray[np.int64]]:
    """Number of query images classified right, for each of the first `episodes` episodes of a split.

    The parameters are adapted to an episode once, and predict in every mode.

    Args:
        method: Its prediction is the class with the largest logit.
        params: Meta-parameters.
        dataset: The images.
        split: `validation` or `test`; `train` shows how well the training classes are known.
        config: Gives ways, shots, queries, dtype and device.
        episodes: How many, >= 1.
        modes: Batch norm modes to predict in.
        on_episode: Called with each index before the episode, for a progress bar.

    Returns:
        For each mode `episodes` counts between 0 and ways * queries.

    Raises:
        ValueError: There are no episodes, or the split is too small for them.
        NonFiniteError: A logit is not finite; the largest of such has no meaning.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be >= 1, got {episodes}")
    protocol = Protocol(config.ways, config.shots, config.queries)
    counts = {mode: np.zeros(episodes, dtype=np.int64) for mode in modes}
    for index in range(episodes):
        on_episode(index)
        drawn = episode(dataset, split, protocol, seed=EVALUATION_SEED, index=index, dtype=getattr(torch, config.dtype))
        drawn = to_device(drawn, config.device)
        adapted = method.adapt(params, drawn.support)
        for mode in modes:
            logits = method.logits(adapted, drawn, mode)
            right = (logits.argmax(-1) == drawn.query.targets).sum()
            count, zero = torch.stack([right, (0 * logits).sum()]).tolist()  # one wait for the device
            if zero != 0:  # NaN
                raise NonFiniteError(
                    f"the logits of {split} episode {index} ({mode} batch norm) are not finite: use a smaller beta_low "
                    "or fewer test_steps, and look for NaN in the parameters and in the data"
                )
            counts[mode][index] = int(count)
    return counts


def time_prediction(config: Config, dataset: Dataset, modes: Sequence[BatchNorm]) -> float:
    """Seconds of one episode of an evaluation, after a warm-up.

    Args:
        config: The configuration; sets torch's threads, as `train` does.
        dataset: The images.
        modes: The batch norm modes.

    Returns:
        The seconds, on the machine as busy as it is.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    experiment = build(replace(config, compile=False), channels=dataset.channels)
    params = experiment.init(config.seed)
    for _ in range(2):
        began = time.perf_counter()
        correct_counts(experiment.method, params, dataset, "validation", config, episodes=1, modes=modes)
    return time.perf_counter() - began


def to_device(drawn: Episode, device: str) -> Episode:
    """The episode on a device; itself on `cpu`."""
    if device == "cpu":
        return drawn
    return Episode(*(Batch(*(tensor.to(device, non_blocking=True) for tensor in batch)) for batch in drawn))


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    name: str,
    split: str = "test",
    episodes: int = 600,
    modes: Sequence[BatchNorm] = ("transductive", "support"),
    test_steps: int | None = None,
    queries: int | None = None,
    device: str = "",
    on_episode: Callable[[int], object] = lambda index: None,
) -> Record:
    """Judge a checkpoint in one or both batch norm modes.

    Args:
        checkpoint: A checkpoint as the trainer wrote it.
        dataset: The images; its size and channels must be those of the training.
        name: The record's name, a row of a table.
        split: `test`, `validation` or `train`.
        episodes: Number of episodes.
        modes: Batch norm modes to predict in, see `BatchNorm`.
        test_steps: Inner steps; None means the setting of the training run, and so does it for `queries`.
        queries: Query examples of a class.
        device: Where to compute; empty means where it was trained.
        on_episode: Called with each index before the episode.

    Returns:
        The record; its accuracies by mode are those of the modes asked for.

    Raises:
        CheckpointError: The checkpoint is not one of the trainer.
        ValueError: The images are not of the size or channels that the network was trained on, or too few.
        NonFiniteError: See `correct_counts`.
    """
    trained, trained_on, progress = (entry(checkpoint, key) for key in ("config", "data", "progress"))
    config = Config.from_mapping(trained)
    _check(config, trained_on["channels"], dataset, test_steps)
    here = replace(
        config,
        device=device or config.device,
        test_steps=config.test_steps if test_steps is None else test_steps,
        queries=config.queries if queries is None else queries,
    )
    experiment = build(here, channels=dataset.channels)
    params = trained_params(checkpoint, experiment.init(config.seed))
    counts = correct_counts(
        experiment.method, params, dataset, split, here, episodes=episodes, modes=modes, on_episode=on_episode
    )
    accuracies = {mode: right / (here.ways * here.queries) for mode, right in counts.items()}
    protocol = Protocol(here.ways, here.shots, here.queries)
    return Record(
        name=name,
        config=config.to_dict(),
        config_digest=config.digest,
        provenance=joined(entry(checkpoint, "provenance"), provenance(here.device)),
        seed=config.seed,
        dtype=config.dtype,
        data_name=dataset.name,
        data_digest=dataset.digest,
        protocol={
            **protocol._asdict(),
            "test_steps": here.test_steps if config.method == "sharp-maml" else None,
            "perturb_at_test": config.perturb_at_test,
            "batch_norm": config.batch_norm,
            "trained_on": trained_on["digest"],
            "split": split,
            "episodes": episodes,
            "evaluation_seed": EVALUATION_SEED,
            "selection": "best validation accuracy" if progress["step"] == progress["best_step"] else "last step",
        },
        episodes_digest=episode_digest(dataset, split, protocol, EVALUATION_SEED, episodes),
        accuracies={mode: values.tolist() for mode, values in accuracies.items()},
        started=progress["started"],
        seconds=progress["seconds"],
        peak_memory_bytes=progress["peak_memory_bytes"],
        metrics={
            f"accuracy_{mode}": interval_over_episodes(values, unit="fraction") for mode, values in accuracies.items()
        },
        selected_step=progress["step"],
        learning_curve=progress["curve"],
    )


def _check(config: Config, channels: int, dataset: Dataset, test_steps: int | None) -> None:
    """Refuse inner steps of a method that does not adapt, and images that the network was not made for."""
    if config.method != "sharp-maml" and test_steps is not None:
        raise ValueError(f"test_steps has no meaning for method = {config.method!r}, which does not adapt")
    if (dataset.size, dataset.channels) != (config.image_size, channels):
        raise ValueError(
            f"the checkpoint was trained on {config.image_size} pixels and {channels} channels; {dataset.name} has "
            f"{dataset.size} pixels and {dataset.channels} channels: choose another size or data set"
        )


def entry(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    """An entry of the metadata that the trainer writes.

    Args:
        checkpoint: A checkpoint as the trainer wrote it.
        key: `config`, `data`, `progress` or `provenance`.

    Returns:
        The entry, which has all that a record needs.

    Raises:
        CheckpointError: The checkpoint is not one of the trainer.
    """
    value = checkpoint.metadata.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"expected a checkpoint of the trainer, found one without {key!r} in its metadata")
    if absent := [name for name in _ENTRIES[key] if name not in value]:
        raise CheckpointError(
            f"expected a checkpoint of the trainer, found one whose {key!r} lacks {', '.join(absent)}"
        )
    return value
