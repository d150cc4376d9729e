"""Bounded location tasks: losses in [0, 1] on Gaussian data, with the risk of a parameter in closed form.

A task has the distribution N(mu_m, sigma^2 I) of samples z in R^d, and the loss of Welsch,

    l(x; z) = 1 - exp(-|x - z|^2 / 2), E_z l(x; z) = 1 - (1 + sigma^2)^(-d/2) exp(-|x - mu_m|^2 / (2 (1 + sigma^2))).

It takes one inner step on a support set, x - beta (1/n) sum_i grad l(x; z_i), and the risk of the result. Tasks are
fixed, or drawn themselves, mu_m ~ N(0, tau^2 I). Source of the loss: Dennis and Welsch, Communications in Statistics
B, 1978.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params


@dataclass(frozen=True, eq=False)
class Welsch:
    """The family.

    Attributes:
        centres: mu_m, `M x d`, or `R x M x d` where each of R data sets has tasks of its own.
        sigma: Standard deviation of a coordinate of a sample, >= 0.
    """

    centres: Tensor
    sigma: float

    L0 = math.exp(-0.5)
    """Lipschitz constant of l: |grad l| = r exp(-r^2/2) is largest at r = 1."""
    L1 = 1.0
    """Lipschitz constant of grad l, attained at r = 0."""
    L2 = math.sqrt(18 - 6 * math.sqrt(6)) * math.exp(-(3 - math.sqrt(6)) / 2)
    """Lipschitz constant of the Hessian: the largest |r (3 - r^2) exp(-r^2/2)|, at r^2 = 3 - sqrt 6."""

    def __post_init__(self) -> None:
        if self.centres.dim() not in (2, 3) or not self.tasks or not bool(self.centres.isfinite().all()):
            raise ValueError(f"centres must be M x d or R x M x d, and finite, got shape {tuple(self.centres.shape)}")
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma must be at least 0 and finite, got {self.sigma}")

    @classmethod
    def drawn(cls, generator: torch.Generator, *each: int, tasks: int, dim: int, tau: float, sigma: float) -> Welsch:
        """Random tasks, mu_m ~ N(0, tau^2 I).

        Args:
            generator: Where all random numbers come from.
            each: R, for tasks of their own for each of R data sets.
            tasks: M.
            dim: d.
            tau: Standard deviation of a coordinate of a centre.
            sigma: Standard deviation of a coordinate of a sample around its centre.

        Returns:
            The family.
        """
        return cls(tau * torch.randn((*each, tasks, dim), generator=generator, dtype=torch.float64), sigma)

    @property
    def tasks(self) -> int:
        """M."""
        return self.centres.shape[-2]

    @property
    def dim(self) -> int:
        """d."""
        return self.centres.shape[-1]

    def draw(self, generator: torch.Generator, n: int, repeats: int = 1) -> Tensor:
        """n samples of every task: `R x M x n x d`, R data sets with tasks of their own or `repeats` with the same.

        In memory a coordinate of all samples lies together, since d is small: sums over d are then of whole vectors.
        """
        centres = self.centres if self.centres.dim() == 3 else self.centres.expand(repeats, -1, -1)
        noise = torch.randn((*centres.shape[:2], self.dim, n), generator=generator, dtype=torch.float64)
        return centres[:, :, None] + self.sigma * noise.mT

    @staticmethod
    def episodes(support: Tensor, query: Tensor) -> Episode:
        """Samples of all tasks, two of `M x n x d`, as one episode with the tasks first; the targets are empty."""
        return Episode(*(Batch(samples, samples[..., :0]) for samples in (support, query)))

    @staticmethod
    def loss(params: Params, batch: Batch) -> Tensor:
        """Mean of l over the samples of a batch, `n x d`, from `{"x": d}`."""
        return -torch.expm1(-(params["x"] - batch.inputs).square().sum(-1) / 2).mean()

    @staticmethod
    def risk(x: Tensor, samples: Tensor) -> Tensor:
        """Mean of l over samples, from `... x d` and `... x n x d` to `...`."""
        return -torch.expm1(-(x[..., None, :] - samples).square().sum(-1) / 2).mean(-1)

    @staticmethod
    def adapted(x: Tensor, support: Tensor, beta: float) -> Tensor:
        """One inner step in closed form, from `... x d` and `... x n x d` to `... x d`."""
        away = x[..., None, :] - support
        return x - beta * (away * (-away.square().sum(-1, keepdim=True) / 2).exp()).mean(-2)

    def task_risk(self, x: Tensor) -> Tensor:
        """E_z l(x; z) of each task, exactly, from `... x M x d` to `... x M`."""
        wider = 1 + self.sigma**2
        square = (x - self.centres).square().sum(-1)
        return 1 - float(wider ** (-self.dim / 2)) * (-square / (2 * wider)).exp()

    def population(self, x: Tensor, supports: Tensor, beta: float) -> Tensor:
        """Risk after one inner step, averaged over tasks and support sets; exact but for the choice of the sets.

        Args:
            x: Parameters, `... x d`; `R x d` for R data sets with tasks of their own.
            supports: K support sets of every task, `K x M x n x d` or `K x R x M x n x d`.
            beta: Inner step size.

        Returns:
            The mean over sets and tasks, `...`; the sets bring an error of the standard deviation of the risk over them
            divided by sqrt(K M).
        """
        total = torch.zeros(x.shape[:-1], dtype=x.dtype)
        for support in supports:
            total = total + self.task_risk(self.adapted(x[..., None, :], support, beta)).mean(-1)
        return total / len(supports)
