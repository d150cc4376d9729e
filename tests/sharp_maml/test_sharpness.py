"""Sharpness measures against dense Hessians, closed forms, and the invariances that they are made for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sharp_maml import (
    Batch,
    Episode,
    conv4,
    epsilon_sharpness,
    filter_normalised_direction,
    hessian,
    hessian_trace,
    leading_eigenvalues,
    loss_on_plane,
    meta_loss,
    mlp,
)
from sharp_maml.sharpness import from_vector, to_vector
from tests.sharp_maml.oracles import smooth_loss, smooth_problem


def quadratic(eigenvalues):
    """f(x) = sum_i h_i x_i^2 / 2, in two names."""
    h = torch.tensor(eigenvalues, dtype=torch.float64)
    params = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(len(h) - 2, dtype=torch.float64)}
    return (lambda x: (h * torch.cat([x["a"], x["b"]]) ** 2).sum() / 2), params


def dense_hessian(function, params):
    """By autograd's own double backward on one vector, entry by entry."""
    start = torch.from_numpy(to_vector(params))

    def of_vector(vector):
        parts = torch.split(vector, [value.numel() for value in params.values()])
        return function({name: part.view_as(value) for part, (name, value) in zip(parts, params.items(), strict=True)})

    return torch.autograd.functional.hessian(of_vector, start).numpy()


@pytest.fixture(scope="module", params=["inner", "meta"])
def problem(request):
    """A smooth network's inner loss, or its meta-loss, with the dense Hessian."""
    params, episodes = smooth_problem(3)
    if request.param == "inner":

        def function(x):
            return smooth_loss(x, episodes[0].support)
    else:

        def function(x):
            return meta_loss(smooth_loss, x, episodes, beta_low=0.2, steps=2)

    return function, params, dense_hessian(function, params)


def test_the_operator_is_the_hessian(problem):
    function, params, dense = problem
    np.testing.assert_allclose(hessian(function, params) @ np.eye(len(dense)), dense, atol=1e-10)


def test_leading_eigenvalues_are_those_of_the_dense_hessian(problem):
    function, params, dense = problem
    found = leading_eigenvalues(hessian(function, params), 3)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(dense)[::-1][:3], rtol=1e-3)


def test_the_trace_estimate_covers_the_dense_trace(problem):
    function, params, dense = problem
    estimate = hessian_trace(hessian(function, params), 400)
    assert abs(estimate.mean - np.trace(dense)) < 2 * (estimate.high - estimate.low)
    assert estimate.n == 400


def test_the_trace_of_a_diagonal_hessian_has_no_noise():
    function, params = quadratic([5.0, -2.0, 1.0, 0.5])
    estimate = hessian_trace(hessian(function, params), 2)
    assert estimate.mean == pytest.approx(4.5)
    assert estimate.low == pytest.approx(estimate.high)


def test_the_leading_eigenvalue_is_the_largest_and_not_the_largest_in_size():
    function, params = quadratic([-9.0, 2.0, 1.0, 0.5])
    assert leading_eigenvalues(hessian(function, params), 2) == pytest.approx([2.0, 1.0], rel=1e-3)


def test_the_hessian_of_the_meta_loss_of_conv4_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    model = conv4(ways=2, filters=2, image_size=16, channels=1, batch_norm_form="elementary")
    params = {name: value.double() for name, value in model.init(generator).items()}

    def batch(n):
        return Batch(torch.rand(2 * n, 1, 16, 16, generator=generator, dtype=torch.float64), torch.arange(2).repeat(n))

    def loss(x, data):
        return torch.nn.functional.cross_entropy(model.logits(x, data.inputs, None), data.targets)

    episodes = [Episode(batch(2), batch(3))]

    def function(x):
        return meta_loss(loss, x, episodes, beta_low=0.1)

    def gradient(vector):
        leaves = {name: value.requires_grad_() for name, value in from_vector(vector, params).items()}
        grads = torch.autograd.grad(function(leaves), list(leaves.values()))
        return to_vector(dict(zip(leaves, grads, strict=True)))

    x, v = to_vector(params), np.random.default_rng(1).standard_normal(sum(p.numel() for p in params.values()))
    v /= np.linalg.norm(v)
    step = 1e-6
    expected = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    np.testing.assert_allclose(hessian(function, params) @ v, expected, atol=1e-5 * np.abs(expected).max())


