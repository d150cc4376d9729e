"""Gradient and Hessian of ERM or MAML in the plane, in whatever arithmetic the numbers are of.

A task's loss is a sum of functions of one linear form each plus a ridge, l(x) = sum_j phi_j(<a_j, x>) + lambda |x|^2,
so that gradient, Hessian and third derivative are sums of phi', phi'', phi''' times powers of a_j. With T(x) = x -
beta grad l(x), J = I - beta H(x), the gradient of MAML is the mean of J grad l(T), and its Hessian the mean of J H(T)
J - beta D^3 l(x)[grad l(T)]; the code takes sums over the tasks, with the same zeros and signs. These formulas run
on intervals of float64, many boxes of many problems at a time (`boxes.py`), and on rigorous balls (`balls.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from flint import arb, fmpq
from numpy.typing import NDArray

from synthetic import FREQUENCIES, Exact, Tanh, Torus
from theory.lemma.intervals import Interval


class Number(Protocol):
    """What the formulas ask of a number: here `Interval` and Arb's `arb`. Both hold the exact result of every step."""

    def __add__(self, other: Self | float, /) -> Self:
        """The sum."""

    def __sub__(self, other: Self | float, /) -> Self:
        """The difference."""

    def __rsub__(self, other: float, /) -> Self:
        """The difference from a float."""

    def __mul__(self, other: Self | float, /) -> Self:
        """The product."""

    def __rmul__(self, other: float, /) -> Self:
        """The product with a float."""

    def __neg__(self) -> Self:
        """The negative."""

    def cos(self) -> Self:
        """The cosine."""

    def sin(self) -> Self:
        """The sine."""

    def tanh(self) -> Self:
        """The hyperbolic tangent."""

    def intersection(self, other: Self, /) -> Self:
        """What two enclosures of the same number have in common."""


N = TypeVar("N", bound=Number)
Pair = tuple[N, N]
Triple = tuple[N, N, N]
"""The entries 11, 12 and 22 of a symmetric matrix."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One function whose stationary points are looked for.

    Attributes:
        family: The tasks.
        beta: beta_low, exact; 0 is ERM.
        reach: Half the side of the square that is searched; None is the whole torus.
    """

    family: Torus | Tanh
    beta: Exact
    reach: Exact | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.beta, int | Fraction) or self.beta < 0:
            raise ValueError(f"beta must be an integer or a Fraction >= 0, got {self.beta!r}")
        if isinstance(self.family, Torus) != (self.reach is None):
            raise ValueError("a torus is searched as a whole, any other family in a square: give its reach")

    @property
    def half(self) -> float:
        """Half the side of the search square; on the torus, a little more than pi."""
        return 3.2 if self.reach is None else float(self.reach)


class Term(NamedTuple, Generic[N]):
    """One function phi(<a, x>) of a linear form.

    Attributes:
        a: The linear form.
        products: The entries of a a^T.
        shape: The two numbers that phi is made of.
    """

    a: Pair[N]
    products: Triple[N]
    shape: Pair[N]


def term(first: N, second: N, *shape: N) -> Term[N]:
    """The term with a = (first, second)."""
    one, other = shape
    return Term((first, second), (first * first, first * second, second * second), (one, other))


Local = list[tuple[Term[N], list[N]]]
"""The terms of a task, each with the first derivatives of phi at one place."""


