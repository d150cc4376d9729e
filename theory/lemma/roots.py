"""All real roots of a polynomial over Q, by two algorithms that share nothing but the polynomial.

`real_roots` halves intervals until Descartes' rule of signs decides them, in FLINT's polynomial arithmetic;
`sturm_sequence`, in Python's own integers, is what `line.sturm_points` counts roots with. Neither takes a decision in
floating point. Read next: `line.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from flint import fmpq, fmpq_poly, fmpz, fmpz_poly

WIDTH = Fraction(1, 2**60)
"""Enclosures of roots are at most this wide."""

_SHIFT = fmpz_poly([1, 1])


def real_roots(polynomial: fmpq_poly) -> list[tuple[Fraction, Fraction]]:
    """The distinct real roots, each alone in a closed interval with rational ends, from left to right.

    A square-free polynomial of degree n has in (0, 1) as many roots as (1 + x)^n p(1 / (1 + x)) has positive ones: by
    Descartes' rule none, or one, where its coefficients change sign as often. Where they change sign more often the
    interval is halved, which ends (Vincent's theorem). Each root is then enclosed by bisection.

    Args:
        polynomial: Not zero.

    Returns:
        Intervals that are disjoint and at most `WIDTH` wide; a single number twice where the root was met exactly.

    Raises:
        ValueError: The polynomial is zero.

    Source: Collins and Akritas, "Polynomial real root isolation using Descartes' rule of signs", SYMSAC 1976.
    """
    if polynomial.degree() < 0:
        raise ValueError("the zero polynomial: every number is a root")
    p = square_free(polynomial).numer()
    bound = _bound(p)
    mirrored = [(-high, -low) for low, high in _positive(p(fmpz_poly([0, -1])), bound)]
    zero = [(Fraction(0), Fraction(0))] if p[0] == 0 else []
    return sorted(_enclosed(p, *interval) for interval in [*mirrored, *zero, *_positive(p, bound)])


def sturm_sequence(coefficients: Sequence[int]) -> list[list[int]]:
    """p, p' and the negated remainders of Euclid's algorithm, each up to a positive factor.

    Args:
        coefficients: Coefficients of p, the constant one first; the last is not zero.

    Returns:
        Coefficients of each member, without a common divisor. Between two numbers that are no roots, p has as many
        distinct roots as the signs of the members change more often at the first than at the second.

    Source: Sturm's theorem.
    """
    sequence = [_primitive(coefficients)]
    following = [i * c for i, c in enumerate(coefficients)][1:]
    while following:
        sequence.append(_primitive(following))
        following = _negated_remainder(*sequence[-2:])
    return sequence


def square_free(polynomial: fmpq_poly) -> fmpq_poly:
    """The polynomial with every root once."""
    return polynomial // polynomial.gcd(polynomial.derivative()) if polynomial.degree() > 0 else polynomial


def sign(polynomial: fmpq_poly | fmpz_poly, x: Fraction) -> int:
    """The sign of the value at a rational number."""
    value = polynomial(fmpq(x.numerator, x.denominator))
    return (value > 0) - (value < 0)


def changes(signs: Iterable[int | fmpz]) -> int:
    """How often the sign changes along numbers, zeros left out."""
    kept = [value > 0 for value in signs if value]
    return sum(a != b for a, b in pairwise(kept))


def _bound(p: fmpz_poly) -> int:
    """k >= 0 such that every root is smaller than 2^k: twice max |a_(n-i) / a_n|^(1/i) is larger than all of them."""
    lead, *others = (int(c) for c in reversed(p.coeffs()))
    exponents = (
        math.ceil((abs(c).bit_length() - abs(lead).bit_length() + 1) / i) for i, c in enumerate(others, 1) if c
    )
    return max([0, *(1 + exponent for exponent in exponents)])


def _positive(p: fmpz_poly, bound: int) -> Iterator[tuple[Fraction, Fraction]]:
    """The positive roots of a square-free polynomial, in open intervals, or as a number twice."""
    scaled = fmpz_poly([c << bound * i for i, c in enumerate(map(int, p.coeffs()))])
    waiting = [(scaled, 0, 0)]  # q has in (0, 1) the roots of p in 2^bound (place, place + 1) / 2^depth
    while waiting:
        q, place, depth = waiting.pop()
        unit = Fraction(2**bound, 2**depth)
        number = changes(fmpz_poly(q.coeffs()[::-1])(_SHIFT).coeffs())
        if number == 1:
            yield place * unit, (place + 1) * unit
        if number < 2:
            continue
        coefficients = list(map(int, q.coeffs()))
        left = fmpz_poly([c << len(coefficients) - 1 - i for i, c in enumerate(coefficients)])
        right = left(_SHIFT)
        if right[0] == 0:
            middle = (place + Fraction(1, 2)) * unit
            yield middle, middle
        waiting += [(left, 2 * place, depth + 1), (right, 2 * place + 1, depth + 1)]


def _enclosed(p: fmpz_poly, low: Fraction, high: Fraction) -> tuple[Fraction, Fraction]:
    """The one root of an open interval, in a closed one inside of it."""
    before = sign(p, low) or sign(p.derivative(), low)
    width, *ends = (fmpq(x.numerator, x.denominator) for x in (WIDTH, low, high))  # as exact as fractions, and faster
    left, right = ends
    while right - left > width or (left != right and (left == ends[0] or right == ends[1])):
        middle = (left + right) / 2
        value = p(middle)
        if value == 0:
            left = right = middle
        elif (value > 0) == (before > 0):
            left = middle
        else:
            right = middle
    return Fraction(int(left.p), int(left.q)), Fraction(int(right.p), int(right.q))


def _primitive(coefficients: Sequence[int]) -> list[int]:
    common = math.gcd(*coefficients)
    return [c // common for c in coefficients]


def _negated_remainder(dividend: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """A positive multiple of minus the remainder; empty where it is zero."""
    rest, lead, degree = list(dividend), divisor[-1], len(divisor) - 1
    while len(rest) > degree:
        top = rest.pop()
        common = math.gcd(top, lead)
        multiple, quotient = abs(lead) // common, top // common * (1 if lead > 0 else -1)
        rest = [c * multiple for c in rest]
        for i in range(degree):
            rest[len(rest) - degree + i] -= quotient * divisor[i]
    while rest and not rest[-1]:
        rest.pop()
    return [-c for c in rest]
