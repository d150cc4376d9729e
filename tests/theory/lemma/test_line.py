"""Exact counts: polynomials with known roots, the engines against each other, derivatives against the core."""

from __future__ import annotations

import math
import random
from fractions import Fraction as Q

import pytest
import torch
from flint import fmpq_poly
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sharp_maml import meta_gradient, meta_loss
from synthetic import ExactFamily, PolynomialRegression, Rational
from theory.lemma.line import (
    Point,
    Quotient,
    X,
    balance,
    bracket,
    contained,
    count,
    erm,
    erm_slope,
    inner_steps,
    is_root,
    maml,
    maml_slope,
    mean,
    same,
    signs,
    stationary_points,
    sturm_points,
)
from theory.lemma.roots import real_roots
from theory.lemma.setting import MISTAKES

FRACTIONS = st.fractions(-4, 4, max_denominator=16)
ENGINES = [stationary_points, sturm_points]
SQUARE = fmpq_poly([1, 0, 1])
"""x^2 + 1, without a real root."""


def poly(*coefficients: Q | int) -> fmpq_poly:
    value = fmpq_poly([0])
    for c in reversed(coefficients):
        value = value * fmpq_poly([0, 1]) + fmpq_poly([Q(c).numerator]) / Q(c).denominator
    return value


def with_roots(roots: dict[Q, int]) -> fmpq_poly:
    """The product of (x - root)^multiplicity."""
    value = fmpq_poly([1])
    for root, multiplicity in roots.items():
        value *= poly(-root, 1) ** multiplicity
    return value


def expected(roots: dict[Q, int], *, lead: int = 1) -> list[tuple[Q, str]]:
    """Kinds from the parity of the multiplicities, which no engine looks at."""
    sign = lead * (-1) ** sum(roots.values())
    kinds = []
    for root in sorted(roots):
        after = sign * (-1) ** roots[root]
        kinds.append((root, "flat" if after == sign else "minimum" if after > 0 else "maximum"))
        sign = after
    return kinds


def assert_found(points: tuple[Point, ...], roots: list[tuple[Q, str]]) -> None:
    assert [point.kind for point in points] == [kind for _, kind in roots]
    assert all(point.low <= root <= point.high for point, (root, _) in zip(points, roots, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=60)
@given(
    roots=st.dictionaries(FRACTIONS, st.integers(1, 3), max_size=6),
    lead=st.sampled_from([1, -3]),
    others=st.integers(0, 2),
)
@example(roots={Q(0): 2}, lead=1, others=0)  # a double root where the first bisection cuts
@example(roots={Q(-1): 2, Q(0): 2, Q(1): 2}, lead=1, others=1)
@example(roots={}, lead=-3, others=0)
def test_known_roots_are_found_with_their_kinds(engine, roots, lead, others) -> None:
    slope = Quotient.of(lead * with_roots(roots) * SQUARE**others)
    assert_found(engine(slope), expected(roots, lead=lead))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("multiplicities", [(1, 1, 1), (2, 1, 3), (1, 2, 1)], ids=str)
def test_roots_that_lie_1e_12_apart_are_told_apart(engine, multiplicities) -> None:
    roots = {Q(1, 3) + i * Q(1, 10**12): m for i, m in enumerate(multiplicities)}
    assert_found(engine(Quotient.of(with_roots(roots))), expected(roots))


@pytest.mark.parametrize("engine", ENGINES)
def test_degree_one_hundred(engine) -> None:
    """The Chebyshev polynomial of degree 100, with all of its roots in [-1, 1]."""
    previous, current = fmpq_poly([1]), fmpq_poly([0, 1])
    for _ in range(99):
        previous, current = current, fmpq_poly([0, 2]) * current - previous
    points = engine(Quotient.of(current))
    assert len(points) == 100
    assert balance(points) == 0
    for i, point in enumerate(reversed(points)):  # cos((2 i + 1) pi / 200), from the right
        assert point.low <= math.cos((2 * i + 1) * math.pi / 200) <= point.high or (
            abs(point.value - math.cos((2 * i + 1) * math.pi / 200)) < 1e-15
        )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.fractions(-100, 100, max_denominator=1000), min_size=1, max_size=12))
def test_the_engines_agree_on_random_polynomials(coefficients) -> None:
    slope = Quotient.of(poly(*coefficients))
    if not any(coefficients):
        for engine in ENGINES:
            with pytest.raises(ValueError, match="constant"):
                engine(slope)
    else:
        assert same(stationary_points(slope), sturm_points(slope))