@dataclass(frozen=True, eq=False)
class Field(Generic[N]):
    """M times the gradient of F, and its Hessian, at points or over boxes.

    Attributes:
        beta: beta_low.
        ridge: lambda.
        tasks: The terms of each task.
        phi: The first derivatives of phi, as many as asked for, at <a, x> and with the two numbers of the term.
    """

    beta: N
    ridge: N
    tasks: list[list[Term[N]]]
    phi: Callable[[int, N, N, N], list[N]]

    def gradient(self, x: Pair[N]) -> Pair[N]:
        """The gradient alone, which is much less work."""
        parts = []
        for terms in self.tasks:
            inner, j = self._step(self._local(terms, x, 2), x)
            parts.append(_turned(j, self._slope(self._local(terms, inner, 1), inner)))
        return _sum(part[0] for part in parts), _sum(part[1] for part in parts)

    def with_hessian(self, x: Pair[N], centre: Pair[N] | None = None) -> tuple[Pair[N], Triple[N]]:
        """The gradient and the Hessian.

        Args:
            x: A point or a box.
            centre: A point of the box. The inner step is then enclosed by its mean value form, too: over a small box
                the terms of l' that cancel, of which interval arithmetic knows nothing, cancel there.

        Returns:
            The gradient, and the Hessian.
        """
        gradients, hessians = [], []
        for terms in self.tasks:
            local = self._local(terms, x, 3)
            inner, j = self._step(local, x)
            # Both enclose T on the box: the mean value form is the narrower one on small boxes, the plain one on large.
            if centre is not None:
                at = self._slope(self._local(terms, centre, 1), centre)
                away = (x[0] - centre[0], x[1] - centre[1])
                inner = (
                    inner[0].intersection(centre[0] - self.beta * at[0] + j[0] * away[0] + j[1] * away[1]),
                    inner[1].intersection(centre[1] - self.beta * at[1] + j[1] * away[0] + j[2] * away[1]),
                )
            adapted = self._local(terms, inner, 2)
            v, w = self._slope(adapted, inner), self._curvature(adapted)
            gradients.append(_turned(j, v))
            # J H(T) J, and the third derivative in the direction v
            left = (
                w[0] * j[0] + w[1] * j[1],
                w[0] * j[1] + w[1] * j[2],
                w[1] * j[0] + w[2] * j[1],
                w[1] * j[1] + w[2] * j[2],
            )
            bend = self._third(local, v)
            hessians.append(
                (
                    j[0] * left[0] + j[1] * left[2] - self.beta * bend[0],
                    j[0] * left[1] + j[1] * left[3] - self.beta * bend[1],
                    j[1] * left[1] + j[2] * left[3] - self.beta * bend[2],
                )
            )
        return (
            (_sum(part[0] for part in gradients), _sum(part[1] for part in gradients)),
            (
                _sum(part[0] for part in hessians),
                _sum(part[1] for part in hessians),
                _sum(part[2] for part in hessians),
            ),
        )

    def _local(self, terms: Sequence[Term[N]], x: Pair[N], order: int) -> Local[N]:
        """The terms with the derivatives of their phi at x, up to an order."""
        return [(one, self.phi(order, one.a[0] * x[0] + one.a[1] * x[1], *one.shape)) for one in terms]

    def _step(self, local: Local[N], x: Pair[N]) -> tuple[Pair[N], Triple[N]]:
        """T(x) and J of a task."""
        g, h = self._slope(local, x), self._curvature(local)
        inner = (x[0] - self.beta * g[0], x[1] - self.beta * g[1])
        return inner, (1.0 - self.beta * h[0], -(self.beta * h[1]), 1.0 - self.beta * h[2])

    def _slope(self, local: Local[N], x: Pair[N]) -> Pair[N]:
        """The gradient of a task's loss."""
        return (
            _sum((one * a for ((a, _), *_), (one, *_) in local), 2.0 * self.ridge * x[0]),
            _sum((one * b for ((_, b), *_), (one, *_) in local), 2.0 * self.ridge * x[1]),
        )

    def _curvature(self, local: Local[N]) -> Triple[N]:
        """The Hessian of a task's loss."""
        return (
            _sum((two * aa for (_, (aa, _, _), _), (_, two, *_) in local), 2.0 * self.ridge),
            _sum((two * ab for (_, (_, ab, _), _), (_, two, *_) in local), 0.0 * self.ridge),
            _sum((two * bb for (_, (_, _, bb), _), (_, two, *_) in local), 2.0 * self.ridge),
        )

    def _third(self, local: Local[N], v: Pair[N]) -> Triple[N]:
        """The third derivative of a task's loss, applied to a direction."""
        sizes = [(one.products, three * (one.a[0] * v[0] + one.a[1] * v[1])) for one, (_, _, three) in local]
        return (
            _sum(size * aa for (aa, _, _), size in sizes),
            _sum(size * ab for (_, ab, _), size in sizes),
            _sum(size * bb for (_, _, bb), size in sizes),
        )


