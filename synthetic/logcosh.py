"""Log-cosh regression: tasks with real minibatches, whose every sample has the constants of smoothness.

Per task, on finite sets of samples (x_j, y_j) with |x_j| = 1, and parameters w (called x in `{"x": d}`):

    l_m(w) = mean over the support samples of log cosh(<w, x_j> - y_j), q_m(w) = the same over the query samples.

A minibatch shares its samples between a gradient and a Hessian, and its noise depends on w, unlike that of `wells.py`.
Derived here. Read next: `quadratic.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from sharp_maml import Batch, Episode, Params
from synthetic.family import Constants

PRECISE = 40.0
"""From here on softplus(t) = t in float64: the rest is exp(-t) < 5e-18."""


@dataclass(frozen=True, eq=False)
class LogCosh:
    """The family. A sample of a task is a minibatch, drawn with replacement from the task's data set.

    Attributes:
        support_inputs: `M x N x d`, of norm 1.
        support_targets: `M x N`.
        query_inputs: `M x N' x d`, of norm 1.
        query_targets: `M x N'`.
        batch: Size of a minibatch, >= 1.
    """

    support_inputs: Tensor
    support_targets: Tensor
    query_inputs: Tensor
    query_targets: Tensor
    batch: int

    @classmethod
    def planted(
        cls,
        generator: torch.Generator,
        *,
        tasks: int,
        dim: int,
        samples: int,
        batch: int,
        spread: float,
        noise: float = 0.1,
    ) -> LogCosh:
        """Random tasks: uniform inputs on the sphere, targets <w*_m, x_j> + noise.

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            dim: d.
            samples: Size of a support set and of a query set.
            batch: Size of a minibatch.
            spread: Root mean square of |w*_m|, where the w*_m are independent, normal and centred.
            noise: Standard deviation of the noise of a target.

        Returns:
            The family.
        """

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        planted = spread / math.sqrt(dim) * normal(tasks, dim)
        inputs = normalize(normal(2, tasks, samples, dim), dim=-1)
        targets = torch.einsum("hmjd,md->hmj", inputs, planted) + noise * normal(2, tasks, samples)
        return cls(inputs[0], targets[0], inputs[1], targets[1], batch)

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.support_inputs)

    @property
    def dim(self) -> int:
        """d."""
        return self.support_inputs.shape[2]

    @property
    def constants(self) -> Constants:
        """L0 = L1 = Lq = 1 and L2 = 4 / (3 sqrt 3) for every sample; sg^2, sH^2, sq^2 <= 1/batch.

        With r = <w, x_j> - y_j, t = tanh r and u = x_j, of norm 1, the derivatives of a sample are t u, (1 - t^2) u u^T
        and -2 t (1 - t^2) u u u; the last is largest at t = 1 / sqrt 3. The variance of a mean of independent samples
        is that of one / batch, which is at most its second moment (for Hessians in the Frobenius norm) / batch, and a
        second moment is at most 1.
        """
        deviation = 1 / math.sqrt(self.batch)
        return Constants(L0=1.0, L1=1.0, L2=4 / (3 * math.sqrt(3)), Lq=1.0, sg=deviation, sH=deviation, sq=deviation)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean over a minibatch; inputs: `batch x d`; targets: `batch`."""
        residuals = (batch.inputs * params["x"].unsqueeze(-2)).sum(-1) - batch.targets
        return _log_cosh(residuals).mean(-1)

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """Mean over a minibatch of the query set."""
        return self.loss(params, episode.query)

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n episodes of minibatches of each task, tensors `M x n x ...`; support and query sets are independent."""
        task = torch.arange(self.tasks)[:, None, None]

        def minibatches(inputs: Tensor, targets: Tensor) -> Batch:
            indices = torch.randint(inputs.shape[1], (self.tasks, n, self.batch), generator=generator)
            return Batch(inputs[task, indices], targets[task, indices])

        support = minibatches(self.support_inputs, self.support_targets)
        query = minibatches(self.query_inputs, self.query_targets)
        return Episode(support, query)

    def meta_loss(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """F(x) on the whole data sets, from `... x d` to `...`; beta is a number or of the shape of the result."""
        _, residuals = self._adapted(x, beta)
        return _log_cosh(residuals).mean(-1).mean(0)

    def meta_gradient(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """grad F(x) = (1/M) sum_m (v_m - beta H_m v_m), H_m = mean sech^2 r_j x_j x_j^T, v_m = mean tanh r'_j x'_j."""
        support_residuals, query_residuals = self._adapted(x, beta)
        v = _pulled_back(query_residuals.tanh(), self.query_inputs)
        curvatures = 1 - support_residuals.tanh() ** 2
        product = _pulled_back(curvatures * _along(v, self.support_inputs), self.support_inputs)
        return (v - _per_entry(beta) * product).mean(0)

    def lowest(self, beta: float) -> float:
        """Zero, since log cosh >= 0 whatever beta is: certified, not tight."""
        return 0.0

    def _adapted(self, x: Tensor, beta: Tensor | float) -> tuple[Tensor, Tensor]:
        """Support residuals at x and query residuals at T_m(x), `M x ... x N` and `M x ... x N'`."""
        everywhere = x.expand(self.tasks, *x.shape)
        residuals = _residuals(everywhere, self.support_inputs, self.support_targets)
        adapted = x - _per_entry(beta) * _pulled_back(residuals.tanh(), self.support_inputs)
        return residuals, _residuals(adapted, self.query_inputs, self.query_targets)


def _log_cosh(r: Tensor) -> Tensor:
    """log cosh r = r + softplus(-2 r) - log 2, which neither overflows nor has a kink for autograd, as |r| has at 0."""
    return r + softplus(-2 * r, threshold=PRECISE) - math.log(2)


def _per_entry(beta: Tensor | float) -> Tensor | float:
    return beta[..., None] if isinstance(beta, Tensor) else beta


def _along(x: Tensor, inputs: Tensor) -> Tensor:
    """<x_m, x_j>: `M x ... x d` to `M x ... x N`."""
    return torch.einsum("m...d,mjd->m...j", x, inputs)


def _residuals(x: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    return _along(x, inputs) - targets.view(len(targets), *[1] * (x.dim() - 2), -1)


def _pulled_back(weights: Tensor, inputs: Tensor) -> Tensor:
    """Mean over j of weight_j x_j: `M x ... x N` to `M x ... x d`."""
    return torch.einsum("m...j,mjd->m...d", weights, inputs) / inputs.shape[1]
