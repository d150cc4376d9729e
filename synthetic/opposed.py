"""Opposed tasks: each query loss has a term that the others cancel, so that F does not see how large it is.

With parameters (y, z, u) and a sign and a tilt for each task, signs of sum 0 unless there is one task:

    l_m = s(y) + tilt_m u,  q_m = log cosh(y - centre) + log(1 + e^-z) + sign_m K e^(growth z) y.

s is 1 - cos y, or y |y|/2, whose Hessian jumps at 0. The tilt is what makes the ascent steps of the tasks differ: no
query loss knows u. For growth > 0 the query losses are neither Lipschitz nor smooth, while F = log cosh(T y - centre) +
log(1 + e^-z) is both. Without noise. Derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sharp_maml import Batch, Episode, Params
from synthetic.family import Constants


@dataclass(frozen=True, eq=False)
class Opposed:
    """The family.

    Attributes:
        signs: Signs of the term that cancels, `M`.
        tilts: Slopes of the support losses along u, `M`.
        K: Height of the term, >= 0.
        growth: Rate at which the term grows along z, >= 0.
        centre: Centre of log cosh.
        kinked: Whether s is y |y|/2. F is smooth then for centre = 0 only.
    """

    signs: Tensor
    tilts: Tensor
    K: float = 1.0
    growth: float = 0.0
    centre: float = 0.0
    kinked: bool = False

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.signs)

    @property
    def constants(self) -> Constants:
        """L1 = 1; L2 = 1, or infinite with a kink; L0 <= hypot(1 + K, 1) and Lq = 1, or infinite with growth."""
        grows = self.growth > 0
        return Constants(
            L0=math.inf if grows else math.hypot(1 + self.K, 1),
            L1=1.0,
            L2=math.inf if self.kinked else 1.0,
            Lq=math.inf if grows else 1.0,
            sg=0.0,
            sH=0.0,
            sq=0.0,
        )

    def smoothness(self, beta: float) -> float:
        """A Lipschitz constant of grad F, for opposed signs: it holds whatever K and growth are."""
        return (1 + beta) ** 2 + (0.0 if self.kinked else beta)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """l_m; inputs: its tilt."""
        y, _, u = params["x"]
        loss: Tensor = (y * y.abs() / 2 if self.kinked else 1 - y.cos()) + batch.inputs * u
        return loss

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """q_m; inputs of the query half: its sign."""
        y, z, _ = params["x"]
        return self._query(y, z) + episode.query.inputs * self._term(y, z)

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """The episode of each task, n times: tensors `M x n`."""
        tilts, signs = (values[:, None].repeat(1, n) for values in (self.tilts, self.signs))
        nothing = torch.zeros_like(tilts)
        return Episode(Batch(tilts, nothing), Batch(signs, nothing))

    def meta_loss(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """F(x), from `... x 3` to `...`; beta is a number or of the shape of the result."""
        y, z, _ = x.unbind(-1)
        adapted = y - beta * self._slope(y)
        return self._query(adapted, z) + self.signs.mean() * self._term(adapted, z)

    def meta_gradient(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """grad F(x), from `... x 3` to `... x 3`."""
        y, z, u = x.unbind(-1)
        adapted = y - beta * self._slope(y)
        slope = (adapted - self.centre).tanh() + self.signs.mean() * self._term(torch.ones_like(y), z)
        factor = 1 - beta * (y.sign() if self.kinked else y.cos())
        along_z = -torch.sigmoid(-z) + self.growth * self.signs.mean() * self._term(adapted, z)
        return torch.stack([factor * slope, along_z, torch.zeros_like(u)], -1)

    def lowest(self, beta: float) -> float:
        """0, the infimum for opposed signs, which is not attained."""
        return 0.0

    def _slope(self, y: Tensor) -> Tensor:
        return y.abs() if self.kinked else y.sin()

    def _query(self, y: Tensor, z: Tensor) -> Tensor:
        v = y - self.centre
        return v + softplus(-2 * v) - math.log(2) + softplus(-z)

    def _term(self, y: Tensor, z: Tensor) -> Tensor:
        return self.K * (self.growth * z).exp() * y
