"""Tasks for a layer of tanh neurons with 2 to 4 parameters, and bounds that hold on all of their space.

The network is f(x; t) = sum_k v_k tanh(<a_k(t), x>) with fixed output weights v_k; which parameters are weights and
biases of which neuron is said by the vectors a_k(t) of an input t. A task has support and query samples (t, y); its
losses s and q are means of (f - y)^2. The objective has weight decay on the meta-parameters, as an optimizer has it:

    F(x) = (1/M) sum_m q_m(x - beta grad s_m(x)) + decay |x|^2,  of ERM with beta = 0.

tanh is bounded with its derivatives, so that |grad q| <= G and |Hess s| <= L1 everywhere. grad F = 0 then says 2 decay
|x| <= (1 + beta L1) G: all stationary points lie in a ball. Read next: `counts.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction as Q
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params

CURVATURE = Q(77, 100)
"""At least max |tanh''| = 4 / (3 sqrt 3)."""


SampleT = TypeVar("SampleT")
Halves = tuple[tuple[SampleT, ...], ...]
"""Samples by task."""


class Sample(NamedTuple):
    """One sample: the vectors a_k of its input, `K x d`, and its target."""

    vectors: tuple[tuple[Q, ...], ...]
    target: Q


def require_halves(support: Sequence[object], query: Sequence[object]) -> None:
    """Refuse samples by task that are not those of the same tasks.

    Raises:
        ValueError: There are no tasks, or as many of support samples as of query samples.
    """
    if len(support) != len(query) or not query:
        raise ValueError(f"each task has support and query samples, got {len(support)} and {len(query)} tasks")


def halves(
    sample: Callable[[], SampleT], *, tasks: int, samples: int, shared: bool
) -> tuple[Halves[SampleT], Halves[SampleT]]:
    """Support and query samples of random tasks; the query samples are drawn first, the same whether shared or not.

    Args:
        sample: Draws a sample.
        tasks: M.
        samples: Samples of each half of a task.
        shared: Whether the support samples are the query samples.

    Returns:
        Samples of the support losses and of the query losses.
    """
    query, other = (tuple(tuple(sample() for _ in range(samples)) for _ in range(tasks)) for _ in range(2))
    return query if shared else other, query


@dataclass(frozen=True)
class Neurons:
    """The tasks.

    Attributes:
        output: v_1, ..., v_K.
        support: Samples of each task's support loss.
        query: Samples of each task's query loss.
        decay: Factor of |x|^2, positive.
    """

    output: tuple[Q, ...]
    support: tuple[tuple[Sample, ...], ...]
    query: tuple[tuple[Sample, ...], ...]
    decay: Q

    def __post_init__(self) -> None:
        if self.decay <= 0:
            raise ValueError(f"decay must be positive, so that the objective grows on all sides, got {self.decay}")
        require_halves(self.support, self.query)

    @property
    def dim(self) -> int:
        """d."""
        return len(self.query[0][0].vectors[0])

    @property
    def L1(self) -> Q:  # noqa: N802
        """An upper bound of the operator norm of every Hess s_m, anywhere.

        Hess (f - y)^2 = 2 grad f grad f^T + 2 (f - y) Hess f, with |tanh'| <= 1. One neuron with v = 1 has both factors
        of u = tanh: (1 - u^2)(2 - 6 u^2) + 4 y u (1 - u^2) is at most 2 + 1.54 |y| in absolute value.
        """

        def of(sample: Sample) -> Q:
            norms = [sum((c * c for c in vector), Q(0)) for vector in sample.vectors]
            if self.output == (Q(1),):
                return (2 + Q(154, 100) * abs(sample.target)) * norms[0]
            size = sum(map(abs, self.output), Q(0))
            first = size * sum((abs(v) * norm for v, norm in zip(self.output, norms, strict=True)), Q(0))  # Jensen
            return 2 * first + 2 * (size + abs(sample.target)) * CURVATURE * first / size

        return max(sum(map(of, task), Q(0)) / len(task) for task in self.support)

    def reach(self, beta: Q) -> float:
        """A number that no coordinate of a stationary point exceeds in absolute value.

        Args:
            beta: beta_low, at least 0.
        """

        def slope(sample: Sample) -> float:
            size = float(sum(map(abs, self.output), Q(0)))
            lengths = [math.dist([float(c) for c in vector], [0.0] * self.dim) for vector in sample.vectors]
            first = sum(abs(float(v)) * length for v, length in zip(self.output, lengths, strict=True))
            return 2 * (size + abs(float(sample.target))) * first

        largest = max(sum(map(slope, task)) / len(task) for task in self.query)
        return 1.001 * (1 + float(beta * self.L1)) * largest / (2 * float(self.decay))

    @property
    def episodes(self) -> list[Episode]:
        """The tasks in float64; inputs: a_k, `n x K x d`; targets: `n`."""

        def half(samples: Sequence[Sample]) -> Batch:
            inputs = [[[float(c) for c in vector] for vector in sample.vectors] for sample in samples]
            targets = [float(sample.target) for sample in samples]
            return Batch(torch.tensor(inputs, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64))

        return [Episode(half(s), half(q)) for s, q in zip(self.support, self.query, strict=True)]

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The mean of (f - y)^2 on a batch, from `{"x": d}`, without the decay."""
        output = torch.tensor([float(v) for v in self.output], dtype=torch.float64)
        return ((batch.inputs @ params["x"]).tanh() @ output - batch.targets).square().mean()