def robust(seed: int, tasks: int, samples: int = 1) -> Rational:
    return Rational.random(random.Random(seed), tasks=tasks, samples=samples)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 2), st.fractions(0, 4, max_denominator=16))
def test_the_engines_agree_on_random_tasks(seed, tasks, step) -> None:
    for family in (robust(seed, tasks), PolynomialRegression.random(random.Random(seed), tasks=tasks)):
        for slope in (erm_slope(family), maml_slope(family, step)):
            if slope.numerator.degree() >= 0:
                assert same(stationary_points(slope), sturm_points(slope))


@pytest.mark.parametrize("change", MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_count_is_noticed(change) -> None:
    family = Rational([[(1, Q(5, 8))], [(1, Q(-5, 8))]])
    points = stationary_points(erm_slope(family))
    assert balance(points) == 1
    assert balance(change(points)) != 1
    assert not same(change(points), sturm_points(erm_slope(family)))


def test_enclosures_that_do_not_meet_are_not_the_same() -> None:
    one, other = Point(Q(0), Q(1), "minimum"), Point(Q(2), Q(3), "minimum")
    assert same([one], [one])
    assert not same([one], [other])
    assert not same([one], [one._replace(kind="maximum")])


# ----------------------------------------------------------------------------- rational functions
QUOTIENTS = st.tuples(st.lists(FRACTIONS, min_size=1, max_size=4), st.lists(FRACTIONS, min_size=1, max_size=3)).map(
    lambda parts: (parts[0], [parts[1][0] ** 2 + 1, 0, *(c * c for c in parts[1][1:])])
)
"""Coefficients of a numerator and of a denominator that is positive: 1 + c^2 + ... x^2 (+ ... x^3 for x >= 0)."""


def quotient(parts) -> Quotient:
    return Quotient.of(poly(*parts[0]), poly(*parts[1]))


def value(parts, x: Q) -> Q:
    top, bottom = (sum((c * x**i for i, c in enumerate(part)), Q(0)) for part in parts)
    return Q(top) / bottom


@settings(deadline=None, max_examples=50)
@given(QUOTIENTS, QUOTIENTS, st.fractions(0, 3, max_denominator=8))
def test_arithmetic_is_that_of_values(f, g, x) -> None:
    a, b = value(f, x), value(g, x)
    assert (quotient(f) + quotient(g)).at(x) == a + b
    assert (quotient(f) - quotient(g)).at(x) == a - b
    assert (quotient(f) * quotient(g)).at(x) == a * b
    assert (quotient(f) * Q(-2, 3)).at(x) == a * Q(-2, 3)
    assert mean([quotient(f), quotient(g)]).at(x) == (a + b) / 2
    if b >= 0:  # where the denominator of f is known to be positive
        assert quotient(f)(quotient(g)).at(x) == value(f, b)


@settings(deadline=None, max_examples=30)
@given(QUOTIENTS, st.fractions(0, 3, max_denominator=8))
def test_the_derivative_is_the_quotient_rule_of_values(f, x) -> None:
    """p'/q - p q'/q^2 from coefficients, without cancelling."""
    (p, q), (dp, dq) = ((sum(c * x**i for i, c in enumerate(part)) for part in f) for f in (f, [
        [i * c for i, c in enumerate(part)][1:] for part in f
    ]))  # fmt: skip
    assert quotient(f).derivative().at(x) == Q(dp) / q - p * Q(dq) / q**2


def test_a_quotient_is_in_lowest_terms() -> None:
    both = poly(1, 1)
    found = Quotient.of(both * poly(2, 1), both * poly(3, 0, 3))
    assert (found.numerator, found.denominator) == (poly(Q(2, 3), Q(1, 3)), poly(1, 0, 1))


# ----------------------------------------------------------------------------- against the core
FAMILIES: list[ExactFamily] = [
    robust(1, 2),
    robust(2, 1, 3),
    PolynomialRegression.random(random.Random(3), tasks=3),
    PolynomialRegression([[(1, 0, 2), (2, 0, 1)], [(1, 0, -1)]]),
]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@settings(deadline=None, max_examples=25)
@given(x=st.fractions(-2, 2, max_denominator=64), beta=st.fractions(0, 1, max_denominator=64))
def test_values_and_derivatives_are_those_of_the_core(family, x, beta) -> None:
    at = {"x": torch.tensor([float(x)], dtype=torch.float64)}
    for step, loss, slope in (
        (0.0, erm(family), erm_slope(family)),
        (float(beta), maml(family, beta), maml_slope(family, beta)),
    ):
        found = meta_gradient(family.loss, at, family.episodes, beta_low=step)
        scale = 1 + sum(
            abs(float(part.at(x))) for task in inner_steps(family, beta) for part in (task.slope, task.stretch)
        )
        assert found.loss.item() == pytest.approx(float(loss.at(x)), rel=1e-12, abs=1e-12 * scale)
        assert found.grad["x"].item() == pytest.approx(float(slope.at(x)), rel=1e-11, abs=1e-12 * scale**2)
        assert meta_loss(family.loss, at, family.episodes, beta_low=step).item() == found.loss.item()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.fractions(0, 2, max_denominator=16))
