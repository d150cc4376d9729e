"""Exact counts on the line: derivatives of ERM and MAML as rational functions over Q, and all of their real roots.

No decision is taken in floating point: roots are isolated by rational numbers, and a stationary point is a minimum, a
maximum or flat by the exact signs of the derivative on its two sides. Two engines that share nothing but the
polynomial do this, `stationary_points` (Descartes' rule of signs) and `sturm_points` (Sturm sequences): see `roots.py`.

Notation: l_m is the loss of task m on support and query set alike, T_m(x) = x - beta l_m'(x), R = (1/M) sum_m l_m is
ERM and F = (1/M) sum_m l_m(T_m) is MAML. Read next: `claims/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import accumulate, pairwise, repeat
from operator import mul
from typing import Literal, NamedTuple

from flint import fmpq, fmpq_poly

from synthetic import Exact, ExactFamily
from theory.lemma.roots import changes, real_roots, sign, square_free, sturm_sequence

Kind = Literal["minimum", "maximum", "flat"]


class Point(NamedTuple):
    """A stationary point: the only one in [low, high], and whether the derivative changes sign there."""

    low: Fraction
    high: Fraction
    kind: Kind

    @property
    def value(self) -> float:
        """The middle of the enclosure."""
        return float((self.low + self.high) / 2)


@dataclass(frozen=True)
class Quotient:
    """A rational function over Q in lowest terms. Sums, differences, products, derivative and composition are exact."""

    numerator: fmpq_poly
    denominator: fmpq_poly

    @classmethod
    def of(cls, numerator: fmpq_poly, denominator: fmpq_poly | None = None) -> Quotient:
        """The quotient of two polynomials in lowest terms, the leading coefficient of the denominator 1."""
        if denominator is None:
            return cls(numerator, fmpq_poly([1]))
        common = numerator.gcd(denominator)
        numerator, denominator = numerator // common, denominator // common
        lead = denominator[denominator.degree()]
        return cls(numerator / lead, denominator / lead)

    def __add__(self, other: Quotient) -> Quotient:
        """The sum."""
        return Quotient.of(
            self.numerator * other.denominator + other.numerator * self.denominator,
            self.denominator * other.denominator,
        )

    def __sub__(self, other: Quotient) -> Quotient:
        """The difference."""
        return self + other * -1

    def __mul__(self, other: Quotient | Exact) -> Quotient:
        """The product."""
        if isinstance(other, Quotient):
            return Quotient.of(self.numerator * other.numerator, self.denominator * other.denominator)
        return Quotient(self.numerator * _q(other), self.denominator)

    def __call__(self, inner: Quotient) -> Quotient:
        """The composition: this function at the values of another one."""
        degree = max(self.numerator.degree(), self.denominator.degree())
        powers = [fmpq_poly([1])]
        for _ in range(degree):
            powers.append(powers[-1] * inner.denominator)

        def homogeneous(outer: fmpq_poly) -> fmpq_poly:
            value = fmpq_poly([0])
            for i in range(degree, -1, -1):
                value = value * inner.numerator + outer[i] * powers[degree - i]
            return value

        return Quotient.of(homogeneous(self.numerator), homogeneous(self.denominator))

    def derivative(self) -> Quotient:
        """The derivative."""
        n, d = self.numerator, self.denominator
        return Quotient.of(n.derivative() * d - n * d.derivative(), d * d)

    def at(self, x: Fraction) -> Fraction:
        """The value at a rational number."""
        value = self.numerator(_q(x)) / self.denominator(_q(x))
        return Fraction(int(value.p), int(value.q))


X = Quotient(fmpq_poly([0, 1]), fmpq_poly([1]))
"""The function x."""


class Task(NamedTuple):
    """Loss, its derivative, the inner step T(x) = x - beta l'(x) and its derivative."""

    loss: Quotient
    slope: Quotient
    inner: Quotient
    stretch: Quotient


