"""Independent ways to the core's numbers: an unrolled autograd loop, finite differences, closed-form quadratics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params


def smooth_logits(params: Params, inputs: Tensor) -> Tensor:
    return torch.tanh(inputs @ params["body"] + params["bias"]) @ params["head"]


def smooth_loss(params: Params, batch: Batch) -> Tensor:
    return ((smooth_logits(params, batch.inputs) - batch.targets) ** 2).mean() + 0.1 * torch.sin(params["bias"]).sum()


def smooth_problem(seed: int, tasks: int = 2) -> tuple[Params, list[Episode]]:
    """A small smooth network and episodes of random regression tasks, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = {"body": normal(3, 4), "bias": normal(4), "head": normal(4, 2)}
    return params, [Episode(Batch(normal(5, 3), normal(5, 2)), Batch(normal(6, 3), normal(6, 2))) for _ in range(tasks)]


def unrolled_meta_gradient(
    loss,
    params: Params,
    episodes,
    *,
    beta_low,
    alpha_low=0.0,
    alpha_up=0.0,
    steps=1,
    perturbation="reused",
    inner_params=None,
    ascent_episodes=None,
    first_order=False,
    query_loss=None,
    mask=None,
    eta=None,
) -> tuple[Params, float, float]:
    """What `meta_gradient` gives, from a plain loop under autograd: (gradient, loss, loss where it was taken).

    mask: for each name what its gradient is multiplied by before an ascent. eta: ASAM's, whose ascent is then taken.
    """
    query_loss = query_loss or (lambda p, e: loss(p, e.query))
    names = list(params) if inner_params is None else list(inner_params)
    makers = ascent_episodes or episodes

    def unit(x, grads, of):
        sizes = [1.0 if eta is None else x[n].abs() + eta for n in of]
        grads = [g * mask[n] for n, g in zip(of, grads, strict=True)] if mask else grads
        grads = [t * g for t, g in zip(sizes, grads, strict=True)]
        length = torch.sqrt(sum((g * g).sum() for g in grads))
        return [t * g / length if length > 0 else torch.zeros_like(g) for t, g in zip(sizes, grads, strict=True)]

    def one_pass(theta, on, given):
        theta = {n: v.detach().clone().requires_grad_() for n, v in theta.items()}
        total, made = 0.0, []
        for m, (episode, maker) in enumerate(zip(on, makers, strict=True)):
            x, eps_of_task = dict(theta), []
            for k in range(steps):
                point = x
                if alpha_low:
                    if given is not None:
                        eps = given[m][k]
                    else:
                        g = torch.autograd.grad(
                            loss(x, maker.support), [x[n] for n in names], create_graph=True, materialize_grads=True
                        )
                        eps = [alpha_low * u for u in unit(x, g, names)]
                        if perturbation != "differentiated":
                            eps = [e.detach() for e in eps]
                    eps_of_task.append(eps)
                    point = x | {n: x[n] + e for n, e in zip(names, eps, strict=True)}
                g = torch.autograd.grad(loss(point, episode.support), [point[n] for n in names], create_graph=True)
                if first_order:
                    g = [v.detach() for v in g]
                x = x | {n: x[n] - beta_low * v for n, v in zip(names, g, strict=True)}
            total = total + query_loss(x, episode) / len(on)
            made.append(eps_of_task)
        grads = torch.autograd.grad(total, list(theta.values()))
        return dict(zip(theta, grads, strict=True)), total.item(), made

    if not alpha_up:
        grad, value, _ = one_pass(params, episodes, None)
        return grad, value, value
    grad, value, made = one_pass(params, makers, None)
    above = unit(params, list(grad.values()), params)
    above = {n: params[n] + alpha_up * u for n, u in zip(params, above, strict=True)}
    grad, value_above, _ = one_pass(above, episodes, made if perturbation == "reused" else None)
    return grad, value, value_above


def central_difference(function: Callable[[Params], Tensor], params: Params, h: float = 1e-3) -> Params:
    """Gradient of a scalar function by the sixth-order central difference: error O(h^6), about 1e-12 at h = 1e-3."""
    weights = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    grad = {}
    for name, value in params.items():
        entries = torch.zeros_like(value).flatten()
        for i in range(value.numel()):
            step = torch.zeros_like(value).flatten()
            step[i] = h
            step = step.view_as(value)
            entries[i] = (
                sum(
                    w * (function(params | {name: value + j * step}) - function(params | {name: value - j * step}))
                    for j, w in weights.items()
                )
                / h
            )
        grad[name] = entries.view_as(value)
    return grad


class Quadratic:
    """Tasks l_m = (x - a_m)' A_m (x - a_m) / 2 and q_m likewise with C_m, c_m; episodes carry the four arrays."""

    def __init__(self, seed: int, dim: int = 4, tasks: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.theta = rng.normal(size=dim)
        self.tasks = []
        for _ in range(tasks):
            r = rng.normal(size=(2, dim, dim))
            self.tasks.append((r[0] @ r[0].T / dim, rng.normal(size=dim), r[1] @ r[1].T / dim, rng.normal(size=dim)))

    @property
    def params(self) -> Params:
        return {"x": torch.from_numpy(self.theta.copy())}

    @property
    def episodes(self) -> list[Episode]:
        return [
            Episode(Batch(*map(torch.from_numpy, (A, a))), Batch(*map(torch.from_numpy, (C, c))))
            for A, a, C, c in self.tasks
        ]

    @staticmethod
    def loss(params: Params, batch: Batch) -> Tensor:
        r = params["x"] - batch.targets
        return r @ batch.inputs @ r / 2

    def meta_gradient(self, *, beta, alpha_low, alpha_up, steps, perturbation) -> np.ndarray:
        """In closed form, with Jacobians written out."""

        def one_pass(theta, given):
            total, made = np.zeros_like(theta), []
            for m, (A, a, C, c) in enumerate(self.tasks):
                x, jacobian, of_task = theta, np.eye(len(theta)), []
                for k in range(steps):
                    g = A @ (x - a)
                    u, length = g / np.linalg.norm(g), np.linalg.norm(g)
                    eps = alpha_low * u if given is None else given[m][k]
                    of_task.append(eps)
                    d_eps = np.zeros_like(A)
                    if perturbation == "differentiated":
                        d_eps = alpha_low / length * (np.eye(len(u)) - np.outer(u, u)) @ A
                    jacobian = (np.eye(len(u)) - beta * A @ (np.eye(len(u)) + d_eps)) @ jacobian
                    x = x - beta * A @ (x + eps - a)
                total += jacobian.T @ C @ (x - c) / len(self.tasks)
                made.append(of_task)
            return total, made

        grad, made = one_pass(self.theta, None)
        if alpha_up:
            above = self.theta + alpha_up * grad / np.linalg.norm(grad)
            grad, _ = one_pass(above, made if perturbation == "reused" else None)
        return grad


def relative_error(a: Params, b: Params) -> float:
    difference = torch.sqrt(sum(((a[n] - b[n]) ** 2).sum() for n in b))
    return (difference / torch.sqrt(sum((v**2).sum() for v in b.values()))).item()
