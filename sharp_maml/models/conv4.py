"""conv4, the four-block convolutional network of few-shot learning.

Read next: `block.py` (a block of it, and why it has two forms).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from sharp_maml.base import Params
from sharp_maml.models.block import block
from sharp_maml.models.model import HALVINGS, Form, Model, check_inputs, check_settings, linear_layer, uniform


def conv4(
    *,
    ways: int | None = 5,
    filters: int = 64,
    image_size: int = 84,
    channels: int = 3,
    batch_norm_form: Form = "fused",
) -> Model:
    """The four-block convolutional network of few-shot learning.

    Four times: convolution 3 x 3 with padding 1, batch norm by the statistics of the batch, ReLU, max-pooling 2 x 2;
    then a linear head. The convolutions have no bias: before a batch norm its gradient is zero. There are no running
    averages: the statistics are those of the inputs, or of `context` where it is given; both then go through the
    network together, so that a query's logits do not depend on the other queries.

    Parameters, in order: `conv1.weight`, `norm1.weight`, `norm1.bias`, ..., `norm4.bias`, `head.weight`, `head.bias`.
    Weights are drawn as torch draws those of `Conv2d` and `Linear`: uniform within 1 / sqrt(fan-in).

    Args:
        ways: Number of classes, >= 2; None leaves out the head and returns the flattened features.
        filters: Channels of every block.
        image_size: Height and width of the inputs in pixels, >= 16.
        channels: Channels of the inputs.
        batch_norm_form: `fused` is fast and twice differentiable; `elementary` is needed under `vmap` and for third
            derivatives, such as those of a Hessian of the meta-loss.

    Returns:
        The model; its inputs are `n x channels x image_size x image_size`.

    Raises:
        ValueError: A size is out of range, or the form is unknown.

    Source: Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section 4.1; width and pooling as
    in the released code of the source.
    """
    check_settings(ways, filters, image_size, channels, batch_norm_form)
    features = filters * (image_size // 2**HALVINGS) ** 2

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for index in range(1, HALVINGS + 1):
            inward = channels if index == 1 else filters
            params[f"conv{index}.weight"] = uniform((filters, inward, 3, 3), 9 * inward, generator)
            params[f"norm{index}.weight"] = torch.ones(filters, device=generator.device)
            params[f"norm{index}.bias"] = torch.zeros(filters, device=generator.device)
        if ways is not None:
            params |= linear_layer("head", features, ways, generator)
        return params

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        check_inputs(inputs, channels, image_size)
        x = inputs if context is None else torch.cat([context, inputs])
        statistics_from = None if context is None else len(context)
        if batch_norm_form == "fused":
            x = x.contiguous(memory_format=torch.channels_last)  # the convolutions of a CPU are faster so
        for index in range(1, HALVINGS + 1):
            x = block(
                x,
                params[f"conv{index}.weight"],
                params[f"norm{index}.weight"],
                params[f"norm{index}.bias"],
                statistics_from=statistics_from,
                form=batch_norm_form,
            )
        x = (x if context is None else x[len(context) :]).flatten(1)
        return x if ways is None else linear(x, params["head.weight"], params["head.bias"])

    head = () if ways is None else ("head.weight", "head.bias")
    norm = [f"norm{index}.{kind}" for index in range(1, HALVINGS + 1) for kind in ("weight", "bias")]
    return Model(init, logits, features, head, norm)
