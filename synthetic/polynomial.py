"""Polynomial regression: tasks whose losses are polynomials of degree four at most.

A sample has an input (a, b) and a target y, the model with the parameter x predicts a x + b x^2, and a task has the
squared loss

    l_m(x) = mean_i (y_i - a_i x - b_i x^2)^2.

With b = 0 the task is linear regression and the loss a parabola; otherwise its derivative is not Lipschitz.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.exact import Exact, Quotient, both_halves, checked


@dataclass(frozen=True)
class PolynomialRegression:
    """The family.

    Attributes:
        data: For each task its samples (a, b, y): the coefficients of x and x^2, and the target.
    """

    data: Sequence[Sequence[tuple[Exact, Exact, Exact]]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", checked(self.data, ("a", "b", "target")))

    @classmethod
    def random(
        cls, generator: random.Random, *, tasks: int, samples: int = 2, common: Fraction | None = None
    ) -> PolynomialRegression:
        """Coefficients and targets -2, -3/2, ..., 2, uniformly; the first sample of a task has b != 0.

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of a task.
            common: A parameter that fits every sample exactly; the targets follow from it.

        Returns:
            The family.
        """

        def number() -> Fraction:
            return Fraction(generator.randint(-4, 4), 2)

        def sample(first: bool) -> tuple[Fraction, Fraction, Fraction]:
            a, b, y = number(), number(), number()
            if first and b == 0:
                b = Fraction(1, 2)
            return a, b, y if common is None else a * common + b * common**2

        return cls([[sample(i == 0) for i in range(samples)] for _ in range(tasks)])

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.data)

    @property
    def L1(self) -> Fraction:
        """2 max_m mean_i a_i^2, exactly; an error unless every b is 0, since otherwise l_m'' is not bounded."""
        if any(b for task in self.data for _, b, _ in task):
            raise ValueError("there is no L1: the losses are of degree four, and their second derivatives unbounded")
        return max(Fraction(2 * sum(a * a for a, _, _ in task), len(task)) for task in self.data)

    @property
    def losses(self) -> list[list[Quotient]]:
        """l_m as a sum of polynomials, for each task."""
        return [
            [
                (
                    tuple(Fraction(c, len(task)) for c in (y * y, -2 * a * y, a * a - 2 * b * y, 2 * a * b, b * b)),
                    (Fraction(1),),
                )
                for a, b, y in task
            ]
            for task in self.data
        ]

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64; inputs: (a, b), `N x 2`; targets: `N`."""
        return [both_halves([[a, b] for a, b, _ in task], [y for *_, y in task]) for task in self.data]

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """l_m on the data of a task, from `{"x": 1}`."""
        a, b = batch.inputs.unbind(-1)
        x = params["x"]
        return (batch.targets - a * x - b * x * x).square().mean()