def _turned(j: Triple[N], v: Pair[N]) -> Pair[N]:
    return j[0] * v[0] + j[1] * v[1], j[1] * v[0] + j[2] * v[1]


def _sum(parts: Iterable[N], start: N | float = 0.0) -> N:
    total: Any = start
    for part in parts:
        total = part + total
    return total  # type: ignore[no-any-return]


def waves(order: int, s: N, a: N, b: N) -> list[N]:
    """Derivatives of a cos s + b sin s."""
    cos, sin = s.cos(), s.sin()
    slope = b * cos - a * sin
    if order == 1:
        return [slope]
    value = a * cos + b * sin
    return [slope, -value, -slope]


def neurons(order: int, s: N, y: N, weight: N) -> list[N]:
    """Derivatives of weight (tanh s - y)^2, as polynomials of u = tanh s."""
    u = s.tanh()
    # A product of intervals does not know that its factors are one number, and may be negative.
    square: N = u.square() if isinstance(u, Interval) else u * u  # type: ignore[assignment]
    rest = (1.0 - square) * weight
    found = [2.0 * (u - y) * rest]
    if order > 1:
        found.append(rest * (2.0 - 6.0 * square + 4.0 * (u * y)))
    if order > 2:
        found.append(rest * (4.0 * y - 16.0 * u - 12.0 * (y * square) + 24.0 * (u * square)))
    return found


def field(problem: Problem) -> Field[arb]:
    """The field of a problem in rigorous balls."""
    family, beta = problem.family, number(problem.beta)
    if isinstance(family, Torus):
        amplitudes = family.amplitudes(number, lambda angle: angle.cos(), lambda angle: angle.sin())
        tasks = [
            [term(number(k[0]), number(k[1]), a, b) for k, (a, b) in zip(FREQUENCIES, task, strict=True)]
            for task in amplitudes
        ]
        return Field(beta, number(0), tasks, waves)
    tasks = [
        [term(number(t), number(1), number(y), number(Fraction(1, len(task)))) for t, y in task] for task in family.data
    ]
    return Field(beta, number(family.ridge), tasks, neurons)


def number(value: Exact) -> arb:
    """A ball that holds an exact number."""
    value = Fraction(value)
    return arb(fmpq(value.numerator, value.denominator))


class Fields:
    """The fields of several problems on intervals of float64, for boxes each of which is one problem's.

    Args:
        fields: Fields with the same numbers of tasks and terms.
    """

    def __init__(self, fields: Sequence[Field[arb]]) -> None:
        self._phi: Callable[[int, Interval, Interval, Interval], list[Interval]] = (
            waves if fields[0].phi is waves else neurons
        )
        self._beta, self._ridge = (_around([getattr(one, name) for one in fields]) for name in ("beta", "ridge"))
        self._tasks = [
            [
                term(*(_around(list(balls)) for balls in zip(*((*one.a, *one.shape) for one in same), strict=True)))
                for same in zip(*of_task, strict=True)
            ]
            for of_task in zip(*(one.tasks for one in fields), strict=True)
        ]

    def of(self, who: NDArray[np.intp]) -> Field[Interval]:
        """The field that boxes see, of which `who` says whose each is: its numbers are arrays with an entry a box."""

        def own(value: Interval) -> Interval:
            # A number that all problems share is one number, and numpy's to spread.
            return value if len(value.low) == 1 else Interval(value.low[who], value.high[who])

        tasks = [
            [Term((own(a), own(b)), (own(aa), own(ab), own(bb)), (own(c), own(d)))
             for (a, b), (aa, ab, bb), (c, d) in terms]
            for terms in self._tasks
        ]  # fmt: skip
        return Field(own(self._beta), own(self._ridge), tasks, self._phi)


def _around(balls: Sequence[arb]) -> Interval:
    """One interval of float64 around each ball, or one for all where they are the same."""
    low = np.array([float(ball.lower()) for ball in balls])
    high = np.array([float(ball.upper()) for ball in balls])
    if np.ptp(low) == 0 == np.ptp(high):
        low, high = low[:1], high[:1]
    return Interval.around(low, high)
