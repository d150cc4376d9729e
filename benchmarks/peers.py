"""MAML's meta-gradient by public libraries: `higher` and `torchopt`, used as their own examples use them, and JAX.

All unroll the inner loop and differentiate through it; of the second order nothing is left out, so they compute the
number of `plain.py`, and the benchmark's record says how exactly. JAX compiles the work of an episode (XLA); the first
iteration, which is not counted, pays for it. They are installed into an environment of their own (`make bench`), which
alone imports this module's libraries. Episodes go one after the other, so that no more than one graph is alive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
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


def jax_meta_gradient(params: Params, episodes: Sequence[Episode], *, beta_low: float, steps: int) -> Params:
    """By JAX: the gradient of an episode's loss after the inner loop, compiled as one function."""
    import jax

    gradient = _jax_gradient(beta_low, steps)
    theta = {name: jax.numpy.asarray(value.numpy()) for name, value in params.items()}
    total = None
    for episode in episodes:
        arrays = [[jax.numpy.asarray(part.numpy()) for part in batch] for batch in episode]
        grad = gradient(theta, *arrays)
        total = grad if total is None else jax.tree.map(jax.numpy.add, total, grad)
    return {name: torch.from_numpy(np.array(value)) / len(episodes) for name, value in total.items()}  # type: ignore[union-attr]


@cache
def _jax_gradient(beta_low: float, steps: int) -> Any:
    """The compiled meta-gradient of an episode; one object, so that what is compiled is found again."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def logits(x: dict[str, Any], images: Any) -> Any:
        out = jnp.transpose(images, (0, 2, 3, 1))
        for block in range(1, 5):
            kernel = jnp.transpose(x[f"conv{block}.weight"], (2, 3, 1, 0))
            layout = ("NHWC", "HWIO", "NHWC")
            out = lax.conv_general_dilated(out, kernel, (1, 1), "SAME", dimension_numbers=layout)
            mean, variance = out.mean((0, 1, 2)), out.var((0, 1, 2))
            out = (out - mean) * lax.rsqrt(variance + 1e-5) * x[f"norm{block}.weight"] + x[f"norm{block}.bias"]
            n, height, width, filters = out.shape
            whole = jax.nn.relu(out)[:, : height // 2 * 2, : width // 2 * 2]
            out = whole.reshape(n, height // 2, 2, width // 2, 2, filters).max((2, 4))
        features = jnp.transpose(out, (0, 3, 1, 2)).reshape(len(images), -1)
        return features @ x["head.weight"].T + x["head.bias"]

    def loss(x: dict[str, Any], images: Any, targets: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(x, images)), targets[:, None], axis=1).mean()

    def after_inner_loop(x: dict[str, Any], support: Any, query: Any) -> Any:
        for _ in range(steps):
            x = jax.tree.map(lambda value, grad: value - beta_low * grad, x, jax.grad(loss)(x, *support))
        return loss(x, *query)

    return jax.jit(jax.grad(after_inner_loop))


def _gradients(module: nn.Module) -> Params:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


PEERS: dict[str, Callable[..., Params]] = {
    "higher": higher_meta_gradient,
    "torchopt": torchopt_meta_gradient,
    "jax": jax_meta_gradient,
}
