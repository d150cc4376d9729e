"""Estimators of the theorem's constants against families whose constants are known, and dense matrices."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse.linalg import aslinearoperator
from torch.nn.functional import cross_entropy

from sharp_maml import Batch, Episode, hessian, meta_gradient, mlp
from synthetic import Quadratic, Wells, apart
from theory.networks import local

SEEDS = st.integers(0, 2**31)


def uniform(generator: torch.Generator, *size: int) -> torch.Tensor:
    return 4 * torch.rand(*size, generator=generator, dtype=torch.float64) - 2


def wells(seed: int, *, dim: int = 4, tasks: int = 1, **noise: float) -> tuple[Wells, torch.Tensor]:
    """Random wells with A = 1.3, and a point."""
    generator = torch.Generator().manual_seed(seed)
    family = Wells(uniform(generator, tasks, dim), uniform(generator, tasks, dim), A=1.3, **noise)
    return family, uniform(generator, dim)


def losses(family):
    """Support and query loss of a family, the mean over the samples of a batch."""
    return (
        lambda params, batch: family.loss(params, batch).mean(),
        lambda params, episode: family.query_loss(params, episode).mean(),
    )


def drawn(family, seed: int, n: int) -> list[Episode]:
    return apart(family.sample(torch.Generator().manual_seed(seed), n))


def support_of(family: Wells):
    """The expected support loss of the only task."""
    (task,) = drawn(replace(family, zeta=0.0, sA=0.0), 0, 1)
    return lambda params: losses(family)[0](params, task.support)


@given(SEEDS, st.integers(3, 30))
@settings(max_examples=20, deadline=None)
def test_the_extremes_of_a_matrix_are_those_of_its_spectrum(seed: int, dim: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(dim, dim))
    matrix += matrix.T
    exact = np.linalg.eigvalsh(matrix)
    low, high = local.extremes(aslinearoperator(matrix), tolerance=1e-10)
    assert (low, high) == pytest.approx((exact[0], exact[-1]), rel=1e-8)
    norm = local.operator_norm(aslinearoperator(matrix), tolerance=1e-10)
    assert norm == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-8)


def test_lanczos_on_the_core_is_the_explicit_hessian_of_a_network() -> None:
    model = mlp(sizes=(3, 5, 2))
    generator = torch.Generator().manual_seed(0)
    params = {name: value.double() for name, value in model.init(generator).items()}
    inputs, targets = uniform(generator, 20, 3), torch.arange(20) % 2

    def loss(x):
        return cross_entropy(model.logits(x, inputs, None), targets)

    names, shapes = list(params), [value.shape for value in params.values()]
    sizes = [shape.numel() for shape in shapes]

    def flat(vector: torch.Tensor) -> torch.Tensor:
        parts = zip(names, vector.split(sizes), shapes, strict=True)
        return loss({name: part.view(shape) for name, part, shape in parts})

    vector = torch.cat([value.flatten() for value in params.values()])
    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(flat, vector))
    low, high = local.extremes(hessian(loss, params), tolerance=1e-10)
    assert (low, high) == pytest.approx((float(exact[0]), float(exact[-1])), rel=1e-8)
    found = torch.cat([value.flatten() for value in local.gradient(loss, params).values()])
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(flat, vector), rtol=1e-12, atol=1e-14)


@given(SEEDS, st.floats(0.01, 2.0))
@settings(max_examples=20, deadline=None)
def test_quotients_of_wells_are_exact_and_below_the_known_constants(seed: int, radius: float) -> None:
    family, x = wells(seed)
    direction = uniform(torch.Generator().manual_seed(seed + 1), 4)
    along = {"x": 3 * direction}  # of any length
    away = x + radius * direction / direction.norm()
    a = family.support_centres[0]
    of_gradient = float((family.A * ((away - a).sin() - (x - a).sin())).norm()) / radius
    of_hessian = float((family.A * ((away - a).cos() - (x - a).cos())).abs().max()) / radius
    function = support_of(family)
    assert local.gradient_quotient(function, {"x": x}, along, radius) == pytest.approx(of_gradient, rel=1e-9)
    found = local.hessian_quotient(function, {"x": x}, along, radius)
    assert found == pytest.approx(of_hessian, rel=2 * local.TOLERANCE)
    assert found <= family.constants.L2
    assert of_gradient <= family.constants.L1


def test_where_the_constant_of_the_hessian_is_attained_it_is_found_and_twice_as_large_for_twice_the_wells() -> None:
    family, _ = wells(0)
    x = {"x": family.support_centres[0] + math.pi / 2}
    along = {"x": torch.eye(4, dtype=torch.float64)[0]}
    exact = [f.A * (1 - math.cos(0.0) + math.sin(0.01)) / 0.01 for f in (family, replace(family, A=2.6))]
    found = [local.hessian_quotient(support_of(f), x, along, 0.01) for f in (family, replace(family, A=2.6))]
    assert found == pytest.approx(exact, rel=local.TOLERANCE)
    assert found[0] == pytest.approx(family.constants.L2, rel=local.TOLERANCE)


def test_a_quadratic_has_no_quotient_of_the_hessian_and_one_that_jumps_has_no_bound() -> None:
    def square(params):
        return (params["x"] ** 2).sum()

    def kinked(params):
        return (params["x"].relu() ** 2).sum()

    x, along = {"x": torch.full((4,), -1e-4, dtype=torch.float64)}, {"x": torch.ones(4, dtype=torch.float64)}
    assert local.hessian_quotient(square, x, along, 0.1) == 0
    for radius in (0.1, 0.01, 0.001):
        found = local.hessian_quotient(kinked, x, along, radius)
        assert found == pytest.approx(2 / radius, rel=local.TOLERANCE)
        assert local.gradient_quotient(kinked, x, along, radius) <= 2


def between(variance: float, found: float, n: int) -> bool:
    """Whether a standard deviation of `n` normal numbers is one that these have with probability 1 - 1e-6."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], n - 1)
    return low <= (n - 1) * found**2 / variance <= high


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_noise_of_gradients_is_that_of_the_family_and_a_wrong_constant_is_noticed(noise: float) -> None:
    family, x = wells(3, dim=3, zeta=noise, xi=2 * noise)
    loss, query_loss = losses(family)
    (task,) = drawn(family, 4, 400)
    samples = [local.sample(task, i) for i in range(400)]
    supports = [local.gradient(lambda x, one=one: loss(x, one.support), {"x": x}) for one in samples]
    queries = [local.gradient(lambda x, one=one: query_loss(x, one), {"x": x}) for one in samples]
    # |v - mean|^2 sums over three coordinates of variance sigma^2 / 3 each
    for vectors, sigma in ((supports, family.constants.sg), (queries, family.constants.sq)):
        freedom = 3 * 399 + 1
        assert between(sigma**2, local.deviation(vectors), freedom)
        assert not between((2 * sigma) ** 2, local.deviation(vectors), freedom)


