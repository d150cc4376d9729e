"""Robust regression: tasks whose losses are rational functions with bounded derivatives.

The model predicts the number x whatever the input is; a task has targets y_i with weights w_i and the loss of Geman and
McClure, with weight decay h where it is asked for,

    l_m(x) = (h/2) x^2 + sum_i w_i rho(x - y_i), rho(u) = u^2 / (1 + u^2), sup |rho''| = rho''(0) = 2.

A negative weight pushes the parameter away from its target.

Source of rho: Geman and McClure, Statistical methods for tomographic image reconstruction, 1987.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.exact import Exact, Quotient, both_halves, checked, exact


@dataclass(frozen=True)
class Rational:
    """The family.

    Attributes:
        data: For each task its samples (w, y): weight, not zero, and target.
        decay: h, at least 0.
    """

    data: Sequence[Sequence[tuple[Exact, Exact]]]
    decay: Exact = 0

    def __post_init__(self) -> None:
        data = checked(self.data, ("weight", "target"))
        if any(weight == 0 for task in data for weight, _ in task):
            raise ValueError(f"weights must not be 0, got {data}")
        if exact(self.decay, "decay") < 0:
            raise ValueError(f"decay must be at least 0, got {self.decay}")
        object.__setattr__(self, "data", data)

    @classmethod
    def random(cls, generator: random.Random, *, tasks: int, samples: int = 1) -> Rational:
        """Weights 1/4, 2/4, ..., 2 and targets -3, -3 + 1/8, ..., 3, uniformly.

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of a task.

        Returns:
            The family.
        """

        def sample() -> tuple[Fraction, Fraction]:
            return Fraction(generator.randint(1, 8), 4), Fraction(generator.randint(-24, 24), 8)

        return cls([[sample() for _ in range(samples)] for _ in range(tasks)])

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.data)

    @property
    def L1(self) -> Fraction:
        """h + 2 max_m sum_i |w_i|: exact where that task has one target and a positive weight, else an upper bound."""
        return Fraction(self.decay) + max(2 * sum(abs(Fraction(w)) for w, _ in task) for task in self.data)

    @property
    def losses(self) -> list[list[Quotient]]:
        """l_m as a sum of w u^2 / (1 + u^2), and of h x^2 / 2 where h is not 0, for each task."""
        decay: list[Quotient] = [((0, 0, Fraction(self.decay, 2)), (1,))] if self.decay else []
        return [
            [*decay, *(((w * y * y, -2 * w * y, w), (1 + y * y, -2 * y, 1)) for w, y in task)] for task in self.data
        ]

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64; inputs: weights, `N x 1`; targets: `N`."""
        return [both_halves([[w] for w, _ in task], [y for _, y in task]) for task in self.data]

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """l_m on the data of a task, from `{"x": 1}`."""
        square = (params["x"] - batch.targets).square()
        loss = (batch.inputs[:, 0] * square / (1 + square)).sum()
        return loss + float(self.decay) / 2 * params["x"].square().sum() if self.decay else loss
