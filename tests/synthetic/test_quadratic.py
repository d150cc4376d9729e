"""Quadratic tasks: every closed form against the core, the minimiser against its definition, the noise as stated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharp_maml import adapt, meta_gradient, meta_loss
from synthetic import Quadratic, apart
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
)

SEEDS = st.integers(0, 2**32 - 1)
STEPS = st.integers(0, 4)


def quadratic(seed: int, *, tasks: int = 3, dim: int = 3, **noise: float) -> Quadratic:
    """Eigenvalues between 0.2 and 2, in random bases."""
    generator = seeded(seed)
    values = 0.2 + 1.8 * torch.rand(2, tasks, dim, generator=generator, dtype=torch.float64)
    bases = orthogonal(generator, 2, tasks, dim, dim)
    matrices = bases @ torch.diag_embed(values) @ bases.mT
    matrices = (matrices + matrices.mT) / 2
    return Quadratic(*matrices, *(2 * normal(generator, 2, tasks, dim)), **noise)


def clean(family: Quadratic) -> list:
    return lane(apart(replace(family, zeta=0.0, xi=0.0).sample(seeded(0), 1)), 0)


@given(SEEDS, st.floats(0, 1), STEPS)
def test_the_closed_forms_equal_the_core(seed, beta, steps):
    family = quadratic(seed)
    x, episodes = normal(seeded(seed + 1), family.dim), clean(family)
    adapted = [adapt(family.loss, {"x": x}, each.support, beta_low=beta, steps=steps)["x"] for each in episodes]
    assert relative_error(family.adapted(x, beta, steps=steps), torch.stack(adapted)) <= 1e-10
    options = {"beta_low": beta, "steps": steps, "query_loss": family.query_loss}
    value = meta_loss(family.loss, {"x": x}, episodes, **options)
    assert relative_error(family.meta_loss(x, beta, steps=steps), value) <= 1e-10
    got = meta_gradient(family.loss, {"x": x}, episodes, **options)
    assert relative_error(family.meta_gradient(x, beta, steps=steps), got.grad["x"]) <= 1e-10


@given(SEEDS, st.floats(0, 2))
@settings(max_examples=30)
def test_the_closed_forms_of_one_step_equal_autograd(seed, beta):
    family = quadratic(seed)
    assert_closed_forms_equal_the_core(family, clean(family), normal(seeded(seed + 1), family.dim), beta)


def test_batches_equal_one_by_one():
    family = quadratic(1)
    assert_batches_equal_one_by_one(family, 3, seed=2)
    x, beta = normal(seeded(3), 4, 3, 3), torch.rand(4, 1, generator=seeded(4), dtype=torch.float64)
    together = family.adapted(x, beta, steps=2)
    assert together.shape == (family.tasks, 4, 3, 3)
    torch.testing.assert_close(together[:, 2, 1], family.adapted(x[2, 1], float(beta[2]), steps=2))


@given(SEEDS, st.floats(0, 2), STEPS)
@settings(max_examples=50)
def test_the_minimiser_has_zero_gradient_and_the_lowest_loss(seed, beta, steps):
    family = quadratic(seed)
    minimiser, lowest = family.minimiser(beta, steps=steps), family.lowest(beta, steps=steps)
    scale = family.meta_gradient(torch.zeros_like(minimiser), beta, steps=steps).norm()
    scale = scale + (1 + 2 * beta) ** (2 * steps) * (1 + minimiser.norm())
    assert family.meta_gradient(minimiser, beta, steps=steps).norm() <= 1e-12 * scale
    around = minimiser + normal(seeded(seed + 1), 200, family.dim) * torch.logspace(-6, 1, 200).double()[:, None]
    assert bool((family.meta_loss(around, beta, steps=steps) >= lowest * (1 - 1e-12)).all())


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.5])
def test_lowest_is_what_a_minimisation_finds(beta):
    family = quadratic(5)
    assert found_minimum(family, normal(seeded(6), 20, 3), beta) == pytest.approx(family.lowest(beta), rel=1e-9)


def test_a_step_size_that_forgets_x_has_no_unique_minimiser():
    """With H = h I for all tasks and beta = 1/h adaptation ends in a_m from everywhere, so that F is constant."""
    family = quadratic(7)
    family = replace(family, support_matrices=4 * torch.eye(3, dtype=torch.float64).repeat(3, 1, 1))
    with pytest.raises(ValueError, match=r"^beta = 0\.25 with steps = 1 leaves F without a unique minimiser"):
        family.minimiser(0.25)
    with pytest.raises(ValueError, match=r"steps = 2"):
        family.lowest(0.25, steps=2)
    assert family.minimiser(0.25, steps=0).shape == family.minimiser(0.2499).shape == (3,)


def test_a_direction_without_curvature_has_no_unique_minimiser():
    family = quadratic(8)
    basis = orthogonal(seeded(9), 3, 3)
    flat = basis @ torch.diag(torch.tensor([2.0, 1.0, 0.0]).double()) @ basis.T
    with pytest.raises(ValueError, match="unique minimiser"):
        replace(family, support_matrices=flat.repeat(3, 1, 1), query_matrices=flat.repeat(3, 1, 1)).minimiser(0.3)
    curved_in_one_task = torch.stack([flat, flat, torch.eye(3, dtype=torch.float64)])
    assert replace(family, query_matrices=curved_in_one_task).minimiser(0.3).shape == (3,)


@given(SEEDS)
@settings(max_examples=20)
def test_the_constants_are_norms_of_hessians_that_do_not_change(seed):
    family = quadratic(seed)
    constants, (x, y) = family.constants, normal(seeded(seed + 1), 2, family.dim)
    for half, stated in (("support", constants.L1), ("query", constants.Lq)):
        at = hessian(half_loss(family, half))
        norms = [torch.linalg.matrix_norm(at(x, episode), 2).item() for episode in clean(family)]
        assert max(norms) == pytest.approx(stated, rel=1e-12)
    at = hessian(half_loss(family, "support"))
    assert all(torch.equal(at(x, episode), at(y, episode)) for episode in clean(family))
    assert (constants.L2, constants.sH, constants.L0) == (0, 0, math.inf)


def test_the_noise_is_unbiased_and_has_the_stated_standard_deviations():
    family = quadratic(10, zeta=0.7, xi=1.3)
    constants, x = family.constants, normal(seeded(11), 3)
    for episode, expected in zip(apart(family.sample(seeded(12), 40_000)), clean(family), strict=True):
        for half, stated in (("support", constants.sg), ("query", constants.sq)):
            mean = torch.func.grad(half_loss(family, half))(x, expected)
            samples = gradients(family, half, x, episode)
            assert_mean(samples, mean)
            assert root_mean_square(samples - mean) == pytest.approx(stated, rel=0.02)
        some = lane([episode], slice(0, 50))[0]
        matrices = hessians(family, "support", x, some)
        torch.testing.assert_close(matrices, expected.support.targets.expand(50, -1, -1), rtol=1e-12, atol=1e-12)


def test_draw_is_a_pure_function_of_the_seed_and_independent_between_tasks_and_halves():
    assert_draw_is_pure(quadratic(13, zeta=1.0, xi=1.0))
    assert_slopes_are_independent(quadratic(13, zeta=1.0, xi=1.0))
