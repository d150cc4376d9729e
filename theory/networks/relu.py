"""Clarke stationary points of a two-parameter ReLU network, enumerated in fractions.

The network is f(x; t) = max(x_1 t + x_2, 0), a task has support and query samples (t, y), the losses are means of (f -
y)^2, and F(x) = (1/M) sum_m q_m(x - beta grad s_m(x)) + decay |x|^2. Where no support sample is at its kink, <a_i, x> =
0 with a = (t, 1), each T_m is affine near x, and F is there a continuous function made of quadratic pieces, one for
each set of query samples that are active at T_m(x). Such an x is stationary in Clarke's sense when 0 is in the convex
hull of the gradients of the pieces that meet in it. There are three kinds: smooth points inside a piece, at most one
each, which are minima because the decay makes every piece strictly convex; points on one query kink, where the
derivative along it is 0 and the two across it have opposite signs; and corners where kinks cross. All are linear
equations and signs.

At a support kink with a target that is not 0 grad s jumps, so that T and, where a query sample is active, F jump, too:
MAML's objective of a ReLU network is not continuous, and Clarke's definition does not apply there. Read next:
`claims/literal.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction as Q
from itertools import combinations, pairwise, product
from typing import Literal, NamedTuple

from theory.networks.neurons import halves, require_halves

Kind = Literal["smooth", "edge", "corner"]
Vector = tuple[Q, Q]


class Row(NamedTuple):
    """An affine function <a, x> + c of the plane."""

    a: Vector
    c: Q

    def at(self, x: Vector) -> Q:
        """Its value."""
        return self.a[0] * x[0] + self.a[1] * x[1] + self.c


class Clarke(NamedTuple):
    """A stationary point."""

    x: Vector
    kind: Kind


@dataclass(frozen=True)
class ReLU:
    """The tasks.

    Attributes:
        support: Samples (t, y) of each task's support loss.
        query: Samples of each task's query loss.
        decay: Factor of |x|^2, positive.
    """

    support: tuple[tuple[Vector, ...], ...]
    query: tuple[tuple[Vector, ...], ...]
    decay: Q = Q(1, 16)

    def __post_init__(self) -> None:
        if self.decay <= 0:
            raise ValueError(f"decay must be positive, so that pieces are strictly convex, got {self.decay}")
        require_halves(self.support, self.query)

    @property
    def L1(self) -> Q:  # noqa: N802
        """An upper bound of the Lipschitz constant of every grad s_m where it has one."""
        return max(sum((2 * (t * t + 1) for t, _ in task), Q(0)) / len(task) for task in self.support)

    @classmethod
    def random(cls, generator: random.Random, *, tasks: int, samples: int = 2, shared: bool = True) -> ReLU:
        """Inputs k/4 in [-2, 2] and targets k/8 in [-1, 1], never 0.

        Args:
            generator: Where all random numbers come from.
            tasks: M.
            samples: Samples of each half of a task.
            shared: Whether the support samples are the query samples; the latter are the same either way.

        Returns:
            The tasks.
        """

        def sample() -> Vector:
            return Q(generator.randint(-8, 8), 4), Q(generator.choice((-1, 1)) * generator.randint(1, 8), 8)

        return cls(*halves(sample, tasks=tasks, samples=samples, shared=shared))


def clarke(tasks: ReLU, beta: Q) -> tuple[Clarke, ...]:
    """All Clarke stationary points of F off the support kinks, each once.

    Args:
        tasks: The tasks.
        beta: beta_low, at least 0; 0 is ERM, which has no support kinks.

    Returns:
        The points.

    Raises:
        ValueError: A query sample is at its kink on an open set.
    """
    found: dict[Vector, Clarke] = {}
    for direction in _directions(tasks) if beta else [None]:
        signs = [[direction is not None and _on(t, direction) > 0 for t, _ in task] for task in tasks.support]
        rows = _rows(tasks, beta, signs)
        if any(not any((*row.a, row.c)) for row, _, _ in rows):
            raise ValueError("a query sample is at its kink wherever a set of support samples is active")

        def is_here(x: Vector, direction: Vector | None = direction) -> bool:
            return direction is None or all(
                _on(t, x) * _on(t, direction) > 0 for task in tasks.support for t, _ in task
            )

        for point in _points(rows, tasks.decay):
            if is_here(point.x):
                found[point.x] = point
    return tuple(found.values())


def _on(t: Q, x: Vector) -> Q:
    return x[0] * t + x[1]


def _directions(tasks: ReLU) -> Iterator[Vector]:
    """A direction inside each cone between support kinks, which are lines through the origin."""
    slopes = sorted({-t for task in tasks.support for t, _ in task})  # x_2 / x_1 on the kinks
    for below, above in pairwise(slopes):
        yield Q(1), (below + above) / 2
        yield Q(-1), -(below + above) / 2
    yield Q(0), Q(1)  # beyond the steepest kink on one side of this axis and the flattest on the other
    yield Q(0), Q(-1)


def _rows(tasks: ReLU, beta: Q, active: Sequence[Sequence[bool]]) -> list[tuple[Row, Q, Q]]:
    """What the query samples see of x through T, given which support samples are active: row, target and weight."""
    rows = []
    for support, query, on in zip(tasks.support, tasks.query, active, strict=True):
        # T(x) = x - beta (2/n) sum (<a, x> - y) a over the active samples
        matrix, shift = [[Q(1), Q(0)], [Q(0), Q(1)]], [Q(0), Q(0)]
        for (t, y), is_on in zip(support, on, strict=True):
            if is_on:
                a, factor = (t, Q(1)), 2 * beta / len(support)
                for i, j in product(range(2), repeat=2):
                    matrix[i][j] -= factor * a[i] * a[j]
                for i in range(2):
                    shift[i] += factor * y * a[i]
        for t, y in query:
            a = t * matrix[0][0] + matrix[1][0], t * matrix[0][1] + matrix[1][1]
            rows.append((Row(a, t * shift[0] + shift[1]), y, Q(1, len(query) * len(tasks.query))))
    return rows


def _points(rows: Sequence[tuple[Row, Q, Q]], decay: Q) -> Iterator[Clarke]:
    """The points of sum_j w_j (max(row_j, 0) - y_j)^2 + decay |x|^2 on the whole plane."""
    every = range(len(rows))

    def gradient(active: Sequence[int]) -> tuple[Row, Row]:
        """The two components, affine in x, of the piece in which these samples are active."""
        parts = []
        for i in range(2):
            a, c = [2 * decay * (i == 0), 2 * decay * (i == 1)], Q(0)
            for j in active:
                row, y, w = rows[j]
                factor = 2 * w * row.a[i]
                a = [a[0] + factor * row.a[0], a[1] + factor * row.a[1]]
                c += factor * (row.c - y)
            parts.append(Row((Q(a[0]), Q(a[1])), c))
        return parts[0], parts[1]

    def signs(x: Vector) -> tuple[list[int], list[int]]:
        """Which samples are active and which are at their kinks."""
        values = [row.at(x) for row, _, _ in rows]
        return [j for j in every if values[j] > 0], [j for j in every if values[j] == 0]

    def at_kinks(x: Vector) -> Iterator[Clarke]:
        """The point, if 0 is in the convex hull of the gradients of the pieces that meet in it."""
        active, at = signs(x)
        cones = _cones([rows[j][0].a for j in at])
        if _surrounded([_values(gradient([*active, *(at[i] for i in cone)]), x) for cone in cones]):
            yield Clarke(x, "edge" if len(cones) == 2 else "corner")

    for active in (which for n in range(len(rows) + 1) for which in combinations(every, n)):
        x = _meet(*gradient(active))  # never parallel: the piece is strictly convex
        if x is not None and signs(x) == (list(active), []):
            yield Clarke(x, "smooth")
        for j in (j for j in every if j not in active and any(rows[j][0].a)):
            # along the kink of j the derivative of all pieces that meet there is that of the one without j
            (p, q), row = gradient(active), rows[j][0]
            along = Row(
                (row.a[0] * q.a[0] - row.a[1] * p.a[0], row.a[0] * q.a[1] - row.a[1] * p.a[1]),
                row.a[0] * q.c - row.a[1] * p.c,
            )
            x = _meet(along, row)
            if x is not None and signs(x)[0] == list(active):
                yield from at_kinks(x)
    for i, j in combinations(every, 2):
        x = _meet(rows[i][0], rows[j][0])
        if x is not None:
            yield from at_kinks(x)


def _cones(vectors: Sequence[Vector]) -> set[tuple[int, ...]]:
    """The sets of vectors that are ahead, <v, d> > 0, for the directions d in which none is at 0.

    The directions at which one is at 0 are rays; the sum of two rays next to each other lies between them.
    """
    rays = [ray for a, b in vectors for ray in ((-b, a), (b, -a))]
    sums = [(u[0] + v[0], u[1] + v[1]) for u, v in combinations(rays, 2)]
    inner = [*sums, vectors[0], (-vectors[0][0], -vectors[0][1])]  # the last two for parallel vectors
    found = set()
    for d in inner:
        values = [v[0] * d[0] + v[1] * d[1] for v in vectors]
        if all(values):
            found.add(tuple(i for i, value in enumerate(values) if value > 0))
    return found


def _values(gradient: tuple[Row, Row], x: Vector) -> Vector:
    return gradient[0].at(x), gradient[1].at(x)


def _meet(one: Row, other: Row) -> Vector | None:
    """Where two affine functions are 0; None if they are parallel."""
    determinant = one.a[0] * other.a[1] - one.a[1] * other.a[0]
    if determinant == 0:
        return None
    return (
        (one.a[1] * other.c - other.a[1] * one.c) / determinant,
        (other.a[0] * one.c - one.a[0] * other.c) / determinant,
    )


def _surrounded(gradients: Sequence[Vector]) -> bool:
    """Whether 0 lies in the convex hull: no line through 0 has all of them strictly on one side.

    If there is such a line, it can be turned until it is next to one of the vectors: it is enough to try the vectors
    themselves, with the others strictly to the left or ahead.
    """
    if not all(map(any, gradients)):
        return True

    def ahead(u: Vector, v: Vector) -> bool:  # v within [0, 180) degrees to the left of u
        cross = u[0] * v[1] - u[1] * v[0]
        return cross > 0 or (cross == 0 and u[0] * v[0] + u[1] * v[1] > 0)

    return not any(all(ahead(u, v) for v in gradients) for u in gradients)
