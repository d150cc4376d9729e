"""Certified counts in up to four dimensions: every zero of grad F of `neurons.py`, or what could not be decided.

Branch and prune on intervals of float64 rounded outwards, boxes of many instances at a time. grad F = 2 decay x + D(x),
so that a zero in a box lies in -D / (2 decay), too; and in Krawczyk's image of the box inflated by a tenth. A box is
cut down to both, dropped when nothing is left, and holds exactly one zero when the image lies inside. What is left at
the smallest width is undetermined, and never counted. A zero's index, the number of negative eigenvalues of the
Hessian, is that in the middle of its box if the Hessian varies by less than the smallest of them. Since F grows on all
sides, the signs (-1)^index must add up to 1. NumPy's tanh is trusted to 4e-15. Read next: `counts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.lemma.intervals import Array, Interval
from theory.networks.neurons import Neurons, Sample

SMALLEST = 1e-7
"""Width at which a box is given up as undetermined."""
MOST = 40_000
"""Boxes that one instance may be cut into."""
CHUNK = 20_000
"""Boxes that are worked on at once."""
INFLATION = 0.1
"""Share of its sides by which a box is made larger on both sides, so that a zero on its boundary is inside."""
FLAT = 1e-12
"""And by so much, for boxes that are flat because a coordinate of all zeros is 0."""
Owners = NDArray[np.intp]


class Problem(NamedTuple):
    """One function whose stationary points are looked for; beta is a float, and exact as such. 0 is ERM."""

    tasks: Neurons
    beta: float


def problems(families: Sequence[Neurons], ratio: Fraction) -> list[Problem]:
    """The tasks of each family with the float nearest to beta = ratio / L1."""
    return [Problem(family, float(ratio / family.L1)) for family in families]


@dataclass(frozen=True)
class Zero:
    """A stationary point: the only one in the box [low, high], and its index; None where that was not decided."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    index: int | None


@dataclass(frozen=True)
class Count:
    """What was found.

    Attributes:
        zeros: The stationary points, each once.
        undetermined: Boxes that were left, or other reasons why more could not be said; empty where nothing is open.
        boxes: How many boxes were looked at.
    """

    zeros: tuple[Zero, ...]
    undetermined: tuple[str, ...]
    boxes: int

    @property
    def certified(self) -> bool:
        """Nothing is undetermined, and the signs of the indices add up to 1."""
        signs = [(-1) ** zero.index for zero in self.zeros if zero.index is not None]
        return not self.undetermined and sum(signs) == 1

    @property
    def minima(self) -> int:
        """How many minima."""
        return sum(zero.index == 0 for zero in self.zeros)

    def is_near(self, point: Array, distance: float) -> bool:
        """Whether a box holds a point, or comes so near to it in each coordinate."""
        return any(
            np.all(np.array(zero.low) - distance <= point) and np.all(point <= np.array(zero.high) + distance)
            for zero in self.zeros
        )


def stationary(problems: Sequence[Problem]) -> list[Count]:
    """All stationary points of each function.

    Args:
        problems: Problems of one network, with the same numbers of tasks and samples: boxes are worked on together.

    Returns:
        A count per problem.

    Raises:
        ValueError: The problems differ in kind.
    """
    kinds = {(p.tasks.output, p.tasks.dim, len(p.tasks.query), len(p.tasks.query[0]), p.beta > 0) for p in problems}
    if len(kinds) != 1:
        raise ValueError(f"problems that are worked on together are all MAML or all ERM of one network, got {kinds}")
    gradients = Gradients(problems)
    reach = np.array([p.tasks.reach(Fraction(p.beta)) for p in problems])
    low, high = -np.tile(reach, (gradients.dim, 1)), np.tile(reach, (gradients.dim, 1))
    who = np.arange(len(problems))
    found: list[list[tuple[Array, Array]]] = [[] for _ in problems]
    reasons: list[list[str]] = [[] for _ in problems]
    seen = np.zeros(len(problems), int)
    while len(who):
        seen += np.bincount(who, minlength=len(problems))
        for i in np.flatnonzero(seen > MOST):
            if (who == i).any():
                reasons[i].append(f"{(who == i).sum()} boxes after {MOST}, of {reach[i]:.3g} around 0")
        goes_on = seen[who] <= MOST
        low, high, who = low[:, goes_on], high[:, goes_on], who[goes_on]
        left = []
        for start in range(0, len(who), CHUNK):
            part = slice(start, start + CHUNK)
            one, *rest = step(gradients, low[:, part], high[:, part], who[part])
            left.append(rest)
            for box_low, box_high, owner in one:
                found[owner].append((box_low, box_high))
        if not left:
            break
        low, high, axis, who = (np.concatenate(parts, -1) for parts in zip(*left, strict=True))
        small = (high - low).max(0) < SMALLEST
        for i in np.flatnonzero(small):
            reasons[who[i]].append(f"a box around ({', '.join(f'{x:.6g}' for x in low[:, i])})")
        low, high, who = cut(low[:, ~small], high[:, ~small], axis[~small], who[~small])
    return [finish(gradients, i, found[i], reasons[i], int(seen[i])) for i in range(len(problems))]


