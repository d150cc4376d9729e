"""Wells: periodic tasks in d dimensions whose constants of smoothness are known and nearly attained.

Per task, with centres a_m and c_m, and u = x_i - c_mi in a sum over the d coordinates:

    l_m(x) = A sum_i (1 - cos(x_i - a_mi)),
    q_m(x) = B sum_i [(1 - cos u) + (K/4) (1 - cos(2 u + psi))].

psi != 0 and centres that are not balanced break the symmetries that would hide a bias. A rotation R, x -> R x in both
losses, makes the coordinates depend on each other and changes no constant. Several instances may run side by side: with
centres `M x S x d`, sample s of a draw belongs to instance s, and the last two dimensions of x are `S x d`, or `d` for
a point that all share. Derived here. Read next: `logcosh.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.family import Constants, linear_terms

GRID = 1024
"""Points a period on which the infimum is bracketed."""


@dataclass(frozen=True, eq=False)
class Wells:
    """The family. A sample adds to a support loss <zeta, x> and multiplies its A by 1 +- sA; to a query loss, <xi, x>.

    Attributes:
        support_centres: a, `M x d`, or `M x S x d` for S instances.
        query_centres: c, of the same shape.
        A: Height of the support wells, >= 0.
        B: Height of the query wells, >= 0.
        K: Weight of the second harmonic, >= 0.
        psi: Phase of the second harmonic.
        zeta: Standard deviation of the linear term of a support loss, sqrt(E |zeta|^2).
        sA: Relative standard deviation of A.
        xi: Standard deviation of the linear term of a query loss, sqrt(E |xi|^2).
        rotation: R, `d x d` orthogonal, or None.
        heavy: Which samples of a draw have linear terms of Student's t distribution with 5 degrees of freedom and the
            same standard deviations; None for normal ones.
    """

    support_centres: Tensor
    query_centres: Tensor
    A: float = 1.0
    B: float = 1.0
    K: float = 0.5
    psi: float = 0.7
    zeta: float = 0.0
    sA: float = 0.0
    xi: float = 0.0
    rotation: Tensor | None = None
    heavy: Tensor | None = None

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.support_centres)

    @property
    def dim(self) -> int:
        """d."""
        return self.support_centres.shape[-1]

    @property
    def constants(self) -> Constants:
        """L1 = L2 = A, Lq = B (1 + K), L0 = sqrt(d) B (1 + K/2); sg^2 = zeta^2 + d (A sA)^2, sH = A sA, sq = xi.

        L1 and L2 are attained, Lq where psi = 0, and L0 is only a bound, since both harmonics do not peak together; sg
        and sH are those at the worst x. They are constants of the expected losses: samples have A (1 + sA) for A.
        """
        return Constants(
            L0=math.sqrt(self.dim) * self.B * (1 + self.K / 2),
            L1=self.A,
            L2=self.A,
            Lq=self.B * (1 + self.K),
            sg=math.sqrt(self.zeta**2 + self.dim * (self.A * self.sA) ** 2),
            sH=self.A * self.sA,
            sq=self.xi,
        )

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """A sample of l_m; inputs: a_m and zeta, `2 x d`; targets: the sample's A, 0-dimensional."""
        centre, slope = batch.inputs.unbind(-2)
        x = params["x"]
        return batch.targets * (1 - (self._turn(x) - centre).cos()).sum(-1) + (slope * x).sum(-1)

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """A sample of q_m; inputs: c_m and xi, `2 x d`; targets: the sample's B, 0-dimensional."""
        centre, slope = episode.query.inputs.unbind(-2)
        x = params["x"]
        return episode.query.targets * self._well(self._turn(x) - centre).sum(-1) + (slope * x).sum(-1)

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n samples of the episode of each task: tensors `M x n x ...`."""
        zetas, xis = linear_terms(generator, tasks=self.tasks, n=n, dim=self.dim, heavy=self.heavy)
        centres = (c.view(self.tasks, -1, self.dim).expand_as(xis) for c in (self.support_centres, self.query_centres))
        signs = torch.randint(0, 2, (self.tasks, n), generator=generator, dtype=torch.float64) * 2 - 1
        heights = self.A * (1 + self.sA * signs)
        supports, queries = (
            torch.stack(pair, 2) for pair in zip(centres, (self.zeta * zetas, self.xi * xis), strict=True)
        )
        return Episode(Batch(supports, heights), Batch(queries, torch.full_like(heights, self.B)))

    def pointing(self, direction: Tensor) -> Episode:
        """An episode without wells whose gradients are `direction` (d); as ascent episode it fixes where eps points."""
        batch = Batch(torch.stack([torch.zeros_like(direction), direction]), torch.zeros((), dtype=torch.float64))
        return Episode(batch, batch)

    def meta_loss(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """F(x), from `... x d` to `...`; beta is a number or of the shape of the result."""
        _, u = self._adapted(self._turn(x), beta)
        return self.B * self._well(u).sum(-1).mean(0)

    def meta_gradient(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """grad F(x) = R^T (1/M) sum_m (1 - beta A cos(y - a_m)) q'(T_m(y) - c_m) at y = R x."""
        factor, u = self._adapted(self._turn(x), beta)
        gradient = (factor * self._slope(u)).mean(0)
        return gradient if self.rotation is None else gradient @ self.rotation

    def lowest(self, beta: float) -> Tensor:
        """A certified lower bound of inf F, 0-dimensional or of each instance.

        F is a sum of functions of one rotated coordinate each, whose second derivative is at most L. The minimum of one
        lies within half a step h of a point of the grid, where it is therefore at most L h^2 / 8 higher.
        """
        grid = torch.linspace(0, 2 * math.pi, GRID + 1, dtype=torch.float64)[:-1]
        each = self.support_centres.shape[1:]
        _, u = self._adapted(grid.view(-1, *[1] * len(each)).expand(-1, *each), beta)
        values = self.B * self._well(u).mean(0)
        kappa = 1 + beta * self.A
        one = kappa**2 * self.constants.Lq + beta * self.A * self.B * (1 + self.K / 2)  # L0 of one coordinate
        return (values.min(0).values - one * (2 * math.pi / GRID) ** 2 / 8).sum(-1)

    def _turn(self, x: Tensor) -> Tensor:
        return x if self.rotation is None else x @ self.rotation.T

    def _adapted(self, y: Tensor, beta: Tensor | float) -> tuple[Tensor, Tensor]:
        """1 - beta A cos(y - a_m) and T_m(y) - c_m, tasks first."""
        step = (beta[..., None] if isinstance(beta, Tensor) else beta) * self.A
        _, *each = self.support_centres.shape
        shape = (self.tasks, *[1] * (y.dim() - len(each)), *each)
        offset = y - self.support_centres.view(shape)
        return 1 - step * offset.cos(), y - step * offset.sin() - self.query_centres.view(shape)

    def _well(self, u: Tensor) -> Tensor:
        return (1 - u.cos()) + self.K / 4 * (1 - (2 * u + self.psi).cos())

    def _slope(self, u: Tensor) -> Tensor:
        return self.B * (u.sin() + self.K / 2 * (2 * u + self.psi).sin())
