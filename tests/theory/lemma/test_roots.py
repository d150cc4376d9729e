"""Real roots against FLINT's certified complex ones, and Sturm sequences against SymPy's."""

from __future__ import annotations

from fractions import Fraction as Q
from itertools import pairwise

import pytest
from flint import fmpq_poly, fmpz_poly
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sympy import Poly, Symbol

from theory.lemma.roots import WIDTH, changes, real_roots, sturm_sequence

INTEGERS = st.lists(st.integers(-50, 50), min_size=1, max_size=9).map(fmpz_poly)


@st.composite
def with_close_roots(draw: st.DrawFn) -> fmpz_poly:
    """Products of random factors, some of them twice, with rational roots that two intervals may have at an end."""
    product = fmpz_poly([1])
    for factor in draw(st.lists(INTEGERS, min_size=1, max_size=3)):
        product *= factor
    for numerator, depth in draw(st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 5)), max_size=4)):
        product *= fmpz_poly([-numerator, 2**depth])
    return product


@settings(deadline=None, max_examples=150)
@given(with_close_roots())
@example(fmpz_poly([0, -1, 2]) * fmpz_poly([-1, 3]))  # roots 0, 1/3 and 1/2: one lies where an interval is halved
@example(fmpz_poly([-1, 1]) * fmpz_poly([-(2**40) - 1, 2**40]))  # 1 and 1 + 2^-40
@example(fmpz_poly([0, 0, 1]))
@example(fmpz_poly([7]))
def test_the_roots_are_the_real_ones_among_the_complex_ones(polynomial: fmpz_poly) -> None:
    if polynomial.degree() < 0:
        return
    p = polynomial // polynomial.gcd(polynomial.derivative()) if polynomial.degree() > 0 else polynomial
    expected = sorted(float(ball.real.mid()) for ball, _ in p.complex_roots() if ball.imag == 0)
    found = real_roots(fmpq_poly(polynomial))
    assert len(found) == len(expected)
    for (low, high), root in zip(found, expected, strict=True):
        assert 0 <= high - low <= WIDTH
        assert float(low) == pytest.approx(root, rel=1e-14, abs=1e-14)
    assert all(left[1] < right[0] for left, right in pairwise(found))


@settings(deadline=None, max_examples=100)
@given(with_close_roots(), st.tuples(st.integers(-90, 90), st.integers(-90, 90)))
@example(fmpz_poly([7]), (-1, 1))
def test_the_sequence_counts_roots_as_sympy_does(polynomial: fmpz_poly, ends: tuple[int, int]) -> None:
    low, high = (Q(end, 7) for end in sorted(ends))
    coefficients = [int(c) for c in polynomial.coeffs()]
    values = [
        [sum(c * x**i for i, c in enumerate(member)) for x in (low, high)]
        for member in sturm_sequence(coefficients or [1])
    ]
    if not coefficients or 0 in values[0]:
        return
    at_low, at_high = (changes([(v > 0) - (v < 0) for v in column]) for column in zip(*values, strict=True))
    assert at_low - at_high == Poly(coefficients[::-1], Symbol("x")).sqf_part().count_roots(low, high)


def test_zero_has_no_list_of_roots() -> None:
    with pytest.raises(ValueError, match="zero polynomial"):
        real_roots(fmpq_poly([0]))