def test_the_noise_of_a_hessian_is_that_of_the_family_where_half_of_the_pairs_differ() -> None:
    family, x = wells(5, sA=0.2)
    centre, no_slope = family.support_centres[0], torch.zeros(4, dtype=torch.float64)

    def sampled(height: float):
        batch = Batch(torch.stack([centre, no_slope]), torch.tensor(height, dtype=torch.float64))
        return lambda params: family.loss(params, batch)

    for factor in (1.0, 2.0):
        low, high = (sampled(family.A * (1 + sign * factor * family.sA)) for sign in (-1, 1))
        every = [low, high, low, low, high, low, high, high]  # two values with equal probability
        exact = factor * family.A * family.sA * float((x - centre).cos().abs().max())
        assert local.hessian_deviation(every, {"x": x}) == pytest.approx(exact, rel=local.TOLERANCE)
    assert family.A * family.sA * float((x - centre).cos().abs().max()) <= family.constants.sH


def meta_gradients(family, **radii: float):
    """The algorithm with these radii, and the plain meta-gradient."""
    loss, query_loss = losses(family)
    exact = partial(meta_gradient, loss, beta_low=0.4, query_loss=query_loss)
    return partial(exact, **radii), exact


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_there_is_no_bias_where_the_support_has_no_noise(seed: int) -> None:
    family, x = wells(seed, tasks=2, xi=1.0)
    bias, of_all = local.bias(*meta_gradients(family), {"x": x}, drawn(family, seed, 6))
    assert float(bias["x"].norm()) <= 1e-13
    xi = torch.stack([task.query.inputs[:, 1].mean(0) for task in drawn(family, seed, 6)])
    factor = 1 - 0.4 * family.A * (x - family.support_centres).cos()
    exact = family.meta_gradient(x, 0.4) + (factor * xi).mean(0)
    torch.testing.assert_close(of_all["x"], exact, rtol=1e-12, atol=1e-13)


def test_gradient_noise_alone_biases_no_quadratic() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)).expand(2, 3, 3)
    family = Quadratic(matrix, matrix, uniform(generator, 2, 3), uniform(generator, 2, 3), zeta=1.0, xi=1.0)
    bias, _ = local.bias(*meta_gradients(family), {"x": uniform(generator, 3)}, drawn(family, 1, 6))
    assert float(bias["x"].norm()) <= 1e-12


