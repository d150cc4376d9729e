"""What a family of tasks offers: losses to drive the core with, and the numbers that a theorem asks about.

A family draws episodes that carry the noise, for many seeds at once, and knows, without the core, the exact meta-loss F
of the expected losses, its gradient and a certified lower bound: what a claim measures is never computed by what it
measures. Read next: `wells.py`, then `logcosh.py` (real minibatches) and `quadratic.py` (everything in closed form).

Notation: l_m and q_m are the expected support and query loss of task m, T_m(x) = x - beta grad l_m(x), and
F(x) = (1/M) sum_m q_m(T_m(x)). The parameters are `{"x": d}`, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params


@dataclass(frozen=True)
class Constants:
    """Constants of the tasks and of their noise; standard deviations are roots of E |deviation|^2.

    Attributes:
        L0: Lipschitz constant of every q_m.
        L1: Lipschitz constant of every grad l_m.
        L2: Lipschitz constant of every Hess l_m (operator norm).
        Lq: Lipschitz constant of every grad q_m.
        sg: Standard deviation of the support gradient.
        sH: Standard deviation of the support Hessian (operator norm).
        sq: Standard deviation of the query gradient.
    """

    L0: float
    L1: float
    L2: float
    Lq: float
    sg: float
    sH: float
    sq: float


HEAVY = 5
"""Degrees of freedom of noise with heavy tails; its fourth moment is the last that is finite."""


def linear_terms(
    generator: torch.Generator, *, tasks: int, n: int, dim: int, heavy: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Vectors zeta and xi with E |zeta|^2 = 1 for the noise of support and query losses, each `M x n x d`.

    They are normal, or, for the samples that `heavy` (`n`) marks, of the multivariate t distribution with 5 degrees of
    freedom: a normal vector divided by the root of chi^2 / (5 - 2), of which E (5 - 2) / chi^2 = 1.
    """
    terms = torch.randn((2, tasks, n, dim), generator=generator, dtype=torch.float64) / math.sqrt(dim)
    if heavy is not None:
        chi2 = torch.randn((HEAVY, 2, tasks, n), generator=generator, dtype=torch.float64).square().sum(0)
        terms = terms * torch.where(heavy, ((HEAVY - 2) / chi2).sqrt(), 1.0)[..., None]
    zeta, xi = terms
    return zeta, xi


def apart(episodes: Episode) -> list[Episode]:
    """The episode of each task, from one whose tensors have the tasks as their first dimension."""
    return [Episode(*halves) for halves in zip(*(map(Batch, *half) for half in episodes), strict=True)]


class Family(Protocol):
    """Tasks whose constants are known. Every method is exact up to rounding and works on leading batch dimensions."""

    def __hash__(self) -> int:
        """A hash by identity, so that what was found about a family can be kept."""

    @property
    def tasks(self) -> int:
        """M."""

    @property
    def constants(self) -> Constants:
        """See `Constants`."""

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Support loss of a sample."""

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """Query loss of a sample."""

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n independent samples of the episode of each task: tensors `M x n x ...`."""

    def meta_loss(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """F(x), from `... x d` to `...`."""

    def meta_gradient(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """grad F(x), from `... x d` to `... x d`."""

    def lowest(self, beta: float) -> Tensor | float:
        """A number certified to be at most inf F."""