def inner_steps(family: ExactFamily, beta: Fraction) -> list[Task]:
    """What ERM and MAML are made of, task by task.

    Args:
        family: The tasks.
        beta: beta_low, exact, at least 0.

    Returns:
        A `Task` each.

    Raises:
        ValueError: beta is not exact, or negative.
    """
    if not isinstance(beta, int | Fraction) or beta < 0:
        raise ValueError(f"beta must be an integer or a Fraction >= 0, got {beta!r}")
    tasks = []
    for parts in family.losses:
        loss = _total([Quotient.of(_poly(numerator), _poly(denominator)) for numerator, denominator in parts])
        slope = loss.derivative()
        inner = X - slope * beta
        tasks.append(Task(loss, slope, inner, inner.derivative()))
    return tasks


def mean(parts: Sequence[Quotient]) -> Quotient:
    """The mean of functions, such as those of the tasks."""
    return _total(parts) * Fraction(1, len(parts))


def erm(family: ExactFamily) -> Quotient:
    """R = (1/M) sum_m l_m."""
    return mean([task.loss for task in inner_steps(family, Fraction(0))])


def maml(family: ExactFamily, beta: Fraction) -> Quotient:
    """F = (1/M) sum_m l_m(T_m)."""
    return mean([task.loss(task.inner) for task in inner_steps(family, beta)])


def erm_slope(family: ExactFamily) -> Quotient:
    """R' = (1/M) sum_m l_m'."""
    return mean([task.slope for task in inner_steps(family, Fraction(0))])


def maml_slope(family: ExactFamily, beta: Fraction) -> Quotient:
    """F' = (1/M) sum_m T_m' l_m'(T_m)."""
    return mean([task.slope(task.inner) * task.stretch for task in inner_steps(family, beta)])


def stationary_points(slope: Quotient) -> tuple[Point, ...]:
    """All stationary points of a function on the line, from left to right.

    Args:
        slope: Its derivative.

    Returns:
        The points; the kind is that of the exact signs of the derivative between the points.

    Raises:
        ValueError: The function is constant, so that every point is stationary, or it has a pole.
    """
    _check(slope)
    roots = real_roots(slope.numerator)
    sides = pairwise(_signs_beside(slope.numerator, roots))
    return tuple(Point(*root, _kind(before, after)) for root, (before, after) in zip(roots, sides, strict=True))