@pytest.mark.parametrize("sA", [0.3, 0.6])
def test_the_bias_of_random_wells_is_the_mean_over_their_two_heights(sA: float) -> None:
    family, x = wells(7, dim=2, sA=sA)
    halves = [replace(family, A=family.A * (1 + sign * sA)).meta_gradient(x, 0.4) for sign in (-1, 1)]
    exact = sum(halves) / 2 - family.meta_gradient(x, 0.4)
    (task,) = drawn(family, 8, 200)
    low, high = (torch.nonzero((task.support.targets > family.A) == side).flatten().tolist() for side in (False, True))
    number = min(len(low), len(high))
    even = local.sample(task, *low[:number], *high[:number])  # the mean loss has height A
    bias, of_all = local.bias(*meta_gradients(family), {"x": x}, [even])
    torch.testing.assert_close(bias["x"], exact, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(of_all["x"], family.meta_gradient(x, 0.4), rtol=1e-10, atol=1e-12)
    assert float(exact.norm()) > 1e-3


def test_a_perturbation_is_part_of_the_bias() -> None:
    family, x = wells(9, dim=3, tasks=2)
    algorithm, exact = meta_gradients(family, alpha_up=0.1)
    bias, slope = local.bias(algorithm, exact, {"x": x}, drawn(family, 0, 2))
    above = x + 0.1 * slope["x"] / slope["x"].norm()
    expected = family.meta_gradient(above, 0.4) - family.meta_gradient(x, 0.4)
    torch.testing.assert_close(bias["x"], expected, rtol=1e-9, atol=1e-12)


def test_all_constants_of_a_task_are_at_most_those_of_its_family() -> None:
    family, x = wells(11, zeta=0.3, xi=0.7)
    (task,) = drawn(family, 12, 200)
    found = local.of_task(*losses(family), {"x": x}, task, beta_low=0.4, steps=1, seed=0)
    known = family.constants
    curvature = family.A * (x - family.support_centres[0]).cos()
    assert (found["low"], found["high"]) == pytest.approx((float(curvature.min()), float(curvature.max())), rel=1e-2)
    assert found["L1"] == pytest.approx(float(curvature.abs().max()), rel=1e-2)
    assert found["sH"] == 0
    for name, vectors in (("sg", known.sg), ("sq", known.sq)):
        assert between(vectors**2, found[name], 4 * 199 + 1)
    for direction in ("gradient", "random"):
        for scale in local.SCALES:
            assert found[f"L1 {direction} {scale:g}"] <= known.L1
            assert found[f"L2 {direction} {scale:g}"] <= known.L2
    assert found["Lq"] <= known.Lq
    slope = task.support.inputs[0, 1] + family.A * (x - family.support_centres[0]).sin()
    assert found["slope"] == pytest.approx(float(slope.norm()))
    assert found["step"] == pytest.approx(0.4 * found["slope"])


def test_of_the_meta_objective_of_wells_curvature_and_squares_are_exact_without_noise() -> None:
    family, x = wells(13, tasks=3)
    algorithm, exact = meta_gradients(family, alpha_up=0.2)
    tasks = drawn(family, 0, 4)
    found = local.of_tasks(*losses(family), algorithm, exact, {"x": x}, tasks, beta_low=0.4, steps=1)
    gradient = family.meta_gradient(x, 0.4)
    curvature = torch.autograd.functional.jacobian(lambda y: family.meta_gradient(y, 0.4), x).diagonal()
    assert (found["low"], found["high"]) == pytest.approx((float(curvature.min()), float(curvature.max())), rel=1e-2)
    assert found["L_F"] == max(-found["low"], found["high"])
    above = family.meta_gradient(x + 0.2 * gradient / gradient.norm(), 0.4)
    assert found["bias^2"] == pytest.approx(float((above - gradient).square().sum()), rel=1e-9)
    assert found["slope^2"] == pytest.approx(float(gradient.square().sum()), rel=1e-9)
    assert found["loss"] == pytest.approx(float(family.meta_loss(x, 0.4)))


def test_the_square_of_a_gradient_is_estimated_without_the_noise_that_a_plain_square_has() -> None:
    family, x = wells(15, xi=3.0)
    algorithm, exact = meta_gradients(family)
    truth = float(family.meta_gradient(x, 0.4).square().sum())
    crossed, plain = [], []
    for seed in range(200):
        tasks = drawn(family, seed, 4)
        found = local.of_tasks(*losses(family), algorithm, exact, {"x": x}, tasks, beta_low=0.4, steps=1)
        crossed.append(found["slope^2"])
        plain.append(float(exact({"x": x}, tasks).grad["x"].square().sum()))
    assert stats.ttest_1samp(crossed, truth).pvalue > 1e-3
    assert stats.ttest_1samp(plain, truth).pvalue < 1e-6  # the control


def test_a_deviation_of_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        local.deviation([{"x": torch.zeros(2)}])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        local.hessian_deviation([lambda params: params["x"].sum()], {"x": torch.zeros(3)})
