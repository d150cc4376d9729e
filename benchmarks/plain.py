"""What the public MAML codes do, in their manner: an unrolled `create_graph` loop over torch's own layers, in NCHW.

It stands for them in the benchmark (`bench.py`) and computes the same number as the package with its default settings:
perturbations are constants, and those made at theta are used again at theta + eps. Episodes go one after the other, so
that no more than one graph is alive: most of the public codes keep all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, max_pool2d

from sharp_maml import Episode, MetaGradient, Params


def plain_logits(params: Params, x: Tensor) -> Tensor:
    """Logits of conv4.

    Args:
        params: Its parameters.
        x: Images, `n x channels x pixels x pixels`.

    Returns:
        The logits, `n x ways`.
    """
    for block in range(1, 5):
        x = conv2d(x, params[f"conv{block}.weight"], padding=1)
        x = batch_norm(x, None, None, params[f"norm{block}.weight"], params[f"norm{block}.bias"], training=True)
        x = max_pool2d(x.relu(), 2)
    return linear(x.flatten(1), params["head.weight"], params["head.bias"])


def plain_meta_gradient(
    params: Params, episodes: Sequence[Episode], *, beta_low: float, alpha_low: float, alpha_up: float, steps: int
) -> MetaGradient:
    """The meta-gradient of Sharp-MAML, or of MAML where both radii are 0.

    Args:
        params: theta.
        episodes: The meta-batch.
        beta_low: Inner step.
        alpha_low: Radius of the lower ascent.
        alpha_up: Radius of the upper ascent.
        steps: Inner steps.

    Returns:
        The gradient, and the losses at theta and at theta + eps.
    """
    grad, loss, made = _one_pass(params, episodes, beta_low, alpha_low, steps, None)
    if not alpha_up:
        return MetaGradient(grad, loss, loss)
    eps = _of_length(grad, alpha_up)
    above = {name: params[name] + eps[name] for name in params}
    grad, loss_above, _ = _one_pass(above, episodes, beta_low, alpha_low, steps, made)
    return MetaGradient(grad, loss, loss_above)


def _one_pass(
    params: Params,
    episodes: Sequence[Episode],
    beta_low: float,
    alpha_low: float,
    steps: int,
    given: list[list[Params]] | None,
) -> tuple[Params, Tensor, list[list[Params]]]:
    theta = {name: value.detach().requires_grad_() for name, value in params.items()}
    losses = []
    made: list[list[Params]] = []
    for index, episode in enumerate(episodes):
        x = theta
        made.append([])
        for step in range(steps):
            point = x
            if alpha_low:
                eps = given[index][step] if given else _of_length(_gradient(x, episode), alpha_low)
                made[-1].append(eps)
                point = {name: x[name] + eps[name] for name in x}
            grad = _gradient(point, episode, create_graph=True)
            x = {name: x[name] - beta_low * grad[name] for name in x}
        query = cross_entropy(plain_logits(x, episode.query.inputs), episode.query.targets)
        (query / len(episodes)).backward()  # type: ignore[no-untyped-call]
        losses.append(query.detach())
    grad = {name: value.grad for name, value in theta.items() if value.grad is not None}
    return grad, torch.stack(losses).mean(), made


def _gradient(params: Params, episode: Episode, *, create_graph: bool = False) -> Params:
    loss = cross_entropy(plain_logits(params, episode.support.inputs), episode.support.targets)
    return dict(zip(params, torch.autograd.grad(loss, list(params.values()), create_graph=create_graph), strict=True))


def _of_length(grad: Params, length: float) -> Params:
    norm = torch.sqrt(sum((value * value).sum() for value in grad.values()))  # type: ignore[arg-type]
    return {name: length * value / norm for name, value in grad.items()}
