"""Quadratic tasks: adaptation, meta-loss, meta-gradient and minimiser in closed form, an oracle for simulators.

Per task, with symmetric H_m and G_m >= 0 and centres a_m and c_m:

    l_m(x) = (x - a_m)^T H_m (x - a_m) / 2, q_m(x) = (x - c_m)^T G_m (x - c_m) / 2.

K inner steps are affine, x_K = a_m + P_m (x - a_m) with P_m = (I - beta H_m)^K. Derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.family import Constants, linear_terms


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The family. A sample adds <zeta, x> to a support loss and <xi, x> to a query loss.

    Attributes:
        support_matrices: H, `M x d x d`, symmetric and positive semidefinite.
        query_matrices: G, `M x d x d`, symmetric and positive semidefinite.
        support_centres: a, `M x d`.
        query_centres: c, `M x d`.
        zeta: Standard deviation of the linear term of a support loss, sqrt(E |zeta|^2).
        xi: Standard deviation of the linear term of a query loss, sqrt(E |xi|^2).
    """

    support_matrices: Tensor
    query_matrices: Tensor
    support_centres: Tensor
    query_centres: Tensor
    zeta: float = 0.0
    xi: float = 0.0

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.support_centres)

    @property
    def dim(self) -> int:
        """d."""
        return self.support_centres.shape[1]

    @property
    def constants(self) -> Constants:
        """L1 = max |H_m|, Lq = max |G_m| (operator norms), L2 = sH = 0, sg = zeta, sq = xi.

        L0 is infinite, since no quadratic is Lipschitz: a bound in which L2 L0 appears says nothing here.
        """
        return Constants(
            L0=math.inf,
            L1=_largest(self.support_matrices),
            L2=0.0,
            Lq=_largest(self.query_matrices),
            sg=self.zeta,
            sH=0.0,
            sq=self.xi,
        )

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """A sample of l_m; inputs: a_m and zeta, `2 x d`; targets: H_m, `d x d`."""
        centre, slope = batch.inputs.unbind(-2)
        x = params["x"]
        return _form(x - centre, batch.targets) + (slope * x).sum(-1)

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """A sample of q_m; inputs: c_m and xi, `2 x d`; targets: G_m, `d x d`."""
        return self.loss(params, episode.query)

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n samples of the episode of each task: tensors `M x n x ...`."""
        zetas, xis = linear_terms(generator, tasks=self.tasks, n=n, dim=self.dim)

        def samples(centres: Tensor, slopes: Tensor, matrices: Tensor) -> Batch:
            return Batch(
                torch.stack([centres[:, None].expand_as(slopes), slopes], 2), matrices[:, None].repeat(1, n, 1, 1)
            )

        return Episode(
            samples(self.support_centres, self.zeta * zetas, self.support_matrices),
            samples(self.query_centres, self.xi * xis, self.query_matrices),
        )

    def adapted(self, x: Tensor, beta: Tensor | float, *, steps: int = 1) -> Tensor:
        """x_K of every task, from `... x d` to `M x ... x d`; beta is a number or of the shape `...`."""
        return self._adapted(x, beta, steps)[1]

    def meta_loss(self, x: Tensor, beta: Tensor | float, *, steps: int = 1) -> Tensor:
        """F(x), from `... x d` to `...`; beta is a number or of the shape of the result."""
        _, adapted = self._adapted(x, beta, steps)
        return _form(adapted - _before(self.query_centres, x), _before(self.query_matrices, x)).mean(0)

    def meta_gradient(self, x: Tensor, beta: Tensor | float, *, steps: int = 1) -> Tensor:
        """grad F(x) = (1/M) sum_m P_m G_m (x_K - c_m)."""
        powers, adapted = self._adapted(x, beta, steps)
        offset = adapted - _before(self.query_centres, x)
        return _apply(powers, _apply(_before(self.query_matrices, x), offset)).mean(0)

    def minimiser(self, beta: float, *, steps: int = 1) -> Tensor:
        """The x with sum_m P_m G_m P_m x = sum_m P_m G_m (c_m - a_m + P_m a_m), `d`.

        Raises:
            ValueError: F has no unique minimiser: the matrix of the system is singular up to rounding.
        """
        powers = self._powers(beta, steps)
        matrix = (powers @ self.query_matrices @ powers).mean(0)
        target = self.query_centres - self.support_centres + _apply(powers, self.support_centres)
        smallest = float(torch.linalg.eigvalsh(matrix)[0])
        kappa = 1 + beta * self.constants.L1
        if smallest <= self.dim * torch.finfo(matrix.dtype).eps * kappa ** (2 * steps) * self.constants.Lq:
            raise ValueError(
                f"beta = {beta} with steps = {steps} leaves F without a unique minimiser: the smallest eigenvalue of "
                f"its Hessian is {smallest:.1e}; every direction must keep curvature in some task"
            )
        right = _apply(powers, _apply(self.query_matrices, target)).mean(0)
        minimiser: Tensor = torch.linalg.solve(matrix, right)
        return minimiser

    def lowest(self, beta: float, *, steps: int = 1) -> float:
        """F at its minimiser, which is inf F up to rounding; raises as `minimiser` does."""
        return float(self.meta_loss(self.minimiser(beta, steps=steps), beta, steps=steps))

    def _adapted(self, x: Tensor, beta: Tensor | float, steps: int) -> tuple[Tensor, Tensor]:
        """P_m and x_K, tasks first."""
        powers = self._powers(beta, steps, x.dim() - 1)
        centres = _before(self.support_centres, x)
        return powers, centres + _apply(powers, x - centres)

    def _powers(self, beta: Tensor | float, steps: int, leading: int = 0) -> Tensor:
        """P_m = (I - beta H_m)^K with `leading` dimensions between M and d x d, of size 1 where beta is a number."""
        scale = beta[..., None, None] if isinstance(beta, Tensor) else beta
        matrices = self.support_matrices.view(self.tasks, *[1] * leading, self.dim, self.dim)
        identity = torch.eye(self.dim, dtype=matrices.dtype)
        powers: Tensor = torch.linalg.matrix_power(identity - scale * matrices, steps)
        return powers


def _before(values: Tensor, x: Tensor) -> Tensor:
    """`M x d` or `M x d x d` with the leading dimensions of x, of size 1, after M."""
    return values.view(len(values), *[1] * (x.dim() - 1), *values.shape[1:])


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices * vectors.unsqueeze(-2)).sum(-1)


def _form(offset: Tensor, matrix: Tensor) -> Tensor:
    return (offset * _apply(matrix, offset)).sum(-1) / 2


def _largest(matrices: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrices, 2).max())