class Gradients:
    """Gradient and Hessian on boxes of many problems.

    Attributes:
        dim: d.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0].tasks
        self.dim, self.samples = first.dim, len(first.query[0])
        self.output = [float(v) for v in first.output]
        self.beta = np.array([p.beta for p in problems])
        self.decay = np.array([float(p.tasks.decay) for p in problems])
        self.is_erm = not self.beta.any()
        halves = ("query",) if self.is_erm else ("support", "query")
        self.tasks = [
            tuple(_gathered([getattr(p.tasks, half)[m] for p in problems]) for half in halves)
            for m in range(len(first.query))
        ]

    def at(self, x: Interval, who: Owners, centre: Interval | None = None) -> tuple[Interval, Interval]:
        """D and its derivative, `d x N` and `d x d x N`, on N boxes.

        Args:
            x: The boxes, `d x N`.
            who: The problem that each box is of.
            centre: Points of the boxes, to enclose the inner step by its mean value form.
        """
        beta, identity = Interval.point(self.beta[who]), Interval.point(np.eye(self.dim)[:, :, None])
        gradients, hessians = [], []
        for halves in self.tasks:
            *support, query = ([(a[..., who], y[who]) for a, y in half] for half in halves)
            if self.is_erm:
                g, h, _ = self._loss(query, x)
            else:
                slope, bend, third = self._loss(support[0], x)
                J = identity - beta * bend
                inner = x - beta * slope
                if centre is not None:
                    there, _, _ = self._loss(support[0], centre)
                    inner = inner.intersection(centre - beta * there + _times(J, x - centre))
                v, w, _ = self._loss(query, inner)
                g, h = _times(J, v), _product(_product(J, w), J) - beta * third(v)
            gradients.append(g)
            hessians.append(h)
        share = _around(1 / len(self.tasks))
        return reduce(add, gradients) * share, reduce(add, hessians) * share

    def _loss(self, samples: Sequence[tuple[Array, Array]], x: Interval) -> tuple[Interval, Interval, Any]:
        """Gradient, Hessian and the third derivative, a function of a direction, of one loss."""
        g, h, thirds = [], [], []
        share = _around(2 / self.samples)
        for a, y in samples:
            vectors = [Interval.point(of_neuron) for of_neuron in a]
            u = [_dot(vector, x).tanh() for vector in vectors]
            slopes = [(1.0 - one.square()) * v for one, v in zip(u, self.output, strict=True)]
            error = reduce(add, [one * v for one, v in zip(u, self.output, strict=True)]) - Interval.point(y)
            squares = [_outer(vector, vector) for vector in vectors]
            first = reduce(add, [slope * vector for slope, vector in zip(slopes, vectors, strict=True)])
            second = reduce(add, [u_k * s * -2.0 * aa for u_k, s, aa in zip(u, slopes, squares, strict=True)])
            g.append(error * first)
            h.append(_outer(first, first) + error * second)
            thirds.append((u, slopes, error, vectors, squares, first, second))

        def third(v: Interval) -> Interval:
            total = []
            for u, slopes, error, vectors, squares, first, second in thirds:
                along = [
                    s * (6.0 * one.square() - 2.0) * _dot(vector, v) * aa
                    for one, s, vector, aa in zip(u, slopes, vectors, squares, strict=True)
                ]
                mixed = _outer(first, _times(second, v))
                total.append(_dot(first, v) * second + mixed + _transposed(mixed) + error * reduce(add, along))
            return reduce(add, total) * share

        return reduce(add, g) * share, reduce(add, h) * share, third


def step(
    gradients: Gradients, low: Array, high: Array, who: Owners
) -> tuple[list[tuple[Array, Array, int]], Array, Array, Owners, Owners]:
    """Boxes that hold exactly one zero each, with their owners; and what is left of the others.

    What is left is given by its ends, the side across which to cut, on which the gradient depends most, and its owners.
    """
    margin = INFLATION * (high - low) + FLAT
    x = Interval(low - margin, high + margin)
    image, unique, bend = krawczyk(gradients, x, who)
    rest = x.intersection(image)
    # a zero lies in the box, in -D / (2 decay) and in Krawczyk's image
    low, high = np.maximum(low, rest.low), np.minimum(high, rest.high)
    alive = (low <= high).all(0)
    found = [(rest.low[:, i], rest.high[:, i], int(who[i])) for i in np.flatnonzero(unique)]
    left = alive & ~unique
    effect = np.maximum(-bend.low, bend.high).sum(1)
    return found, low[:, left], high[:, left], ((high - low) * effect)[:, left].argmax(0), who[left]


def krawczyk(gradients: Gradients, x: Interval, who: Owners) -> tuple[Interval, NDArray[np.bool_], Interval]:
    """Enclosures of the zeros in boxes, which boxes hold exactly one, and the derivative of D on them.

    The image is c - Y G(c) + (I - Y H)(x - c), Y about the inverse of the Hessian's middle, and the identity where
    that is singular; it is met with -D(x) / (2 decay).
    """
    centre, identity = Interval.point(x.middle), Interval.point(np.eye(gradients.dim)[:, :, None])
    decay = Interval.point(2 * gradients.decay[who])
    wide, bend = gradients.at(x, who, centre)
    at, _ = gradients.at(centre, who)
    away, hessian = x - centre, bend + decay * identity
    middle = np.moveaxis(hessian.middle, -1, 0)
    good = np.abs(np.linalg.det(middle)) > 1e-12
    inverse = np.tile(np.eye(gradients.dim), (len(who), 1, 1))
    inverse[good] = np.linalg.inv(middle[good])
    Y = Interval.point(np.moveaxis(inverse, 0, -1))
    residue = identity - _product(Y, hessian)
    image = centre - _times(Y, at + decay * centre) + _times(residue, away)
    data = wide.intersection(at + _times(bend, away))
    return (
        image.intersection(-(data * Interval.around(1 / decay.low, 1 / decay.low))),
        np.all(image.inside(x), axis=0),
        bend,
    )


def cut(low: Array, high: Array, axis: Owners, who: Owners) -> tuple[Array, Array, Owners]:
    """Each box in two, across a side."""
    every = np.arange(low.shape[1])
    left, right = high.copy(), low.copy()
    left[axis, every] = right[axis, every] = low[axis, every] / 2 + high[axis, every] / 2
    return np.concatenate([low, right], 1), np.concatenate([left, high], 1), np.concatenate([who, who])


def finish(
    gradients: Gradients, owner: int, boxes: Sequence[tuple[Array, Array]], reasons: Sequence[str], seen: int
) -> Count:
    """Each zero once, in a box as small as floats allow, with its index."""
    left, zeros = list(reasons), list[Interval]()
    for low, high in boxes:
        zero = refined(gradients, Interval(low, high), owner)
        again = [other for other in zeros if _overlap(zero, other)]
        if not again:
            zeros.append(zero)
        elif not any(is_one(gradients, zero, other, owner) for other in again):
            left.append(f"two zeros that may be one near ({', '.join(f'{x:.6g}' for x in zero.middle)})")
    return Count(tuple(Zero(tuple(x.low), tuple(x.high), index(gradients, x, owner)) for x in zeros), tuple(left), seen)


def refined(gradients: Gradients, box: Interval, owner: int) -> Interval:
    """The box of one zero, cut down to its Krawczyk image until that is no smaller."""
    while True:
        image, _, _ = krawczyk(gradients, Interval(box.low[:, None], box.high[:, None]), np.array([owner]))
        smaller = box.intersection(Interval(image.low[:, 0], image.high[:, 0]))
        if smaller.width.max() >= 0.99 * box.width.max():
            return smaller
        box = smaller


def is_one(gradients: Gradients, one: Interval, other: Interval, owner: int) -> bool:
    """A proof that two overlapping boxes hold the same zero: their hull, widened, holds exactly one."""
    low, high = np.minimum(one.low, other.low), np.maximum(one.high, other.high)
    margin = (high - low).max() + 1e-12
    hull = Interval((low - margin)[:, None], (high + margin)[:, None])
    return bool(krawczyk(gradients, hull, np.array([owner]))[1][0])


def index(gradients: Gradients, box: Interval, owner: int) -> int | None:
    """The number of negative eigenvalues of Hess F on a box, None where it is not the same or not known.

    Weyl: eigenvalues move by no more than the largest row sum of what is added. That sum, of the half-widths, is
    widened for the errors of the eigenvalues of the middle.
    """
    _, bend = gradients.at(Interval(box.low[:, None], box.high[:, None]), np.array([owner]))
    hessian = bend + Interval.point(2 * gradients.decay[[owner]]) * Interval.point(np.eye(gradients.dim)[:, :, None])
    middle = (hessian.middle[..., 0] + hessian.middle[..., 0].T) / 2
    reach = np.maximum(hessian.high[..., 0] - middle, middle - hessian.low[..., 0]).sum(1).max()
    values = np.linalg.eigvalsh(middle)
    room = 1.001 * reach + 1e-12 * (1 + np.abs(values).max())
    return int((values < 0).sum()) if np.abs(values).min() > room else None


def _overlap(one: Interval, other: Interval) -> bool:
    return bool((np.maximum(one.low, other.low) <= np.minimum(one.high, other.high)).all())


def _around(value: float) -> Interval:
    """An interval around a quotient of two integers."""
    return Interval.around(np.array(value), np.array(value))


def _gathered(of_problems: Sequence[Sequence[Sample]]) -> list[tuple[Array, Array]]:
    """The samples of many problems: vectors, `K x d x P`, and targets, `P`; dyadic, so that floats are exact."""
    found = []
    for samples in zip(*of_problems, strict=True):
        vectors = np.array([[list(map(float, vector)) for vector in sample.vectors] for sample in samples])
        found.append((np.moveaxis(vectors, 0, -1), np.array([float(sample.target) for sample in samples])))
    return found


def _part(of: Interval, where: Any) -> Interval:
    return Interval(of.low[where], of.high[where])


def _total(of: Interval) -> Interval:
    """The sum along the first axis."""
    return reduce(add, [_part(of, i) for i in range(len(of.low))])


def _dot(a: Interval, b: Interval) -> Interval:
    return _total(a * b)


def _outer(a: Interval, b: Interval) -> Interval:
    return _part(a, np.s_[:, None]) * _part(b, np.s_[None])


def _times(matrix: Interval, vector: Interval) -> Interval:
    """Matrices `d x d x N` times vectors `d x N`."""
    return _total(_transposed(matrix) * _part(vector, np.s_[:, None]))


def _product(a: Interval, b: Interval) -> Interval:
    """Matrices `d x d x N` times matrices."""
    return _total(_part(_transposed(a), np.s_[:, :, None]) * _part(b, np.s_[:, None]))


def _transposed(matrix: Interval) -> Interval:
    return Interval(np.swapaxes(matrix.low, 0, 1), np.swapaxes(matrix.high, 0, 1))