def test_the_slope_is_the_derivative_of_the_loss(seed, beta) -> None:
    family = robust(seed, 2)
    assert maml(family, beta).derivative() == maml_slope(family, beta)
    assert erm(family).derivative() == erm_slope(family) == maml_slope(family, Q(0))


# ----------------------------------------------------------------------------- degenerate input
@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_function_is_refused(engine) -> None:
    line = PolynomialRegression([[(2, 0, 1)]])
    slope = maml_slope(line, 1 / line.L1)  # one step from anywhere to the minimum
    with pytest.raises(ValueError, match="the function is constant, and every point is stationary"):
        engine(slope)
    assert signs(slope) == {0}


def test_the_zero_polynomial_has_no_list_of_roots() -> None:
    with pytest.raises(ValueError, match="the zero polynomial: every number is a root"):
        real_roots(fmpq_poly([0]))


@pytest.mark.parametrize("denominator", [poly(-1, 0, 1), poly(0, 0, 1), poly(-1, 0, -1)], ids=str)
def test_a_function_with_a_pole_is_refused(denominator) -> None:
    slope = Quotient.of(poly(3, 1), denominator)
    if real_roots(slope.denominator):
        with pytest.raises(ValueError, match="the function has a pole"):
            stationary_points(slope)
    else:  # a common sign of numerator and denominator is cancelled
        assert [point.kind for point in stationary_points(slope)] == ["maximum"]


def test_a_function_without_stationary_points() -> None:
    slope = Quotient.of(fmpq_poly([-1]), SQUARE)
    assert stationary_points(slope) == sturm_points(slope) == ()
    assert signs(slope) == {-1}


@pytest.mark.parametrize("beta", [0.5, Q(-1, 2), float("nan"), "1/2"], ids=str)
def test_a_step_that_is_not_exact_or_negative_is_refused(beta) -> None:
    with pytest.raises(ValueError, match="beta must be an integer or a Fraction >= 0"):
        maml_slope(robust(0, 1), beta)


# ----------------------------------------------------------------------------- what the claims ask
@pytest.mark.parametrize(
    ("function", "found"),
    [
        (X, {-1, 0, 1}),
        (X * X, {0, 1}),
        (X * X * -1, {0, -1}),
        (Quotient.of(SQUARE), {1}),
        (Quotient.of(poly(0, 0, 0, 1), SQUARE), {-1, 0, 1}),
    ],
    ids=str,
)
def test_signs_on_the_whole_line(function, found) -> None:
    assert signs(function) == found


def test_roots_are_contained_where_each_is_a_root() -> None:
    one, other = with_roots({Q(1): 3, Q(2): 1}), with_roots({Q(1): 1, Q(2): 1, Q(3): 1})
    assert contained(Quotient.of(one), Quotient.of(other))
    assert not contained(Quotient.of(other), Quotient.of(one))
    assert is_root(Quotient.of(other), Q(3))
    assert not is_root(Quotient.of(one), Q(3))


def test_counts_by_kind() -> None:
    points = stationary_points(Quotient.of(with_roots({Q(0): 1, Q(1): 1, Q(2): 2, Q(3): 1})))
    assert (count(points), count(points, "minimum"), count(points, "maximum"), count(points, "flat")) == (4, 2, 1, 1)
    assert balance(points) == 1


def test_a_bracket_shrinks_around_the_change() -> None:
    low, high = bracket(lambda x: x * x < 2, Q(1), Q(2), Q(1, 2**30))
    assert low * low < 2 <= high * high
    assert high - low <= Q(1, 2**30)
    with pytest.raises(ValueError, match="must hold at 2 and fail at 3"):
        bracket(lambda x: x * x < 2, Q(2), Q(3), Q(1, 8))