def test_the_epsilon_sharpness_of_a_convex_quadratic_is_that_of_a_corner():
    eigenvalues, epsilon = [4.0, 2.0, 1.0, 0.5], 0.1
    function, params = quadratic(eigenvalues)
    # every corner of the box |y_i| <= epsilon has the largest value
    assert epsilon_sharpness(function, params, epsilon) == pytest.approx(100 * sum(eigenvalues) / 2 * epsilon**2)


def test_the_box_of_the_epsilon_sharpness_grows_with_the_parameters():
    function, params = quadratic([1.0, 0.0, 0.0])
    at = {**params, "a": torch.tensor([3.0, 0.0], dtype=torch.float64)}
    half = 0.1 * (3 + 1)
    rise = ((3 + half) ** 2 - 9) / 2
    assert epsilon_sharpness(function, at, 0.1) == pytest.approx(100 * rise / (1 + 4.5))


def test_a_sharper_quadratic_is_sharper_by_every_measure():
    (flat, params), (sharp, _) = quadratic([1.0, 1.0, 1.0]), quadratic([3.0, 1.0, 1.0])
    for measure in (
        lambda f: leading_eigenvalues(hessian(f, params), 1)[0],
        lambda f: hessian_trace(hessian(f, params), 2).mean,
        lambda f: epsilon_sharpness(f, params, 0.1),
    ):
        assert measure(sharp) > 1.2 * measure(flat)


def test_a_direction_has_the_norm_of_each_filter():
    params = conv4(ways=3, filters=4, image_size=16).init(torch.Generator().manual_seed(1))
    direction = filter_normalised_direction(params, torch.Generator().manual_seed(2))
    for name, value in params.items():
        if value.ndim == 1:
            assert not direction[name].any()
        else:
            torch.testing.assert_close(direction[name].flatten(1).norm(dim=1), value.flatten(1).norm(dim=1))


def test_on_its_plane_a_network_looks_the_same_whatever_the_scale_of_its_filters():
    model = conv4(ways=2, filters=3, image_size=16, batch_norm_form="elementary")
    params = {name: value.double() for name, value in model.init(torch.Generator().manual_seed(1)).items()}
    scaled = {name: value * (50.0 if name.startswith("conv") else 1.0) for name, value in params.items()}
    images, targets = torch.rand(6, 3, 16, 16, dtype=torch.float64), torch.arange(6) % 2

    def function(x):
        return torch.nn.functional.cross_entropy(model.logits(x, images, None), targets)

    planes = []
    for at in (params, scaled):
        generator = torch.Generator().manual_seed(7)
        directions = tuple(filter_normalised_direction(at, generator) for _ in range(2))
        planes.append(loss_on_plane(function, at, directions, [-1.0, 0.0, 0.5]))
    # up to batch norm's 1e-5, which does not scale
    np.testing.assert_allclose(planes[0], planes[1], rtol=0.02)
    assert planes[0].std() > 0.02 * planes[0].mean()  # the agreement says something
    assert planes[0][1, 1] == pytest.approx(float(function(params)))


def test_rows_of_a_plane_are_the_first_direction():
    function, params = quadratic([2.0, 0.0, 0.0])
    first = {"a": torch.tensor([1.0, 0.0], dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    second = {"a": torch.tensor([0.0, 1.0], dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    np.testing.assert_allclose(loss_on_plane(function, params, (first, second), [0, 3]), [[0, 0], [9, 9]])


def test_vectors_and_parameters_are_each_others_inverse():
    params = mlp(sizes=[2, 3, 2]).init(torch.Generator().manual_seed(0))
    back = from_vector(to_vector(params), params)
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in params.items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, p: leading_eigenvalues(hessian(f, p), 4), r"count must be in \[1, 3\], got 4"),
        (lambda f, p: hessian_trace(hessian(f, p), 1), "samples must be at least 2, got 1"),
        (lambda f, p: epsilon_sharpness(f, p, 0.0), "epsilon must be > 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*quadratic([1.0, 1.0, 1.0, 1.0]))
