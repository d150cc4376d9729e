"""Sine-phase regression: tasks whose losses are periodic in both parameters, so that they live on a torus.

The model with the phases x_1, x_2 predicts f(t; x) = sin(t + x_1) + b sin(2 t + x_2) at the input t; a task has
samples (t_i, y_i) and the loss l_m(x) = mean_i (f(t_i; x) - y_i)^2, a trigonometric polynomial

    l_m(x) = constant + sum_k (A_k cos <k, x> + B_k sin <k, x>), k in (2, 0), (0, 2), (1, -1), (1, 1), (1, 0), (0, 1).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from sharp_maml import Batch, Episode, Params
from synthetic.exact import Exact, both_halves, checked, exact

FREQUENCIES = ((2, 0), (0, 2), (1, -1), (1, 1), (1, 0), (0, 1))


@dataclass(frozen=True)
class Torus:
    """The family.

    Attributes:
        data: For each task its samples (t, y).
        second: b, the amplitude of the second sine.
    """

    data: Sequence[Sequence[tuple[Exact, Exact]]]
    second: Exact = Fraction(1, 2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", checked(self.data, ("t", "target")))
        object.__setattr__(self, "second", exact(self.second, "second"))

    @classmethod
    def random(cls, generator: random.Random, *, tasks: int, samples: int = 3) -> Torus:
        """Inputs and targets uniform on grids of step 1/8 in [-3, 3] and [-3/2, 3/2], b = 1/2.

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of a task.

        Returns:
            The family.
        """

        def sample() -> tuple[Fraction, Fraction]:
            return Fraction(generator.randint(-24, 24), 8), Fraction(generator.randint(-12, 12), 8)

        return cls([[sample() for _ in range(samples)] for _ in range(tasks)])

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.data)

    def amplitudes(
        self, number: Callable[[Exact], Any], cos: Callable[[Any], Any], sin: Callable[[Any], Any]
    ) -> list[list[tuple[Any, Any]]]:
        """(A_k, B_k) of each task, in the order of `FREQUENCIES`, in any arithmetic.

        Args:
            number: Makes a number of that arithmetic from an exact one.
            cos: Its cosine.
            sin: Its sine.

        Returns:
            Six pairs per task.
        """
        b = number(self.second)
        found = []
        for task in self.data:
            weight = number(Fraction(1, len(task)))
            sums = [[number(0), number(0)] for _ in FREQUENCIES]
            for t, y in task:
                # cos(u + c) = cos c cos u - sin c sin u, and sin(u + c) = sin c cos u + cos c sin u
                for pair, scale, shift in (
                    (0, -number(Fraction(1, 2)), 2 * t),
                    (1, -b * b * number(Fraction(1, 2)), 4 * t),
                    (2, b, -t),
                    (3, -b, 3 * t),
                ):
                    angle = number(shift)
                    sums[pair][0] += scale * cos(angle)
                    sums[pair][1] -= scale * sin(angle)
                for pair, scale, shift in ((4, -number(2 * y), t), (5, -number(2 * y) * b, 2 * t)):
                    angle = number(shift)
                    sums[pair][0] += scale * sin(angle)
                    sums[pair][1] += scale * cos(angle)
            found.append([(weight * a, weight * b_k) for a, b_k in sums])
        return found

    @property
    def L1(self) -> float:
        """An upper bound of the Lipschitz constant of every grad l_m: max_m sum_k |(A_k, B_k)| |k|^2, rounded up."""
        return max(
            1e-12 + sum(math.hypot(*pair) * (k[0] ** 2 + k[1] ** 2) for pair, k in zip(task, FREQUENCIES, strict=True))
            for task in self.amplitudes(float, math.cos, math.sin)
        )

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64; inputs: (t, b), `N x 2`; targets: `N`."""
        return [both_halves([[t, self.second] for t, _ in task], [y for _, y in task]) for task in self.data]

    @staticmethod
    def loss(params: Params, batch: Batch) -> Tensor:
        """l_m on the data of a task, from `{"x": 2}`."""
        t, b = batch.inputs.unbind(-1)
        x = params["x"]
        return ((t + x[0]).sin() + b * (2 * t + x[1]).sin() - batch.targets).square().mean()
