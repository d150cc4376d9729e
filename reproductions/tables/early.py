"""Networks early in their training: `python -m reproductions.tables.early CHECKPOINT ... --data DIR`.

Each is trained again from its checkpoint's configuration as far as a fifth of the iterations, where a validation is due
that ends the training with an error, so that the trainer saves what it has reached: on one CPU what the first training
was at that step, bit for bit. It lies beside the checkpoint as `early.safetensors`, and is made once. Read next:
`theory/networks/regime.py`, which measures it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sharp_maml import (
    CheckpointError,
    Config,
    DataError,
    load_checkpoint,
    open_dataset,
    save_checkpoint,
)
from sharp_maml.train import train

SHARE = 5
"""The iterations of a training over those of its beginning."""


class _ReachedError(Exception):
    """The training has come as far as it should."""


def train_early(path: Path, data: Path) -> Path:
    """Train the network of a checkpoint again, as far as a fifth of the iterations, and at least one.

    Args:
        path: A checkpoint of the trainer.
        data: The data that it was trained on.

    Returns:
        Where the early network lies, beside the checkpoint.

    Raises:
        CheckpointError: One of the two is damaged, or no checkpoint of the trainer.
        DataError, ValueError: The data are not those of the checkpoint.
    """
    metadata = load_checkpoint(path).metadata
    if not {"config", "data"} <= metadata.keys():
        raise CheckpointError(f"{path} is not a checkpoint of the trainer: name one, such as best.safetensors")
    config = Config.from_mapping(metadata["config"])
    early = path.with_name("early.safetensors")
    if early.exists() and load_checkpoint(early).metadata["config_digest"] == config.digest:
        return early
    dataset = open_dataset(data, size=config.image_size)
    if dataset.digest != metadata["data"]["digest"]:
        raise ValueError(f"{path} was trained on other data than {data}: name those that it was trained on")
    step = max(1, config.iterations // SHARE)
    with TemporaryDirectory() as place:
        with suppress(_ReachedError):
            train(replace(config, validate_every=step), dataset, Path(place), on_validation_episode=_stop)
        tensors, reached = load_checkpoint(Path(place) / "last.safetensors")
    # when it is validated decides nothing of a state, which is one of the training with the settings of the checkpoint
    of_training = {name: metadata[name] for name in ("config", "config_digest")}
    save_checkpoint(early, tensors=tensors, metadata=reached | of_training)
    return early


def _stop(index: int) -> None:
    raise _ReachedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.tables.early", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path, help="such as results/demo/maml/seed0/best.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="what they were trained on")
    options = parser.parse_args(arguments)
    try:
        for path in options.checkpoints:
            print(train_early(path, options.data), flush=True)
    except (CheckpointError, DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
