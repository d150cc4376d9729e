"""Wells: closed forms against the core, constants that bound and are attained, noise as stated, a certified infimum."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import synthetic
from sharp_maml import meta_gradient
from synthetic import Wells, apart
from synthetic.wells import GRID
from tests.synthetic.families import (
    assert_batches_equal_one_by_one,
    assert_closed_forms_equal_the_core,
    assert_draw_is_pure,
    assert_mean,
    assert_slopes_are_independent,
    found_minimum,
    gradients,
    half_loss,
    hessian,
    hessians,
    lane,
    normal,
    orthogonal,
    relative_error,
    root_mean_square,
    seeded,
    tensors,
)

SEEDS = st.integers(0, 2**32 - 1)
BOTH = pytest.mark.parametrize("is_rotated", [False, True], ids=["separable", "rotated"])


def wells(seed: int, *, tasks: int = 3, dim: int = 3, is_rotated: bool = False, **options: float) -> Wells:
    generator = seeded(seed)
    rotation = orthogonal(generator, dim, dim) if is_rotated else None
    return Wells(2 * normal(generator, tasks, dim), 2 * normal(generator, tasks, dim), rotation=rotation, **options)


def noisy(seed: int, *, is_rotated: bool) -> Wells:
    return wells(seed, is_rotated=is_rotated, A=1.3, B=0.8, zeta=0.7, sA=0.4, xi=0.9)


def clean(family: Wells) -> list:
    return lane(apart(replace(family, zeta=0.0, sA=0.0, xi=0.0).sample(seeded(0), 1)), 0)


def turned_back(family: Wells, y: torch.Tensor) -> torch.Tensor:
    """The x with R x = y."""
    return y if family.rotation is None else y @ family.rotation


@given(SEEDS, st.booleans(), st.floats(0, 2), st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0, 1), st.floats(-3, 3))
def test_the_closed_forms_equal_the_core_and_autograd(seed, is_rotated, beta, A, B, K, psi):
    family = wells(seed, is_rotated=is_rotated, A=A, B=B, K=K, psi=psi)
    assert_closed_forms_equal_the_core(family, clean(family), 3 * normal(seeded(seed + 1), family.dim), beta)


@BOTH
def test_batches_equal_one_by_one(is_rotated):
    assert_batches_equal_one_by_one(wells(3, is_rotated=is_rotated), 3, seed=4)


@given(SEEDS, st.booleans(), st.floats(-3, 0.5))
@settings(max_examples=50)
def test_the_constants_bound_differences(seed, is_rotated, log_distance):
    family = wells(seed, is_rotated=is_rotated, A=1.7, B=0.6)
    constants, generator = family.constants, seeded(seed)
    x, step = normal(generator, 2, family.dim)
    y = x + 10**log_distance * step / step.norm()
    distance = (y - x).norm() * (1 + 1e-9)
    for episode in clean(family):
        support, query = half_loss(family, "support"), half_loss(family, "query")
        change = {
            "L0": query(x, episode) - query(y, episode),
            "L1": torch.func.grad(support)(x, episode) - torch.func.grad(support)(y, episode),
            "L2": hessian(support)(x, episode) - hessian(support)(y, episode),
            "Lq": torch.func.grad(query)(x, episode) - torch.func.grad(query)(y, episode),
        }
        for name, value in change.items():
            size = torch.linalg.matrix_norm(value, 2) if value.dim() == 2 else value.norm()
            assert size <= getattr(constants, name) * distance, name


@BOTH
def test_the_constants_are_nearly_attained(is_rotated):
    """L1 and L2 are attained, Lq to 3 percent; L0 is only a bound, since both harmonics do not peak together."""
    family = wells(5, is_rotated=is_rotated, A=1.7, B=0.6)
    constants, (episode, *_) = family.constants, clean(family)
    support, query = half_loss(family, "support"), half_loss(family, "query")
    a, c = family.support_centres[0], family.query_centres[0]

    def curvature(loss, y):
        return torch.linalg.matrix_norm(hessian(loss)(turned_back(family, y), episode), 2)

    assert curvature(support, a) == pytest.approx(constants.L1, rel=1e-12)
    ends = [turned_back(family, a + math.pi / 2 + torch.tensor([h, 0.0, 0.0])) for h in (0.0, 1e-3)]
    change = hessian(support)(ends[0], episode) - hessian(support)(ends[1], episode)
    ratio = torch.linalg.matrix_norm(change, 2) / (ends[0] - ends[1]).norm()
    assert ratio == pytest.approx(constants.L2, rel=1e-6)

    line = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    assert 0.95 * constants.Lq <= max(curvature(query, c + u) for u in line) <= constants.Lq
    slopes = [torch.func.grad(query)(turned_back(family, c + u), episode).norm() for u in line]
    assert 0.8 * constants.L0 <= max(slopes) <= constants.L0


@BOTH
def test_the_second_harmonic_in_phase_attains_the_constant_of_the_query_gradient(is_rotated):
    family = wells(6, is_rotated=is_rotated, psi=0.0)
    x = turned_back(family, family.query_centres[0])
    curvature = hessian(half_loss(family, "query"))(x, clean(family)[0])
    assert torch.linalg.matrix_norm(curvature, 2) == pytest.approx(family.constants.Lq, rel=1e-12)


@BOTH
def test_the_noise_is_unbiased(is_rotated):
    family = noisy(7, is_rotated=is_rotated)
    x = normal(seeded(8), family.dim)
    for episode, expected in zip(apart(family.sample(seeded(9), 5000)), clean(family), strict=True):
        for half in ("support", "query"):
            loss = half_loss(family, half)
            assert_mean(gradients(family, half, x, episode), torch.func.grad(loss)(x, expected))
            assert_mean(hessians(family, half, x, episode), hessian(loss)(x, expected))


@BOTH
def test_the_noise_has_the_stated_standard_deviations_at_the_worst_point(is_rotated):
    """For sg that is where every sine is 1, for sH where every cosine is; sq is the same everywhere."""
    family = noisy(10, is_rotated=is_rotated)
    constants = family.constants
    episode, expected = apart(family.sample(seeded(11), 40_000))[0], clean(family)[0]
    steepest = turned_back(family, family.support_centres[0] + math.pi / 2)
    centre = turned_back(family, family.support_centres[0])
    for half, stated in (("support", constants.sg), ("query", constants.sq)):
        deviation = gradients(family, half, steepest, episode) - torch.func.grad(half_loss(family, half))(
            steepest, expected
        )
        assert root_mean_square(deviation) == pytest.approx(stated, rel=0.02)
    some = lane([episode], slice(0, 2000))[0]
    deviation = hessians(family, "support", centre, some) - hessian(half_loss(family, "support"))(centre, expected)
    assert root_mean_square(deviation) == pytest.approx(constants.sH, rel=1e-9)


@BOTH
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.5])
def test_lowest_is_a_lower_bound_and_close(is_rotated, beta):
    family = wells(12, dim=2, is_rotated=is_rotated, A=1.2)
    line = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    found = found_minimum(family, turned_back(family, torch.cartesian_prod(line, line)), beta)
    known = family.constants
    curvature = (
        1 + beta * known.L1
    ) ** 2 * known.Lq + beta * known.L2 * known.L0 / 2**0.5  # of one coordinate, at most
    assert 0 <= found - family.lowest(beta) <= 2 * curvature * (2 * math.pi / GRID) ** 2 / 8 + 1e-9


@BOTH
def test_draw_is_a_pure_function_of_the_seed_and_independent_between_tasks_and_halves(is_rotated):
    assert_draw_is_pure(noisy(13, is_rotated=is_rotated))
    assert_slopes_are_independent(noisy(13, is_rotated=is_rotated))


@BOTH
def test_instances_side_by_side_are_as_many_families(is_rotated):
    generator = seeded(14)
    a, c = 2 * normal(generator, 2, 3, 4, 2)  # M = 3, S = 4, d = 2
    rotation = orthogonal(generator, 2, 2) if is_rotated else None
    together = Wells(a, c, A=1.3, zeta=0.7, sA=0.4, xi=0.9, rotation=rotation)
    x, beta = normal(generator, 5, 4, 2), torch.rand(5, 1, generator=generator, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(together.meta_loss(leaf, beta).sum(), leaf)
    torch.testing.assert_close(together.meta_gradient(x, beta), gradient, rtol=1e-10, atol=1e-12)
    assert (together.tasks, together.dim, together.meta_loss(x[0, 0], 0.3).shape) == (3, 2, (4,))
    drawn = apart(together.sample(seeded(15), 4))
    for s in range(4):
        alone = replace(together, support_centres=a[:, s], query_centres=c[:, s])
        torch.testing.assert_close(together.meta_loss(x, beta)[:, s], alone.meta_loss(x[:, s], beta[:, 0]))
        torch.testing.assert_close(together.meta_gradient(x, beta)[:, s], alone.meta_gradient(x[:, s], beta[:, 0]))
        torch.testing.assert_close(together.meta_loss(x[0, 0], 0.3)[s], alone.meta_loss(x[0, 0], 0.3))
        torch.testing.assert_close(together.lowest(0.3)[s], alone.lowest(0.3))
        assert all(map(torch.equal, tensors(lane(drawn, s)), tensors(lane(apart(alone.sample(seeded(15), 4)), s))))


def test_heavy_noise_is_students_t_with_the_stated_standard_deviations():
    """A coordinate, over its standard deviation, is t with 5 degrees of freedom times sqrt(3/5)."""
    n, dim = 40_000, 3
    family = replace(noisy(16, is_rotated=False), heavy=torch.arange(n) % 2 == 1)
    for episode in apart(family.sample(seeded(17), n)):
        for half, deviation in ((episode.support, family.zeta), (episode.query, family.xi)):
            slopes = half.inputs[:, 1] / (deviation / dim**0.5)
            assert root_mean_square(half.inputs[1::2, 1]) == pytest.approx(deviation, rel=0.03)
            assert stats.kstest(slopes[1::2, 0] * (5 / 3) ** 0.5, "t", (5,)).pvalue > 1e-4
            assert stats.kstest(slopes[1::2, 0], "norm").pvalue < 1e-4
            assert stats.kstest(slopes[::2, 0], "norm").pvalue > 1e-4
    assert_draw_is_pure(replace(family, heavy=torch.ones(6, dtype=torch.bool)))


@given(SEEDS, st.booleans())
@settings(max_examples=20)
def test_an_episode_that_points_has_its_direction_as_every_gradient(seed, is_rotated):
    family, generator = noisy(seed, is_rotated=is_rotated), seeded(seed)
    x, direction = normal(generator, 2, family.dim)
    episode = family.pointing(direction)
    for half in ("support", "query"):
        torch.testing.assert_close(torch.func.grad(half_loss(family, half))(x, episode), direction, rtol=0, atol=0)
    got = meta_gradient(family.loss, {"x": x}, [episode] * 2, beta_low=0.7, alpha_low=0.3, query_loss=family.query_loss)
    assert relative_error(got.grad["x"], direction) <= 1e-15


def test_every_public_name_is_found_in_its_module():
    for name in synthetic.__all__:
        own = import_module(f"synthetic.{synthetic._MODULES[name]}")
        assert getattr(synthetic, name) is getattr(own, name)
    assert set(synthetic._MODULES) == set(synthetic.__all__)
    with pytest.raises(AttributeError, match="no attribute 'wheels'"):
        synthetic.wheels  # noqa: B018
