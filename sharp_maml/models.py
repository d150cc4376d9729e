"""Networks as pure functions of their parameters: the conv4 of few-shot learning, an MLP, and any module of your own.

A model is a pair: `init` draws parameters from an explicit generator, `logits` maps parameters and inputs to class
scores. Read next: `block.py` (a block of conv4, and why it has two forms), `meta.py` (what is done with the logits).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sharp_maml.base import Params
from sharp_maml.block import Form, block
from sharp_maml.meta import Logits

_BLOCKS = 4


class Model(NamedTuple):
    """A network without state.

    init: generator -> freshly drawn parameters, float32, on the generator's device.
    logits: (params, inputs, context) -> `n x ways`; see `meta.Logits`.
    """

    init: Callable[[torch.Generator], Params]
    logits: Logits


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
    if ways is not None and ways < 2:
        raise ValueError(f"ways must be at least 2, or None for features without a head; got {ways}")
    if image_size < 2**_BLOCKS:
        raise ValueError(f"image_size must be at least {2**_BLOCKS}, so that {_BLOCKS} poolings fit; got {image_size}")
    for name, value in {"filters": filters, "channels": channels}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if batch_norm_form not in get_args(Form):
        raise ValueError(f"batch_norm_form must be one of {', '.join(get_args(Form))}, got {batch_norm_form!r}")

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for index in range(1, _BLOCKS + 1):
            inward = channels if index == 1 else filters
            params[f"conv{index}.weight"] = _uniform((filters, inward, 3, 3), 9 * inward, generator)
            params[f"norm{index}.weight"] = torch.ones(filters, device=generator.device)
            params[f"norm{index}.bias"] = torch.zeros(filters, device=generator.device)
        if ways is not None:
            features = filters * (image_size // 2**_BLOCKS) ** 2
            params |= _linear("head", features, ways, generator)
        return params

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        if inputs.ndim != 4 or tuple(inputs.shape[1:]) != (channels, image_size, image_size):
            expected = f"n x {channels} x {image_size} x {image_size}"
            raise ValueError(f"inputs must be {expected}, got {' x '.join(map(str, inputs.shape))}")
        x = inputs if context is None else torch.cat([context, inputs])
        statistics_from = None if context is None else len(context)
        if batch_norm_form == "fused":
            x = x.contiguous(memory_format=torch.channels_last)  # the convolutions of a CPU are faster so
        for index in range(1, _BLOCKS + 1):
            x = block(
                x,
                params[f"conv{index}.weight"],
                params[f"norm{index}.weight"],
                params[f"norm{index}.bias"],
                statistics_from=statistics_from,
                form=batch_norm_form,
            )
        features = x[statistics_from:].flatten(1)
        return features if ways is None else linear(features, params["head.weight"], params["head.bias"])

    return Model(init, logits)


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
            params |= _linear(layer, inward, outward, generator)
        return params

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        x = inputs.flatten(1)
        for layer in layers:
            x = x if layer == layers[0] else activation(x)
            x = linear(x, params[f"{layer}.weight"], params[f"{layer}.bias"])
        return x

    return Model(init, logits)


def in_bfloat16(model: Model) -> Model:
    """The same network, computed in bfloat16 from float32 parameters and inputs to float32 logits.

    The gradients, and so their norms, perturbations and updates, are float32; their error is that of bfloat16, which
    for second derivatives through max-pooling and ReLU is large.

    Args:
        model: The network.

    Returns:
        The model; `init` is that of `model`.
    """

    def logits(params: Params, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        rounded = {name: value.bfloat16() for name, value in params.items()}
        return model.logits(rounded, inputs.bfloat16(), None if context is None else context.bfloat16()).float()

    return Model(model.init, logits)


def from_module(module: nn.Module) -> Model:
    """A module of your own as a model: its parameters become arguments, the module itself is never changed.

    `init` returns copies of the parameters that the module has now, and leaves the generator alone; parameters that do
    not require a gradient stay in the module as constants, and so do buffers: a pass that writes into one is refused.
    The module runs in the mode (training or not) that it is in; dropout then draws in every pass, where `SharpMAML`
    holds its masks. Its `forward` takes the inputs (of a tuple, one after the other; of a dictionary, by their names)
    and, for batch norm by the support set's statistics, a keyword `context`.

    Args:
        module: Maps `n x ...` inputs to `n x ways` logits. It may not keep running averages: use GroupNorm, or batch
            norm with `track_running_stats=False` (right to the second derivative and without `vmap`).

    Returns:
        The model.

    Raises:
        ValueError: The module has no parameter to train, or a layer would update running averages; and from `logits`,
            a buffer was changed by the pass.
    """
    for name, layer in module.named_modules():
        if layer.training and getattr(layer, "running_mean", None) is not None:
            raise ValueError(
                f"{name or 'the module'} ({type(layer).__name__}) updates running averages, and a model has no state: "
                "build it with track_running_stats=False, or freeze it with eval()"
            )
    if not any(value.requires_grad for value in module.parameters()):
        raise ValueError("the module has no parameter that requires a gradient")
    takes_context = "context" in inspect.signature(module.forward).parameters
    # A parameter that several layers share has one name among the parameters. All its names are found here: torch's own
    # `tie_weights` puts back the wrong tensor where the layer itself is shared.
    name_of = {value: name for name, value in module.named_parameters() if value.requires_grad}
    places = {
        f"{prefix}.{name}".lstrip("."): name_of[value]
        for prefix, layer in module.named_modules()
        for name, value in layer.named_parameters(recurse=False)
        if value in name_of
    }

    def init(generator: torch.Generator) -> Params:
        return {name: value.detach().clone() for value, name in name_of.items()}

    def logits(params: Params, inputs: Any, context: Any = None) -> Tensor:
        options = inputs if isinstance(inputs, dict) else {}
        if context is not None and takes_context:
            options = {**options, "context": context}
        elif context is not None:
            raise ValueError(
                f"{type(module).__name__}.forward takes no `context`, which batch_norm='support' needs: add the "
                "keyword (the inputs whose statistics to use), or choose batch_norm='transductive'"
            )
        positional = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
        buffers = {name: value.clone() for name, value in module.named_buffers()}  # what a pass writes is thrown away
        values = {place: params[name] for place, name in places.items()} | buffers
        result: Tensor = torch.func.functional_call(module, values, positional, options, tie_weights=False)
        for name, value in buffers.items():  # `functional_call` gives back what the module then had
            if values[name] is not value or (not value.is_inference() and value._version > 0):
                raise ValueError(
                    f"{type(module).__name__}.forward changes its buffer {name}, and a model has no state: switch that "
                    "off, with eval() where it is for training only"
                )
        return result

    return Model(init, logits)


def _linear(name: str, inward: int, outward: int, generator: torch.Generator) -> Params:
    return {
        f"{name}.weight": _uniform((outward, inward), inward, generator),
        f"{name}.bias": _uniform((outward,), inward, generator),
    }


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """Uniform within 1 / sqrt(fan-in): what torch's default `kaiming_uniform_(a=sqrt(5))` comes to."""
    unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (2 * unit - 1) / math.sqrt(fan_in)
