"""Exact data: what the families have in common whose stationary points are counted over the rationals.

Every number of such a family is a `Fraction`, so that nothing is rounded before it is counted, and the same numbers
in float64 are episodes for the core. The query set of a task is its support set. Read next: `rational.py`,
`polynomial.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import torch

from sharp_maml import Batch, Episode, Params

Exact = Fraction | int
"""A number that nothing has rounded."""

Polynomial = tuple[Exact, ...]
"""Coefficients, the constant one first."""

Quotient = tuple[Polynomial, Polynomial]
"""Numerator and denominator of a rational function; the denominator is positive on the whole line."""


class ExactFamily(Protocol):
    """Tasks of one parameter, `{"x": 1}`, whose losses are rational functions of it."""

    def __hash__(self) -> int:
        """By its data, so that what was found about a family can be kept."""

    @property
    def tasks(self) -> int:
        """M."""

    @property
    def L1(self) -> Fraction:
        """Lipschitz constant of every l_m'; an error where there is none."""

    @property
    def losses(self) -> list[list[Quotient]]:
        """l_m as a sum of quotients, for each task."""

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64 for the core."""

    def loss(self, params: Params, batch: Batch) -> torch.Tensor:
        """l_m on the data of a task."""


def exact(value: object, name: str) -> Fraction:
    """A number of a family as a fraction.

    Args:
        value: An integer or a `Fraction`.
        name: What it is called in the error.

    Returns:
        The fraction.

    Raises:
        ValueError: It is something else; a float would be counted as the binary number that it is rounded to.
    """
    if isinstance(value, int | Fraction):
        return Fraction(value)
    raise ValueError(f"{name} must be an integer or a Fraction, got {value!r}: write Fraction('0.1') rather than 0.1")


def checked(
    tasks: Sequence[Sequence[Sequence[object]]], names: Sequence[str]
) -> tuple[tuple[tuple[Fraction, ...], ...], ...]:
    """Tasks, their samples, and the numbers of a sample, as fractions.

    Args:
        tasks: M tasks, at least one, each with at least one sample of as many numbers as there are names.
        names: What the numbers are called.

    Returns:
        The tasks as tuples.

    Raises:
        ValueError: A task or a sample is missing, a sample has another number of numbers, or one is not exact.
    """
    if not tasks or not all(len(task) for task in tasks):
        raise ValueError(f"at least one task with at least one sample each is needed, got {tasks!r}")
    for task in tasks:
        for sample in task:
            if len(sample) != len(names):
                raise ValueError(f"a sample must be ({', '.join(names)}), got {sample!r}")
    return tuple(
        tuple(tuple(exact(value, name) for value, name in zip(sample, names, strict=True)) for sample in task)
        for task in tasks
    )


def both_halves(inputs: Sequence[Sequence[Exact]], targets: Sequence[Exact]) -> Episode:
    """An episode whose support and query set are these data, in float64.

    Args:
        inputs: N rows.
        targets: N numbers.

    Returns:
        The episode; inputs `N x ...`, targets `N`.

    Raises:
        ValueError: A number is too large for float64.
    """
    try:
        rows = torch.tensor([[float(value) for value in row] for row in inputs], dtype=torch.float64)
        batch = Batch(rows, torch.tensor([float(value) for value in targets], dtype=torch.float64))
    except OverflowError as error:
        raise ValueError("a number of the task is too large for float64") from error
    return Episode(batch, batch)