def sturm_points(slope: Quotient) -> tuple[Point, ...]:
    """What `stationary_points` gives, by another algorithm: a Sturm sequence, and bisection with its variations.

    Args:
        slope: The derivative.

    Returns:
        The points, in wider intervals.

    Raises:
        ValueError: The function is constant.
    """
    own = [int(c) for c in slope.numerator.numer().coeffs()]
    if not own:
        raise ValueError("the derivative is zero: the function is constant, and every point is stationary")
    sequence = sturm_sequence(own)

    def variations(x: Fraction) -> int:
        powers = _powers(x.denominator, len(own))
        return changes([_sign_at(member, x.numerator, powers) for member in sequence])

    def sign_of_own(x: Fraction) -> int:
        return _sign_at(own, x.numerator, _powers(x.denominator, len(own)))

    reach = 1 + Fraction(max(abs(c) for c in own), abs(own[-1]))  # Cauchy's bound
    found: list[Point] = []
    waiting = [(-reach, reach, variations(-reach), variations(reach))]
    while waiting:
        low, high, at_low, at_high = waiting.pop()
        if at_low == at_high:
            continue
        if at_low - at_high == 1:
            found.append(Point(low, high, _kind(sign_of_own(low), sign_of_own(high))))
            continue
        middle = next(x for k in range(2, 3 + 2 * len(own)) if sign_of_own(x := low + (high - low) / k * (k // 2)))
        at_middle = variations(middle)
        waiting += [(middle, high, at_middle, at_high), (low, middle, at_low, at_middle)]
    return tuple(found)


def same(one: Sequence[Point], other: Sequence[Point]) -> bool:
    """Whether two lists may be of the same points: as many, of the same kinds, in enclosures that meet."""
    return len(one) == len(other) and all(
        a.kind == b.kind and a.low <= b.high and b.low <= a.high for a, b in zip(one, other, strict=True)
    )


def count(points: Sequence[Point], kind: Kind | None = None) -> int:
    """How many points, or how many of a kind."""
    return sum(kind in (None, point.kind) for point in points)


def balance(points: Sequence[Point]) -> int:
    """Minima minus maxima: 1 where the function comes down on the far left and goes up on the far right."""
    return count(points, "minimum") - count(points, "maximum")


def contained(one: Quotient, other: Quotient) -> bool:
    """Whether every root of the first numerator, real or not, is one of the second: its square-free part divides it."""
    return (other.numerator % square_free(one.numerator)).degree() < 0


def is_root(polynomial: Quotient, x: Fraction) -> bool:
    """Whether a function vanishes at a rational number."""
    return not sign(polynomial.numerator, x)


def signs(function: Quotient) -> set[int]:
    """The signs, of -1, 0 and 1, that a function without poles takes on the line."""
    if function.numerator.degree() < 0:
        return {0}
    _check(function)
    roots = real_roots(function.numerator)
    return {*_signs_beside(function.numerator, roots), *(0 for _ in roots)}


def bracket(holds: Callable[[Fraction], bool], low: Fraction, high: Fraction, width: Fraction) -> tuple[Fraction, ...]:
    """Two numbers at most `width` apart, `holds` true at the first and false at the second, by bisection.

    Args:
        holds: True at `low`, false at `high`.
        low: Where it holds.
        high: Where it does not.
        width: How far apart they are at most, positive.

    Returns:
        (low, high), shrunk.

    Raises:
        ValueError: It does not hold at `low`, or it does at `high`.
    """
    if not holds(low) or holds(high):
        raise ValueError(f"the condition must hold at {low} and fail at {high}")
    while high - low > width:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def _signs_beside(polynomial: fmpq_poly, roots: Sequence[tuple[Fraction, Fraction]]) -> list[int]:
    """The signs of a polynomial on the far left, between each two of its roots, and on the far right."""
    if not roots:
        return [sign(polynomial, Fraction(0))]
    between = [(left[1] + right[0]) / 2 for left, right in pairwise(roots)]
    return [sign(polynomial, x) for x in (roots[0][0] - 1, *between, roots[-1][1] + 1)]


def _check(function: Quotient) -> None:
    if function.numerator.degree() < 0:
        raise ValueError("the derivative is zero: the function is constant, and every point is stationary")
    if real_roots(function.denominator) or sign(function.denominator, Fraction(0)) < 0:
        raise ValueError(f"the function has a pole: its denominator {function.denominator} is not positive everywhere")


def _kind(before: int, after: int) -> Kind:
    return "flat" if before == after else "minimum" if after > 0 else "maximum"


def _total(parts: Sequence[Quotient]) -> Quotient:
    return reduce(Quotient.__add__, parts)


def _q(value: Exact) -> fmpq:
    return fmpq(value.numerator, value.denominator)


def _poly(coefficients: Sequence[Exact]) -> fmpq_poly:
    return fmpq_poly([_q(c) for c in coefficients])


def _sign_at(coefficients: Sequence[int], p: int, powers: Sequence[int]) -> int:
    """Sign of a polynomial at p / q, by integers: that of sum_i c_i p^i q^(n - i), from 1, q, q^2, ..."""
    value = 0
    for c, power in zip(reversed(coefficients), powers, strict=False):
        value = value * p + c * power
    return (value > 0) - (value < 0)


def _powers(q: int, number: int) -> list[int]:
    """1, q, q^2, ..., as many as asked for."""
    return list(accumulate(repeat(q, number - 1), mul, initial=1))
