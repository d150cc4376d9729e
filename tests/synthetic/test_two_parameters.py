"""Regression with two parameters: amplitudes against the loss, constants against sampled Hessians, checked data."""

from __future__ import annotations

import math
import random
from fractions import Fraction as Q

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic import FREQUENCIES, Tanh, Torus

SEEDS = st.integers(0, 10**6)
POINTS = st.tuples(st.floats(-6, 6), st.floats(-6, 6))


def loss(family, task: int, x) -> torch.Tensor:
    return family.loss({"x": torch.as_tensor(x, dtype=torch.float64)}, family.episodes[task].support)


@settings(deadline=None, max_examples=40)
@given(SEEDS, POINTS, POINTS)
def test_the_amplitudes_are_those_of_the_loss(seed, x, y) -> None:
    """They determine it up to a constant."""
    family = Torus.random(random.Random(seed), tasks=2)
    for task, pairs in enumerate(family.amplitudes(float, math.cos, math.sin)):
        waves = [
            sum(
                a * math.cos(k[0] * at[0] + k[1] * at[1]) + b * math.sin(k[0] * at[0] + k[1] * at[1])
                for k, (a, b) in zip(FREQUENCIES, pairs, strict=True)
            )
            for at in (x, y)
        ]
        assert float(loss(family, task, x) - loss(family, task, y)) == pytest.approx(waves[0] - waves[1], abs=1e-11)


@settings(deadline=None, max_examples=40)
@given(SEEDS, POINTS)
def test_no_hessian_exceeds_the_constant(seed, x) -> None:
    for kind in (Torus, Tanh):
        family = kind.random(random.Random(seed), tasks=2)
        at = torch.tensor(x, dtype=torch.float64)
        for task in range(2):
            hessian = torch.autograd.functional.hessian(lambda v: loss(family, task, v), at)  # noqa: B023
            assert float(torch.linalg.matrix_norm(hessian, 2)) <= float(family.L1)


def test_the_constant_of_the_torus_is_attained_where_the_waves_peak_together() -> None:
    """b = 0, t = 0, y = 1: -cos(2 x1)/2 - 2 sin(x1), whose second derivative is -4 at -pi/2."""
    family = Torus([[(0, 1)]], second=0)
    hessian = torch.autograd.functional.hessian(
        lambda v: loss(family, 0, v), torch.tensor([-math.pi / 2, 0], dtype=torch.float64)
    )
    assert float(hessian[0, 0].abs()) == pytest.approx(4)
    assert float(family.L1) == pytest.approx(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Torus([]), "at least one task"),
        (lambda: Torus([[(0.5, 1)]]), "t must be an integer or a Fraction, got 0.5"),
        (lambda: Torus([[(0, 1)]], second=0.5), "second must be an integer or a Fraction"),
        (lambda: Tanh([[(0, 1)]], ridge=0), "ridge must be positive"),
        (lambda: Tanh([[(0, 1)]], ridge=math.nan), "ridge must be an integer or a Fraction"),
        (lambda: Tanh([[(0, 1, 2)]]), r"a sample must be \(t, target\)"),
    ],
)
def test_wrong_data_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_random_tasks_depend_on_the_generator_alone() -> None:
    for kind in (Torus, Tanh):
        one, same, other = (kind.random(random.Random(seed), tasks=2) for seed in (0, 0, 1))
        assert one == same != other
        assert one.tasks == 2
    assert Tanh.random(random.Random(0), tasks=1, ridge=Q(1, 8)).ridge == Q(1, 8)
