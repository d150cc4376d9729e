"""A search for stationary points: Newton's method from many random starts, on the package's meta-loss.

It shares nothing with the certified count but the data: derivatives are automatic, arithmetic is float64. What it finds
is a stationary point up to rounding; that it finds no other shows nothing. Read next: `counts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from sharp_maml import Batch, Episode, Params, meta_loss
from theory.networks.boxes import Problem

STEPS = 30
LONGEST = 1.0
"""Length of the longest step of Newton's method: a longer one is cut to it."""
ROUNDING = 1e-7
"""How far from the exact point the method may end."""
ZERO = 1e-9
"""Norm of a gradient that is taken for 0."""
SAME = 1e-6
"""Distance of points that are taken for one."""


class Found(NamedTuple):
    """Stationary points of one function.

    Attributes:
        points: Distinct ones, `n x d`.
        indices: How many negative eigenvalues the Hessian has where each start ended; only those that ended at one.
        values: The values of the function there.
    """

    points: NDArray[np.float64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]


def search(objective: Callable[..., Tensor], start: Tensor, *data: Any) -> list[Found]:
    """The stationary points at which Newton's method for grad f = 0 ends, of several functions at once.

    Args:
        objective: f(x, *data) of one point, twice differentiable by `torch.func`.
        start: Starts of each function, `P x N x d`.
        *data: Trees of tensors whose first dimension is over the functions.

    Returns:
        What was found, of each function.
    """
    functions, starts, dim = start.shape
    of_each = tree_map(lambda part: part.repeat_interleave(starts, 0), data)
    gradient = torch.func.vmap(torch.func.grad(objective))
    hessian = torch.func.vmap(torch.func.jacrev(torch.func.grad(objective)))
    x = start.reshape(-1, dim)
    for _ in range(STEPS):
        step = torch.linalg.lstsq(hessian(x, *of_each), gradient(x, *of_each)[..., None]).solution[..., 0]
        length = step.norm(dim=-1, keepdim=True)
        x = x - step * (LONGEST / length.clamp(min=LONGEST))
    is_zero = (gradient(x, *of_each).norm(dim=-1) < ZERO).numpy().reshape(functions, starts)
    below = (torch.linalg.eigvalsh(hessian(x, *of_each)) < 0).sum(-1).numpy().reshape(functions, starts)
    values = torch.func.vmap(objective)(x, *of_each).numpy().reshape(functions, starts)
    ended = x.numpy().reshape(start.shape)
    return [
        Found(_distinct(ended[i][is_zero[i]]), below[i][is_zero[i]], values[i][is_zero[i]]) for i in range(functions)
    ]


def _distinct(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points that are further than `SAME` from those before."""
    found = points[:0]
    for point in points:
        if not (np.abs(found - point).max(1, initial=0.0) <= SAME).any():
            found = np.vstack([found, point])
    return found


def found_in(problems: Sequence[Problem], *, starts: int, seed: int) -> list[Found]:
    """The search on instances whose points are counted.

    Args:
        problems: Instances with the same numbers of tasks and samples, of one network.
        starts: How many starts each; Gaussian, half of them with deviation 2 and half with 8.
        seed: Seed of the starts.

    Returns:
        What was found, of each instance.
    """
    loss = problems[0].tasks.loss
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(problems), starts, problems[0].tasks.dim, generator=generator, dtype=torch.float64)
    start[:, ::2] *= 2.0
    start[:, 1::2] *= 8.0
    episodes = tree_map(lambda *parts: torch.stack(parts), *[problem.tasks.episodes for problem in problems])
    beta = torch.tensor([problem.beta for problem in problems], dtype=torch.float64)
    decay = torch.tensor([float(problem.tasks.decay) for problem in problems], dtype=torch.float64)

    def objective(x: Tensor, episodes: list[Episode], beta: Tensor, decay: Tensor) -> Tensor:
        return meta_loss(loss, {"x": x}, episodes, beta_low=beta) + decay * x.square().sum()

    return search(objective, start, episodes, beta, decay)


class Sines:
    """Regression of sines by a network with one hidden layer of three tanh neurons, ten parameters, all trained.

    A task is y = A sin(t + phase) with 5 support and 5 query samples, t in [-3, 3], A in [0.5, 1.5].

    Args:
        tasks: M.
        seed: Seed of the tasks.
        decay: Factor of |x|^2, which separates what the network's scalings would leave flat.
    """

    hidden = 3

    def __init__(self, *, tasks: int, seed: int, decay: float = 0.01) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.decay = decay

        def half(amplitude: Tensor, phase: Tensor) -> Batch:
            t = 6 * torch.rand(5, generator=generator, dtype=torch.float64) - 3
            return Batch(t, amplitude * (t + phase).sin())

        self.episodes = []
        for _ in range(tasks):
            amplitude, phase = torch.rand(2, generator=generator, dtype=torch.float64)
            task = 0.5 + amplitude, 2 * torch.pi * phase
            self.episodes.append(Episode(half(*task), half(*task)))

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return 3 * self.hidden + 1

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean squared error."""
        weight, bias, output = params["x"][:-1].reshape(3, self.hidden)
        predicted: Tensor = (batch.inputs[:, None] * weight + bias).tanh() @ output + params["x"][-1]
        return (predicted - batch.targets).square().mean()

    def objective(self, beta: float) -> Callable[[Tensor], Tensor]:
        """MAML's objective with weight decay on the meta-parameters; ERM's for beta = 0."""

        def value(x: Tensor) -> Tensor:
            loss = meta_loss(self.loss, {"x": x}, self.episodes, beta_low=beta)
            return loss + self.decay * x.square().sum()

        return value

    def indices(self, beta: float, *, starts: int, seed: int) -> dict[str, Any]:
        """How many negative eigenvalues the points have at which Newton's method ends.

        Args:
            beta: beta_low.
            starts: Gaussian starts with deviation 1.
            seed: Seed of the starts.

        Returns:
            `starts`; `ended`, how many ended at a stationary point; `by_index`, how many of these for each index;
            `distinct`, the number of values of the objective among them that differ by more than 1e-8, by index, which
            counts points that a symmetry of the network maps to each other once; `lowest` of these values, by index.
        """
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(starts, self.dim, generator=generator, dtype=torch.float64)
        (found,) = search(self.objective(beta), start[None])
        of_index = {int(i): np.sort(found.values[found.indices == i]) for i in np.unique(found.indices)}
        return {
            "starts": starts,
            "ended": len(found.indices),
            "by_index": {str(i): len(values) for i, values in of_index.items()},
            "distinct": {str(i): int(1 + (np.diff(values) > 1e-8).sum()) for i, values in of_index.items()},
            "lowest": {str(i): float(values[0]) for i, values in of_index.items()},
        }
