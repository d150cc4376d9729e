"""Opposed tasks: closed forms against the core, what cancels, constants that bound and are attained."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthetic import Opposed, apart
from tests.synthetic.families import (
    assert_batches_equal_one_by_one,
    assert_closed_forms_equal_the_core,
    gradients,
    hessians,
    lane,
    normal,
    seeded,
)

SIGNS, TILTS = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([0.0, 4.0], dtype=torch.float64)
SMOOTH = Opposed(SIGNS, TILTS, K=2.0, centre=0.7)
STEEP = replace(SMOOTH, growth=1.5)
KINKED = replace(SMOOTH, centre=0.0, kinked=True)
ALONE = Opposed(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), K=2.0, growth=0.5, kinked=True)
ALL = pytest.mark.parametrize("family", [SMOOTH, STEEP, KINKED, ALONE], ids=["smooth", "steep", "kinked", "alone"])


@ALL
@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(0, 0.8))
def test_the_closed_forms_equal_the_core_and_autograd(family, seed, beta) -> None:
    generator = seeded(seed)
    assert_closed_forms_equal_the_core(family, lane(apart(family.sample(generator, 1)), 0), normal(generator, 3), beta)


@ALL
def test_batches_equal_one_by_one(family) -> None:
    assert_batches_equal_one_by_one(family, 3, 0)


@ALL
def test_the_constants_bound_the_tasks(family) -> None:
    points = 3 * normal(seeded(1), 200, 3)
    known = family.constants
    for episode in apart(family.sample(seeded(0), 1)):
        support = torch.stack([hessians(family, "support", x, episode)[0] for x in points])
        assert torch.linalg.matrix_norm(support, 2).max() <= known.L1
        assert torch.stack([gradients(family, "query", x, episode)[0] for x in points]).norm(dim=-1).max() <= known.L0


def test_the_term_is_unbounded_in_the_tasks_and_absent_from_their_mean() -> None:
    x = torch.tensor([0.3, 20.0, 0.0], dtype=torch.float64)
    assert gradients(STEEP, "query", x, apart(STEEP.sample(seeded(0), 1))[0]).norm() > 1e12
    assert torch.equal(STEEP.meta_gradient(x, 0.3), SMOOTH.meta_gradient(x, 0.3))


@pytest.mark.parametrize("family", [SMOOTH, STEEP, KINKED], ids=["smooth", "steep", "kinked"])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.8])
def test_the_smoothness_of_the_mean_is_bounded_and_with_a_kink_attained(family, beta) -> None:
    y = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    x = torch.stack([y, 0 * y, 0 * y], -1)
    steepest = (family.meta_gradient(x, beta).diff(dim=0).norm(dim=-1) / y.diff()).max()
    assert steepest <= family.smoothness(beta) * (1 + 1e-9)
    if family.kinked:
        assert steepest >= 0.999 * family.smoothness(beta)
    z = torch.stack([0 * y, y, 0 * y], -1)
    assert (family.meta_gradient(z, beta).diff(dim=0).norm(dim=-1) / y.diff()).max() <= 0.25 + 1e-9
    assert family.meta_gradient(x, beta).norm(dim=-1).max() <= math.hypot(1 + beta, 1)


def test_the_infimum_is_approached_and_not_attained() -> None:
    beta = 0.2
    values = [
        float(KINKED.meta_loss(torch.tensor([0.0, z, 0.0], dtype=torch.float64), beta)) for z in (1.0, 10.0, 30.0)
    ]
    assert values == sorted(values, reverse=True)
    assert KINKED.lowest(beta) < values[-1] < 1e-12
