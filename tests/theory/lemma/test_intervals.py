"""Intervals hold the exact value: against fractions, and against rigorous balls."""

from __future__ import annotations

import math
from fractions import Fraction as Q

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.lemma.intervals import Interval

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=True)
SHARES = st.fractions(0, 1, max_denominator=64)


@st.composite
def boxes(draw):
    """An interval, and an exact number within."""
    low, high = sorted((draw(FLOATS), draw(FLOATS)))
    within = Q(low) + (Q(high) - Q(low)) * draw(SHARES)
    return Interval(np.array([low]), np.array([high])), within


def holds(interval: Interval, value: Q) -> bool:
    return Q(float(interval.low[0])) <= value <= Q(float(interval.high[0]))


@settings(deadline=None, max_examples=300)
@given(boxes(), boxes())
def test_arithmetic_holds_the_exact_result(one, other) -> None:
    (a, x), (b, y) = one, other
    assert holds(a + b, x + y)
    assert holds(a - b, x - y)
    assert holds(a * b, x * y)
    assert holds(-a, -x)
    assert holds(a.square(), x * x)
    assert float(a.square().low[0]) >= 0
    assert holds(2.5 * a + 1.0 - a * 0.5, 2 * x + 1)
    assert holds(1.0 - a, 1 - x)


ANGLES = [0.0, 1e-300, 1e-9, 0.5, math.pi / 2, math.pi, 1.5 * math.pi, 2 * math.pi, 100 * math.pi, 9_999.0, 1e5, 1e300]


def test_elementary_functions_hold_what_rigorous_balls_hold() -> None:
    """At many points, among them the neighbours of the multiples of pi/2."""
    generator = np.random.default_rng(0)
    turns = np.arange(-40, 41) * (math.pi / 2)
    points = np.concatenate(
        [
            generator.uniform(-50, 50, 20_000), 10.0 ** generator.uniform(-300, 4, 2_000), ANGLES, np.negative(ANGLES),
            turns, np.nextafter(turns, np.inf), np.nextafter(turns, -np.inf),
        ]
    )  # fmt: skip
    x = Interval.point(points)
    for name, found in {"sin": x.sin(), "cos": x.cos(), "tanh": x.tanh()}.items():
        assert (found.low >= -1).all()
        assert (found.high <= 1).all()
        assert (found.width[np.abs(points) < 1e4] < 1e-13).mean() > 0.98  # but next to a turn
        for point, low, high in zip(points, found.low, found.high, strict=True):
            exact = getattr(arb(fmpq(*float(point).as_integer_ratio())), name)()
            assert not exact < arb(float(low))
            assert not exact > arb(float(high))


@settings(deadline=None, max_examples=300)
@given(st.floats(-100, 100), st.floats(0, 8), SHARES)
def test_elementary_functions_hold_the_values_on_an_interval(low, width, share) -> None:
    high = low + width
    x = Interval(np.array([low]), np.array([high]))
    at = float(Q(low) + (Q(high) - Q(low)) * share)
    for name in ("sin", "cos", "tanh"):
        found, value = getattr(x, name)(), getattr(math, name)(at)
        assert found.low[0] - 1e-15 <= value <= found.high[0] + 1e-15


def test_a_turn_within_is_reached() -> None:
    low, high = np.array([-0.1, 1.5, 3.0, -math.pi, 0.2]), np.array([0.1, 1.6, 3.2, math.pi, 0.3])
    x = Interval(low, high)
    assert x.cos().high.tolist()[:1] == [1.0]
    assert x.sin().high.tolist()[1] == 1.0
    assert x.cos().low.tolist()[2] == -1.0
    assert (x.cos().low[3], x.cos().high[3], x.sin().low[3], x.sin().high[3]) == (-1, 1, -1, 1)
    assert x.sin().width[4] == pytest.approx(math.sin(0.3) - math.sin(0.2), abs=1e-13)


def test_meeting_and_lying_inside() -> None:
    one, other = Interval(np.array([0.0]), np.array([2.0])), Interval(np.array([1.0]), np.array([3.0]))
    assert (one.intersection(other).low[0], one.intersection(other).high[0]) == (1, 2)
    assert not one.inside(one)[0]
    assert Interval(np.array([0.5]), np.array([1.0])).inside(one)[0]
    assert one.holds(2.0)[0]
    assert not one.holds(2.5)[0]
    assert one.middle[0] == 1
