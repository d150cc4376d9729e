"""What a trained network says of somebody's own images: adapted to a few labelled ones, it tells the classes of others.

Read next: `data/loose.py` (where the images come from), `evaluate.py` (how good such answers are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sharp_maml.base import Batch, BatchNorm, Episode, Params
from sharp_maml.checkpoint import Checkpoint, save_checkpoint, trained_params
from sharp_maml.config import Config
from sharp_maml.data import Pixels, as_inputs
from sharp_maml.evaluate import entry, to_device
from sharp_maml.methods import build

_AT_A_TIME = 64
"""Query images in memory as activations, where their answers do not depend on one another."""


class Classified(NamedTuple):
    """What came of it.

    classes: names of the classes, in the order of the columns.
    probabilities: the network's softmax, `n x ways`, float64; on the CPU.
    params: the parameters adapted to the labelled images.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    params: Params


def pixels_of(checkpoint: Checkpoint) -> Pixels:
    """What the network of a checkpoint takes for an image.

    Raises:
        CheckpointError: The checkpoint is not one of the trainer.
    """
    config, data = entry(checkpoint, "config"), entry(checkpoint, "data")
    return Pixels(data.get("name", ""), config["image_size"], data["channels"])


def classify(
    checkpoint: Checkpoint,
    support: Mapping[str, NDArray[np.uint8]],
    queries: NDArray[np.uint8],
    *,
    batch_norm: BatchNorm = "support",
    test_steps: int | None = None,
    device: str = "",
) -> Classified:
    """Adapt the network of a checkpoint to labelled images, and tell the classes of others.

    The parameters are adapted as in an evaluation: theta_s = theta_{s-1} - beta_low grad L(theta_{s-1}), with L the
    mean cross-entropy over all labelled images, whose numbers may differ from class to class.

    Args:
        checkpoint: A checkpoint as the trainer wrote it.
        support: Labelled images by class, as many classes as the network has outputs; each
            `n x size x size x channels`, as `pixels_of` says.
        queries: Images to tell the classes of, in the same form.
        batch_norm: `support` normalises by the statistics of the labelled images, so that the answer for an image does
            not depend on the others; `transductive` by those of all queries together.
        test_steps: Inner steps; None means the setting of the training run.
        device: Where to compute; empty means where it was trained.

    Returns:
        Classes, probabilities and adapted parameters.

    Raises:
        CheckpointError: The checkpoint is not one of the trainer.
        ValueError: The number of classes is another one, images have another shape, or a setting has no meaning for
            the method.
    """
    config = Config.from_mapping(entry(checkpoint, "config"))
    if len(support) != config.ways:
        raise ValueError(
            f"the network tells {config.ways} classes apart, the labelled images have {len(support)} "
            f"({', '.join(support)}): give it {config.ways}, or train one with ways={len(support)}"
        )
    pixels = pixels_of(checkpoint)
    for name, images in [*support.items(), ("queries", queries)]:
        if images.shape[1:] != (pixels.size, pixels.size, pixels.channels) or not len(images):
            raise ValueError(
                f"{name}: expected one image or more of {pixels.size} x {pixels.size} pixels and {pixels.channels} "
                f"channels, got shape {images.shape}: read them as pixels_of(checkpoint) says"
            )
    if test_steps is not None:
        if config.method != "sharp-maml":
            raise ValueError(f"test_steps has no meaning for method = {config.method!r}, which does not adapt")
        config = replace(config, test_steps=test_steps)
    config = replace(config, device=device or config.device, compile=False)
    experiment = build(config, channels=pixels.channels)
    params = trained_params(checkpoint, experiment.init(config.seed))
    dtype = getattr(torch, config.dtype)
    targets = torch.arange(len(support)).repeat_interleave(torch.tensor([len(images) for images in support.values()]))
    labelled = Batch(as_inputs(np.concatenate(list(support.values())), dtype), targets)

    def drawn(images: NDArray[np.uint8]) -> Episode:
        unknown = torch.zeros(len(images), dtype=torch.int64)  # nobody looks at them
        return to_device(Episode(labelled, Batch(as_inputs(images, dtype), unknown)), config.device)

    adapted = experiment.method.adapt(params, drawn(queries[:1]).support)
    step = _AT_A_TIME if batch_norm == "support" else len(queries)
    logits = [
        experiment.method.logits(adapted, drawn(queries[start : start + step]), batch_norm)
        for start in range(0, len(queries), step)
    ]
    return Classified(tuple(support), torch.cat(logits).double().softmax(1).cpu().numpy(), adapted)


def save_adapted(path: Path, found: Classified, checkpoint: Checkpoint) -> None:
    """Keep adapted parameters: a checkpoint of `params/...` that names the classes, and cannot be trained further.

    Args:
        path: Where to write.
        found: What `classify` gave.
        checkpoint: What it was adapted from.

    Raises:
        CheckpointError: The file cannot be written.
    """
    kept = {key: entry(checkpoint, key) for key in ("config", "data", "provenance")}
    metadata = {**kept, "config_digest": checkpoint.metadata["config_digest"], "classes": list(found.classes)}
    tensors = {f"params/{name}": value for name, value in found.params.items()}
    save_checkpoint(path, tensors=tensors, metadata=metadata)
