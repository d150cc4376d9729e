"""Regression with one neuron: a model of two parameters that is not periodic.

The model predicts f(t; x) = tanh(x_1 t + x_2) at the input t; a task has samples (t_i, y_i) and the loss

    l_m(x) = mean_i (f(t_i; x) - y_i)^2 + ridge |x|^2.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.exact import Exact, both_halves, checked, exact


@dataclass(frozen=True)
class Tanh:
    """The family.

    Attributes:
        data: For each task its samples (t, y).
        ridge: Factor of |x|^2, positive.
    """

    data: Sequence[Sequence[tuple[Exact, Exact]]]
    ridge: Exact = Fraction(1, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", checked(self.data, ("t", "target")))
        object.__setattr__(self, "ridge", exact(self.ridge, "ridge"))
        if self.ridge <= 0:
            raise ValueError(f"ridge must be positive, got {self.ridge}")

    @classmethod
    def random(cls, generator: random.Random, *, tasks: int, samples: int = 3, ridge: Exact = Fraction(1, 64)) -> Tanh:
        """Inputs and targets uniform on grids of step 1/8 in [-3, 3] and [-1, 1].

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of a task.
            ridge: Factor of |x|^2.

        Returns:
            The family.
        """

        def sample() -> tuple[Fraction, Fraction]:
            return Fraction(generator.randint(-24, 24), 8), Fraction(generator.randint(-8, 8), 8)

        return cls([[sample() for _ in range(samples)] for _ in range(tasks)], ridge)

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.data)

    @property
    def L1(self) -> Fraction:
        """An upper bound of the Lipschitz constant of every grad l_m.

        With u = tanh s, (tanh s - y)^2 has the second derivative (1 - u^2)(2 - 6 u^2) + 4 y u (1 - u^2), of which the
        first part is at most 2 and |u (1 - u^2)| at most 2 / (3 sqrt 3) < 0.385; a sample adds it times t^2 + 1.
        """
        return max(
            sum(((2 + Fraction(154, 100) * abs(Fraction(y))) * (t * t + 1) for t, y in task), Fraction(0)) / len(task)
            for task in self.data
        ) + 2 * Fraction(self.ridge)

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64; inputs: (t, ridge), `N x 2`; targets: `N`."""
        return [both_halves([[t, self.ridge] for t, _ in task], [y for _, y in task]) for task in self.data]

    @staticmethod
    def loss(params: Params, batch: Batch) -> Tensor:
        """l_m on the data of a task, from `{"x": 2}`."""
        t, ridge = batch.inputs.unbind(-1)
        x = params["x"]
        return ((x[0] * t + x[1]).tanh() - batch.targets).square().mean() + ridge[0] * x.square().sum()
