"""Any `nn.Module` as a network without state."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from sharp_maml.base import Params
from sharp_maml.models.model import Model

_NORM = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def from_module(module: nn.Module) -> Model:
    """A module of your own as a model: its parameters become arguments, the module itself is never changed.

    `init` returns copies of the parameters that the module has now, and leaves the generator alone; parameters that do
    not require a gradient stay in the module as constants, and so do buffers: a pass that writes into one is refused.
    The module runs in the mode (training or not) that it is in; dropout then draws in every pass, where `SharpMAML`
    holds its masks. Its `forward` takes the inputs (of a tuple, one after the other; of a dictionary, by their names)
    and, for batch norm by the support set's statistics, a keyword `context`.

    Its head is the last layer that has parameters, in the order in which the layers were made; its normalisation layers
    are those of torch.

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

    owners = {name: module.get_submodule(name.rpartition(".")[0]) for name in name_of.values()}
    last = list(owners.values())[-1]
    head = [name for name, layer in owners.items() if layer is last]
    norm = [name for name, layer in owners.items() if isinstance(layer, _NORM)]

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

    return Model(init, logits, head=head, norm=norm)
