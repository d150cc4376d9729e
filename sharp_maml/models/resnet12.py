"""ResNet-12, the residual network of few-shot learning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, leaky_relu, linear, max_pool2d

from sharp_maml.base import Params
from sharp_maml.models.block import EPS, normalised
from sharp_maml.models.model import HALVINGS, Form, Model, check_inputs, check_settings, linear_layer, uniform

_SLOPE = 0.1
_LAYERS = 3


def resnet12(
    *,
    ways: int | None = 5,
    filters: int = 64,
    image_size: int = 84,
    channels: int = 3,
    batch_norm_form: Form = "fused",
) -> Model:
    """The residual network of few-shot learning, twelve convolutions deep.

    Four blocks of 1, 2.5, 5 and 10 times `filters` channels (64, 160, 320, 640). A block is three times convolution
    3 x 3 with padding 1 and batch norm, with LeakyReLU of slope 0.1 after the first two; to which a shortcut is added,
    convolution 1 x 1 and batch norm; then LeakyReLU and max-pooling 2 x 2. The head is linear, on the mean over the
    pixels. Batch norm by the statistics of the batch or of `context`, and how weights are drawn, are those of `conv4`;
    convolutions have no bias. DropBlock, by which this network is often regularised, is left out, because a loss must
    be one function of the parameters.

    Parameters, in order, of each block k = 1, ..., 4: `block<k>.conv1.weight`, `block<k>.norm1.weight`,
    `block<k>.norm1.bias`, ..., `block<k>.norm3.bias`, `block<k>.shortcut.weight`, `block<k>.norm0.weight`,
    `block<k>.norm0.bias`; then `head.weight`, `head.bias`.

    Args:
        ways: See `conv4`.
        filters: Channels of the first block.
        image_size: Height and width of the inputs.
        channels: Channels of the inputs.
        batch_norm_form: `fused` is torch's batch norm; `elementary` as in `conv4`.

    Returns:
        The model.

    Raises:
        ValueError: See `conv4`.

    Source: Oreshkin et al., "TADAM", NeurIPS 2018; widths and LeakyReLU as in Lee et al., "Meta-Learning with
    Differentiable Convex Optimization" (MetaOptNet), CVPR 2019, which draws its weights from He's normal distribution.
    """
    check_settings(ways, filters, image_size, channels, batch_norm_form)
    widths = [filters * share // 2 for share in (2, 5, 10, 20)]
    blocks = list(zip(range(1, HALVINGS + 1), [channels, *widths], widths, strict=False))

    def init(generator: torch.Generator) -> Params:
        params: Params = {}

        def add(conv: str, norm: str, inward: int, outward: int, side: int) -> None:
            params[f"{conv}.weight"] = uniform((outward, inward, side, side), side**2 * inward, generator)
            params[f"{norm}.weight"] = torch.ones(outward, device=generator.device)
            params[f"{norm}.bias"] = torch.zeros(outward, device=generator.device)

        for k, inward, outward in blocks:
            for layer in range(1, _LAYERS + 1):
                add(f"block{k}.conv{layer}", f"block{k}.norm{layer}", inward if layer == 1 else outward, outward, 3)
            add(f"block{k}.shortcut", f"block{k}.norm0", inward, outward, 1)
        if ways is not None:
            params |= linear_layer("head", widths[-1], ways, generator)
        return params

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        check_inputs(inputs, channels, image_size)
        x = inputs if context is None else torch.cat([context, inputs])
        statistics_from = None if context is None else len(context)

        def layer(x: Tensor, conv: str, norm: str, padding: int) -> Tensor:
            y = conv2d(x, params[f"{conv}.weight"], padding=padding)
            scale, shift = params[f"{norm}.weight"], params[f"{norm}.bias"]
            if batch_norm_form == "fused" and statistics_from is None:
                return batch_norm(y, None, None, scale, shift, training=True, eps=EPS)
            return normalised(y, scale, shift, statistics_from)

        for k, *_ in blocks:
            y = leaky_relu(layer(x, f"block{k}.conv1", f"block{k}.norm1", 1), _SLOPE)
            y = leaky_relu(layer(y, f"block{k}.conv2", f"block{k}.norm2", 1), _SLOPE)
            y = layer(y, f"block{k}.conv3", f"block{k}.norm3", 1)
            x = max_pool2d(leaky_relu(y + layer(x, f"block{k}.shortcut", f"block{k}.norm0", 0), _SLOPE), 2)
        x = x[statistics_from:].mean((2, 3))
        return x if ways is None else linear(x, params["head.weight"], params["head.bias"])

    head = () if ways is None else ("head.weight", "head.bias")
    norm = [f"block{k}.norm{n}.{kind}" for k, *_ in blocks for n in range(_LAYERS + 1) for kind in ("weight", "bias")]
    return Model(init, logits, widths[-1], head, norm)