class Shape(NamedTuple):
    """A network: its name, its output weights, and which parameters a neuron reads.

    Attributes:
        name: Name in tables.
        output: v_k.
        inputs: How many numbers an input has.
        reads: For each neuron the input that each parameter multiplies, `None` for a bias, -1 for no input.
        grid: Inputs are k / grid for k = -8, ..., 8.
        decay: Factor of |x|^2.
    """

    name: str
    output: tuple[Q, ...]
    inputs: int
    reads: tuple[tuple[int | None, ...], ...]
    grid: int
    decay: Q

    @property
    def dim(self) -> int:
        """d."""
        return len(self.reads[0])

    def draw(self, generator: random.Random, *, tasks: int, samples: int, shared: bool) -> Neurons:
        """Random tasks: inputs and targets uniform on their grids, targets k / 8 in [-1, 1].

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of each half of a task.
            shared: Whether the support samples are the query samples; the latter are the same either way.

        Returns:
            The tasks.
        """

        def sample() -> Sample:
            t = [Q(generator.randint(-8, 8), self.grid) for _ in range(self.inputs)]
            of: dict[int | None, Q] = {None: Q(1), -1: Q(0), **dict(enumerate(t))}
            return Sample(
                tuple(tuple(of[which] for which in reads) for reads in self.reads), Q(generator.randint(-8, 8), 8)
            )

        support, query = halves(sample, tasks=tasks, samples=samples, shared=shared)
        return Neurons(self.output, support, query, self.decay)

    def families(self, seed: int, count: int, *, tasks: int, samples: int, shared: bool) -> list[Neurons]:
        """Several families of random tasks; the i-th has the same query samples whatever else is asked.

        Args:
            seed: Seed of all of them.
            count: How many.
            tasks: See `draw`.
            samples: See `draw`.
            shared: See `draw`.

        Returns:
            The families.
        """
        generators = (random.Random(f"{seed} {self.name} {tasks} {i}") for i in range(count))
        return [self.draw(each, tasks=tasks, samples=samples, shared=shared) for each in generators]


_ONE, _TWO = (Q(1),), (Q(1), Q(-1, 2))
SHAPES = (
    Shape("one neuron, weight and bias", _ONE, 1, ((0, None),), 4, Q(1, 16)),
    Shape("two neurons, weights", _TWO, 1, ((0, -1), (-1, 0)), 4, Q(1, 16)),
    Shape("one neuron, two weights and bias", _ONE, 2, ((0, 1, None),), 8, Q(1, 8)),
    Shape("one neuron, three weights and bias", _ONE, 3, ((0, 1, 2, None),), 8, Q(1, 4)),
    Shape("two neurons, weights and biases", _TWO, 1, ((0, None, -1, -1), (-1, -1, 0, None)), 8, Q(1, 4)),
)
"""By number of parameters. The output weights of two neurons differ, so that no exchange of them is a symmetry."""
