"""Families with exact data: the same losses as quotients and in torch, L1 attained, inputs checked."""

from __future__ import annotations

import math
import random
from fractions import Fraction as Q

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic import PolynomialRegression, Rational
from synthetic.exact import exact

SEEDS = st.integers(0, 10**6)


def value(coefficients, x: Q) -> Q:
    return sum((c * x**i for i, c in enumerate(coefficients)), Q(0))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.fractions(-5, 5, max_denominator=32), st.integers(1, 3), st.integers(1, 3))
def test_the_quotients_are_the_losses(seed, x, tasks, samples) -> None:
    for kind in (Rational, PolynomialRegression):
        family = kind.random(random.Random(seed), tasks=tasks, samples=samples)
        assert len(family.losses) == len(family.episodes) == family.tasks == tasks
        for parts, episode in zip(family.losses, family.episodes, strict=True):
            expected = sum(value(top, x) / value(bottom, x) for top, bottom in parts)
            assert episode.support is episode.query
            found = family.loss({"x": torch.tensor([float(x)], dtype=torch.float64)}, episode.support)
            assert found.item() == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(-6, 6))
def test_the_constant_bounds_the_second_derivative_and_is_attained_at_a_single_target(seed, x) -> None:
    family = Rational.random(random.Random(seed), tasks=2, samples=2)

    def bend(family: Rational, task: int, at: float) -> float:
        batch = family.episodes[task].support
        loss = lambda v: family.loss({"x": v}, batch)  # noqa: E731
        return torch.autograd.functional.hessian(loss, torch.tensor([at], dtype=torch.float64)).item()

    assert max(abs(bend(family, m, x)) for m in range(2)) <= float(family.L1) * (1 + 1e-12)
    alone = Rational([[task[0]] for task in family.data])
    assert max(bend(alone, m, float(alone.data[m][0][1])) for m in range(2)) == pytest.approx(float(alone.L1))
    lines = PolynomialRegression([[(a, 0, y) for a, _, y in task] for task in
                                  PolynomialRegression.random(random.Random(seed), tasks=2).data])  # fmt: skip
    assert max(bend(lines, m, x) for m in range(2)) == pytest.approx(float(lines.L1))


def test_quartic_losses_have_no_constant() -> None:
    with pytest.raises(ValueError, match="there is no L1"):
        _ = PolynomialRegression([[(1, 1, 0)]]).L1


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.fractions(-2, 2, max_denominator=4))
def test_a_common_parameter_fits_every_sample(seed, common) -> None:
    family = PolynomialRegression.random(random.Random(seed), tasks=3, common=common)
    assert all(y == a * common + b * common**2 for task in family.data for a, b, y in task)
    assert all(task[0][1] != 0 for task in family.data)


def test_random_tasks_depend_on_the_generator_alone() -> None:
    for kind in (Rational, PolynomialRegression):
        one, same, other = (kind.random(random.Random(seed), tasks=2, samples=2) for seed in (0, 0, 1))
        assert one == same != other


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rational([]), "at least one task with at least one sample"),
        (lambda: Rational([[]]), "at least one task with at least one sample"),
        (lambda: Rational([[(1, 2, 3)]]), r"a sample must be \(weight, target\)"),
        (lambda: Rational([[(0, 1)]]), "weights must not be 0"),
        (lambda: Rational([[(1, 0.5)]]), "target must be an integer or a Fraction, got 0.5"),
        (lambda: Rational([[(math.nan, 1)]]), "weight must be an integer or a Fraction, got nan"),
        (lambda: PolynomialRegression([[(1, 2)]]), r"a sample must be \(a, b, target\)"),
        (lambda: PolynomialRegression([[("1", 2, 3)]]), "a must be an integer or a Fraction, got '1'"),
    ],
)
def test_data_that_are_not_exact_or_missing_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_too_large_for_float64_is_named() -> None:
    with pytest.raises(ValueError, match="too large for float64"):
        _ = Rational([[(1, 10**400)]]).episodes


def test_exact_numbers() -> None:
    assert exact(2, "x") == 2
    assert exact(Q(1, 3), "x") == Q(1, 3)
