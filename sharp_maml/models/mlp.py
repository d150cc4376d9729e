"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from sharp_maml.base import Params
from sharp_maml.models.model import Model, linear_layer


def mlp(*, sizes: Sequence[int], activation: Callable[[Tensor], Tensor] = torch.tanh) -> Model:
    """Fully connected network: x -> W_L a(... a(W_1 x + b_1) ...) + b_L.

    Parameters, in order: `layer1.weight`, `layer1.bias`, ...; drawn as in `conv4`. There is no batch norm, so `context`
    changes nothing.

    Args:
        sizes: Number of inputs, of each hidden layer's units, and of outputs; two numbers or more.
        activation: a, elementwise; a smooth one gives smooth derivatives.

    Returns:
        The model; its inputs are flattened to `n x sizes[0]`.

    Raises:
        ValueError: There are fewer than two sizes, or one is below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must be two or more numbers >= 1, got {list(sizes)}")
    layers = [f"layer{index}" for index in range(1, len(sizes))]

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for layer, inward, outward in zip(layers, sizes, sizes[1:], strict=False):
            params |= linear_layer(layer, inward, outward, generator)
        return params

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        x = inputs.flatten(1)
        for layer in layers:
            x = x if layer == layers[0] else activation(x)
            x = linear(x, params[f"{layer}.weight"], params[f"{layer}.bias"])
        return x

    return Model(init, logits, sizes[-2], (f"{layers[-1]}.weight", f"{layers[-1]}.bias"))
