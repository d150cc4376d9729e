"""Log-cosh regression: closed forms against the core, constants of every sample, minibatches enumerated one by one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharp_maml import Batch, Episode, meta_gradient
from synthetic import LogCosh, apart
from synthetic.logcosh import PRECISE, _log_cosh
from tests.synthetic.families import (
    FAR,
    assert_batches_equal_one_by_one,
    assert_closed_forms_equal_the_core,
    assert_draw_is_pure,
    assert_mean,
    found_minimum,
    gradients,
    half_loss,
    hessian,
    hessians,
    normal,
    orthogonal,
    relative_error,
    root_mean_square,
    seeded,
    tensors,
)

SEEDS = st.integers(0, 2**32 - 1)


def logcosh(seed: int, *, tasks: int = 3, dim: int = 3, samples: int = 5, batch: int = 2, spread: float = 2.0):
    return LogCosh.planted(seeded(seed), tasks=tasks, dim=dim, samples=samples, batch=batch, spread=spread)


def clean(family: LogCosh) -> list[Episode]:
    """The whole data sets."""
    halves = (family.support_inputs, family.support_targets, family.query_inputs, family.query_targets)
    return [Episode(Batch(a, b), Batch(c, d)) for a, b, c, d in zip(*halves, strict=True)]


def every_minibatch(family: LogCosh, m: int) -> Episode:
    """All that can be drawn for a task, each as likely as any other."""
    indices = torch.tensor(list(itertools.product(range(family.support_inputs.shape[1]), repeat=family.batch)))
    return Episode(*(Batch(batch.inputs[indices], batch.targets[indices]) for batch in clean(family)[m]))


def one_task(inputs: torch.Tensor, targets: torch.Tensor, batch: int = 1) -> LogCosh:
    return LogCosh(inputs[None], targets[None], inputs[None], targets[None], batch)


def test_log_cosh_is_exact_and_smooth_from_zero_to_infinity():
    r = torch.tensor([0.0, 0.3, 2.0, 9.0, 11.0, PRECISE / 2, PRECISE, 300.0, 1e6], dtype=torch.float64)
    r = torch.cat([-r, r]).requires_grad_()
    value = _log_cosh(r)
    (first,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    at = r.detach().numpy()
    np.testing.assert_allclose(value.detach(), np.logaddexp(at, -at) - math.log(2), rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(first.detach(), np.tanh(at), rtol=0, atol=1e-15)
    np.testing.assert_allclose(second, 1 - np.tanh(at) ** 2, rtol=0, atol=1e-15)


@given(SEEDS, st.floats(0, 3), st.floats(0, 20), st.integers(1, 4))
def test_the_closed_forms_equal_the_core_and_autograd(seed, beta, spread, tasks):
    family = logcosh(seed, tasks=tasks, spread=spread)
    assert_closed_forms_equal_the_core(family, clean(family), 2 * normal(seeded(seed + 1), family.dim), beta)


def test_batches_equal_one_by_one():
    assert_batches_equal_one_by_one(logcosh(1), 3, seed=2)


def test_query_sets_may_be_of_another_size():
    family = logcosh(3)
    family = replace(family, query_inputs=family.query_inputs[:, :2], query_targets=family.query_targets[:, :2])
    assert_closed_forms_equal_the_core(family, clean(family), normal(seeded(4), family.dim), 0.7)
    assert apart(family.sample(seeded(5), 4))[0].query.inputs.shape == (4, family.batch, family.dim)


def test_planted_tasks_have_unit_inputs_and_weights_as_far_apart_as_asked():
    family = LogCosh.planted(seeded(6), tasks=400, dim=3, samples=8, batch=1, spread=5.0, noise=0.0)
    for inputs in (family.support_inputs, family.query_inputs):
        torch.testing.assert_close(inputs.norm(dim=-1), torch.ones(inputs.shape[:2], dtype=torch.float64))
    planted = torch.linalg.lstsq(family.support_inputs, family.support_targets[..., None]).solution[..., 0]
    assert root_mean_square(planted) == pytest.approx(5.0, rel=0.1)
    torch.testing.assert_close(torch.einsum("mjd,md->mj", family.query_inputs, planted), family.query_targets)


@given(SEEDS, st.floats(-3, 0.5))
@settings(max_examples=50)
def test_the_constants_bound_differences_of_every_minibatch(seed, log_distance):
    family, generator = logcosh(seed, tasks=2, samples=3, batch=1), seeded(seed)
    x, step = normal(generator, 2, family.dim)
    y = x + 10**log_distance * step / step.norm()
    distance = (y - x).norm() * (1 + 1e-9)
    constants = family.constants
    for m in range(family.tasks):
        every = every_minibatch(family, m)
        value = torch.vmap(half_loss(family, "query"), (None, 0))
        assert bool(((value(x, every) - value(y, every)).abs() <= constants.L0 * distance).all())
        for half, stated in (("support", constants.L1), ("query", constants.Lq)):
            change = gradients(family, half, x, every) - gradients(family, half, y, every)
            assert bool((change.norm(dim=-1) <= stated * distance).all())
        change = hessians(family, "support", x, every) - hessians(family, "support", y, every)
        assert bool((torch.linalg.matrix_norm(change, 2) <= constants.L2 * distance).all())


def test_the_constants_of_smoothness_are_attained_by_one_sample():
    unit = torch.tensor([0.6, 0.8], dtype=torch.float64)
    family = one_task(unit[None], torch.zeros(1, dtype=torch.float64))
    constants, (episode,) = family.constants, clean(family)
    query, support = half_loss(family, "query"), half_loss(family, "support")
    assert torch.func.grad(query)(9 * unit, episode).norm() == pytest.approx(constants.L0, rel=1e-6)
    for loss, stated in ((query, constants.Lq), (support, constants.L1)):
        assert torch.linalg.matrix_norm(hessian(loss)(0 * unit, episode), 2) == pytest.approx(stated, rel=1e-12)
    at, h = math.atanh(1 / math.sqrt(3)), 1e-3
    ends = [hessian(support)((at + sign * h) * unit, episode) for sign in (-1, 1)]
    assert torch.linalg.matrix_norm(ends[0] - ends[1], 2) / (2 * h) == pytest.approx(constants.L2, rel=1e-5)


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=30)
def test_all_minibatches_together_are_unbiased_and_their_variances_bounded(seed, batch):
    family = logcosh(seed, samples=3, batch=batch, spread=6.0)
    x, constants = 2 * normal(seeded(seed + 1), family.dim), family.constants
    for m, whole in enumerate(clean(family)):
        every = every_minibatch(family, m)
        for half, stated in (("support", constants.sg), ("query", constants.sq)):
            deviation = gradients(family, half, x, every) - torch.func.grad(half_loss(family, half))(x, whole)
            assert deviation.mean(0).abs().max() <= 1e-14
            assert root_mean_square(deviation) <= stated
        deviation = hessians(family, "support", x, every) - hessian(half_loss(family, "support"))(x, whole)
        assert deviation.mean(0).abs().max() <= 1e-14
        assert root_mean_square(deviation) <= constants.sH


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_variance_of_a_gradient_is_attained_by_opposite_samples(batch):
    family = one_task(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([-9.0, -9.0]).double(), batch)
    x, every = torch.zeros(1, dtype=torch.float64), every_minibatch(family, 0)
    for half, stated in (("support", family.constants.sg), ("query", family.constants.sq)):
        assert root_mean_square(gradients(family, half, x, every)) == pytest.approx(stated, rel=1e-6)


def test_the_variance_of_a_hessian_is_nearly_attained_by_many_orthogonal_samples():
    dim = 30
    family = one_task(orthogonal(seeded(7), dim, dim), torch.zeros(dim, dtype=torch.float64))
    x, every = torch.zeros(dim, dtype=torch.float64), every_minibatch(family, 0)
    deviation = hessians(family, "support", x, every) - torch.eye(dim, dtype=torch.float64) / dim
    assert root_mean_square(deviation) == pytest.approx((1 - 1 / dim) * family.constants.sH, rel=1e-12)


def test_drawn_minibatches_are_unbiased():
    family, x = logcosh(8), normal(seeded(9), 3)
    for episode, whole in zip(apart(family.sample(seeded(10), 5000)), clean(family), strict=True):
        for half in ("support", "query"):
            loss = half_loss(family, half)
            assert_mean(gradients(family, half, x, episode), torch.func.grad(loss)(x, whole))
            assert_mean(hessians(family, half, x, episode), hessian(loss)(x, whole))


def test_the_samples_of_support_and_query_sets_of_all_tasks_are_independent_and_uniform():
    """All pairs of the eight drawn indices of two tasks: each pair of values as often as any other."""
    n, values, family = 20_000, 3, logcosh(11, tasks=2, samples=3, batch=2)
    drawn = apart(family.sample(seeded(12), n))
    columns = []
    for m, episode in enumerate(drawn):
        for inputs, known in ((episode.support.inputs, family.support_inputs[m]),
                              (episode.query.inputs, family.query_inputs[m])):  # fmt: skip
            is_it = (inputs[:, :, None, :] == known).all(-1)
            assert bool((is_it.sum(-1) == 1).all())
            columns += list(is_it.int().argmax(-1).T)
    assert len(columns) == 8
    error = math.sqrt(n * (1 / values**2) * (1 - 1 / values**2))
    for a, b in itertools.combinations(columns, 2):
        counts = torch.bincount(values * a + b, minlength=values**2)
        assert (counts - n / values**2).abs().max() <= FAR * error


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_lowest_is_a_lower_bound(beta):
    family = logcosh(13, samples=8, dim=2)
    assert 0 == family.lowest(beta) <= found_minimum(family, 5 * normal(seeded(14), 2000, 2), beta)


def test_draw_is_a_pure_function_of_the_seed_and_keeps_inputs_and_targets_together():
    family = logcosh(15)
    assert_draw_is_pure(family)
    for m, episode in enumerate(apart(family.sample(seeded(16), 6))):
        known = zip(family.support_inputs[m], family.support_targets[m], strict=True)
        got = zip(episode.support.inputs.reshape(-1, 3), episode.support.targets.reshape(-1), strict=True)
        assert {(*x.tolist(), y.item()) for x, y in got} <= {(*x.tolist(), y.item()) for x, y in known}


def test_the_lanes_of_vmap_equal_the_core_on_each_minibatch():
    family = logcosh(17)
    x, episodes = normal(seeded(18), 4, 3), apart(family.sample(seeded(19), 4))
    options = {"beta_low": 0.4, "alpha_low": 0.1, "alpha_up": 0.2, "query_loss": family.query_loss}

    def core(x, flat):
        parts = [Episode(Batch(*flat[i : i + 2]), Batch(*flat[i + 2 : i + 4])) for i in range(0, len(flat), 4)]
        return meta_gradient(family.loss, {"x": x}, parts, **options).grad["x"]

    flat = tensors(episodes)
    together = torch.vmap(core)(x, flat)
    for i in range(4):
        assert relative_error(together[i], core(x[i], [tensor[i] for tensor in flat])) <= 1e-12
