"""What a network is to the rest of the package, and what networks share: how weights are drawn, and bfloat16.

Read next: `conv4.py`, and `__init__.py` (networks by name).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sharp_maml.base import Logits, Params

Form = Literal["fused", "elementary"]
"""How batch norm is differentiated: fast and twice, or in plain operations and as often as one likes."""

HALVINGS = 4
"""How often a network of images halves them."""


class Model(NamedTuple):
    """A network without state.

    init: generator -> freshly drawn parameters, float32, on the generator's device.
    logits: (params, inputs, context) -> `n x ways`; see `base.Logits`. Without a head, `n x features`.
    features: Width of what the head reads; None where it is not known.
    head: Names of the parameters of the last layer; the body is all others.
    norm: Names of the parameters of normalisation layers.
    """

    init: Callable[[torch.Generator], Params]
    logits: Logits
    features: int | None = None
    head: Collection[str] = ()
    norm: Collection[str] = ()


def in_bfloat16(model: Model) -> Model:
    """The network computed in bfloat16 from float32 parameters and inputs to float32 logits.

    The gradients, and so their norms, perturbations and updates, are float32; their error is that of bfloat16, which
    for second derivatives through max-pooling and ReLU is large.

    Args:
        model: The network.

    Returns:
        The model, in all else that of `model`.
    """

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        rounded = {name: value.bfloat16() for name, value in params.items()}
        return model.logits(rounded, inputs.bfloat16(), None if context is None else context.bfloat16()).float()

    return model._replace(logits=logits)


def linear_layer(name: str, inward: int, outward: int, generator: torch.Generator) -> Params:
    """Weight and bias of a linear layer, as torch draws them."""
    return {
        f"{name}.weight": uniform((outward, inward), inward, generator),
        f"{name}.bias": uniform((outward,), inward, generator),
    }


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """Uniform within 1 / sqrt(fan-in): what torch's default `kaiming_uniform_(a=sqrt(5))` comes to."""
    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (2 * unit - 1) / math.sqrt(fan_in)


def check_settings(ways: int | None, filters: int, image_size: int, channels: int, batch_norm_form: str) -> None:
    """Refuse settings that no network of images can have."""
    if ways is not None and ways < 2:
        raise ValueError(f"ways must be at least 2, or None for features without a head; got {ways}")
    if image_size < 2**HALVINGS:
        raise ValueError(
            f"image_size must be at least {2**HALVINGS}, so that {HALVINGS} poolings fit; got {image_size}"
        )
    for name, value in {"filters": filters, "channels": channels}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if batch_norm_form not in get_args(Form):
        raise ValueError(f"batch_norm_form must be one of {', '.join(get_args(Form))}, got {batch_norm_form!r}")


def check_inputs(inputs: Tensor, channels: int, image_size: int) -> None:
    """Refuse images of another shape than the network was made for."""
    if inputs.ndim != 4 or tuple(inputs.shape[1:]) != (channels, image_size, image_size):
        expected = f"n x {channels} x {image_size} x {image_size}"
        raise ValueError(f"inputs must be {expected}, got {' x '.join(map(str, inputs.shape))}")
