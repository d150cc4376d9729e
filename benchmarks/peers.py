"""MAML's meta-gradient by two public libraries, `higher` and `torchopt`, used as their own examples use them.

Both unroll the inner loop of a module and differentiate through it; of the second order nothing is left out, so they
compute the number of `plain.py`. They are installed into an environment of their own (`make bench`), which alone
imports this module's libraries. Episodes go one after the other, so that no more than one graph is alive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sharp_maml import Episode, Params


def network(params: Params) -> nn.Module:
    """conv4 from torch's own layers, in torch's own layout, whose parameters are copies of those given."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, 5):
        filters, inward = params[f"conv{index}.weight"].shape[:2]
        layers[f"conv{index}"] = nn.Conv2d(inward, filters, 3, padding=1, bias=False)
        layers[f"norm{index}"] = nn.BatchNorm2d(filters, track_running_stats=False)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"pool{index}"] = nn.MaxPool2d(2)
    ways, features = params["head.weight"].shape
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(features, ways)
    module = nn.Sequential(layers).to(params["head.weight"].dtype)
    module.load_state_dict(params)
    return module


def higher_meta_gradient(params: Params, episodes: Sequence[Episode], *, beta_low: float, steps: int) -> Params:
    """By `higher`: a functional copy of the module, updated by a differentiable optimizer."""
    import higher

    module = network(params)
    inner = torch.optim.SGD(module.parameters(), lr=beta_low)
    for support, query in episodes:
        with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (copy, differentiable):
            for _ in range(steps):
                differentiable.step(cross_entropy(copy(support.inputs), support.targets))
            (cross_entropy(copy(query.inputs), query.targets) / len(episodes)).backward()  # type: ignore[no-untyped-call]
    return _gradients(module)


def torchopt_meta_gradient(params: Params, episodes: Sequence[Episode], *, beta_low: float, steps: int) -> Params:
    """By `torchopt`: a meta-optimizer that changes the module, whose state is taken back after every episode."""
    import torchopt

    module = network(params)
    start = dict(module.named_parameters())
    inner = torchopt.MetaSGD(module, lr=beta_low)
    states = [torchopt.extract_state_dict(part, by="reference") for part in (module, inner)]
    for support, query in episodes:
        for _ in range(steps):
            inner.step(cross_entropy(module(support.inputs), support.targets))
        (cross_entropy(module(query.inputs), query.targets) / len(episodes)).backward()  # type: ignore[no-untyped-call]
        for part, state in zip((module, inner), states, strict=True):
            torchopt.recover_state_dict(part, state)
    return {name: value.grad for name, value in start.items() if value.grad is not None}


def _gradients(module: nn.Module) -> Params:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


PEERS: dict[str, Callable[..., Params]] = {"higher": higher_meta_gradient, "torchopt": torchopt_meta_gradient}
