from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays

from sharp_maml import ascent
from sharp_maml.ascent import ASCENTS, adaptive, along_gradient, at_random, on_half, within

entries = arrays("float64", 5, elements=st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3))


def split(vector) -> dict:
    v = torch.from_numpy(vector)
    return {"a": v[:2], "b": v[2:]}


@given(entries.filter(lambda v: v.any()), st.floats(1e-6, 1e3))
def test_the_ascent_has_length_alpha_along_the_gradient(vector, alpha):
    zero = split(vector * 0)
    step = torch.cat(list(ascent(zero, split(vector), alpha=alpha).values()))
    assert step.norm().item() == pytest.approx(alpha, rel=1e-12)
    assert torch.dot(step, torch.from_numpy(vector)).item() == pytest.approx(
        alpha * torch.from_numpy(vector).norm().item(), rel=1e-12
    )


@given(entries, st.sampled_from([1e-150, 1e-30, 1.0, 1e30, 1e150]))
def test_scaling_the_gradient_leaves_the_ascent_unchanged_even_where_squares_overflow(vector, scale):
    zero = split(vector * 0)
    one, scaled = ascent(zero, split(vector), alpha=0.5), ascent(zero, split(vector * scale), alpha=0.5)
    for name in one:
        torch.testing.assert_close(scaled[name], one[name], rtol=1e-12, atol=1e-12)


def test_a_zero_gradient_gives_a_zero_perturbation():
    params = {"a": torch.ones(3)}
    assert torch.equal(ascent(params, {"a": torch.zeros(3)}, alpha=1.0)["a"], params["a"])
    unit, product = along_gradient({}, {"a": torch.zeros(3)})
    assert unit["a"].tolist() == [0, 0, 0]
    assert product({"a": torch.ones(3)})[1]["a"].tolist() == [0, 0, 0]


def test_the_derivative_at_a_zero_gradient_is_not_nan():
    grad = torch.func.jacrev(lambda g: ascent({"a": torch.ones(2)}, {"a": g}, alpha=1.0)["a"])(torch.zeros(2))
    assert torch.isfinite(grad).all()


def test_the_derivative_is_that_of_the_normalised_gradient():
    g = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: along_gradient({}, {"a": g})[0]["a"], g)


def test_alpha_zero_returns_the_parameters_and_other_names_stay():
    params = {"a": torch.ones(2), "b": torch.ones(1)}
    assert ascent(params, {"a": torch.ones(2)}, alpha=0)["a"] is params["a"]
    assert ascent(params, {"a": torch.ones(2)}, alpha=1.0)["b"] is params["b"]


def test_a_negative_radius_is_an_error():
    with pytest.raises(ValueError, match="alpha is a radius and must be >= 0, got -1"):
        ascent({"a": torch.ones(1)}, {"a": torch.ones(1)}, alpha=-1)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_a_radius_may_be_a_lane_of_a_vmap(alpha):
    batched = torch.func.vmap(lambda r: ascent({"a": torch.ones(2)}, {"a": torch.ones(2)}, alpha=r))(
        torch.tensor([alpha, 1.0])
    )
    torch.testing.assert_close(batched["a"][0], ascent({"a": torch.ones(2)}, {"a": torch.ones(2)}, alpha=alpha)["a"])


@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-30, 1e38])
def test_the_direction_of_a_gradient_at_the_ends_of_float32_is_a_unit_vector(size):
    """A subnormal has no finite reciprocal, and the square of a large number is infinite."""
    unit, _ = along_gradient({}, {"a": torch.tensor([size, 0.0]), "b": torch.tensor([-size])})
    torch.testing.assert_close(torch.cat(list(unit.values())), torch.tensor([1.0, 0.0, -1.0]) / 2**0.5)


# Other directions.

GRAD = {"conv1.weight": torch.randn(40, 30, generator=torch.Generator().manual_seed(0)), "norm1.scale": torch.ones(40)}


def flat(tree):
    return torch.cat([value.flatten() for value in tree.values()])


@pytest.mark.parametrize("name", sorted(set(ASCENTS) - {"asam"}))
def test_every_direction_but_that_of_asam_has_length_one(name):
    unit, _ = ASCENTS[name].for_names({"norm1.scale"})({}, GRAD)
    assert flat(unit).norm().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("name", sorted(name for name in ASCENTS if name != "random"))
def test_the_product_of_a_direction_is_that_of_autograd(name):
    """Without `random`, whose numbers depend on the gradient and whose distribution does not."""
    generator = torch.Generator().manual_seed(2)
    grad = {key: value.double().requires_grad_() for key, value in GRAD.items()}
    params, w = (
        {key: torch.randn(value.shape, generator=generator, dtype=torch.float64) for key, value in GRAD.items()}
        for _ in range(2)
    )
    params = {key: value.requires_grad_() for key, value in params.items()}
    unit, pullback = ASCENTS[name].for_names({"norm1.scale"})(params, grad)
    total = sum((unit[key] * w[key]).sum() for key in w)
    pulled = torch.autograd.grad(total, [*params.values(), *grad.values()], materialize_grads=True)
    of_params, of_grad = pullback(w)
    of_params = {key: of_params.get(key, torch.zeros_like(value)) for key, value in params.items()}
    for expected, found in zip(pulled, [*of_params.values(), *of_grad.values()], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_the_ascent_on_norm_parameters_leaves_the_others():
    unit, _ = within({"norm1.scale", "norm2.scale"})({}, GRAD)
    assert not unit["conv1.weight"].any()
    torch.testing.assert_close(unit["norm1.scale"], torch.full((40,), 40**-0.5))


def test_an_ascent_on_norm_parameters_is_refused_where_there_are_none():
    with pytest.raises(ValueError, match="along parameters of normalisation layers, and the network has none"):
        ASCENTS["norm"].for_names(())
    assert ASCENTS["gradient"].for_names(()) is along_gradient


def test_the_ascent_on_half_goes_along_the_gradient_on_about_half_of_the_entries():
    unit, _ = on_half({}, GRAD)
    kept = flat(unit) != 0
    assert kept.double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 1240**0.5)
    ratio = flat(unit)[kept] / flat(GRAD)[kept]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))


def test_a_random_direction_has_nothing_to_do_with_the_gradient_and_is_uniform():
    scales = [1 + 1e-3 * k for k in range(400)]
    draws = torch.stack([flat(at_random({}, {name: s * value for name, value in GRAD.items()})[0]) for s in scales])
    cosines = draws @ (flat(GRAD) / flat(GRAD).norm())
    assert cosines.mean().abs() < 5 / (400 * 1240) ** 0.5
    assert cosines.std().item() == pytest.approx(1240**-0.5, rel=0.2)
    assert draws.mean(0).norm() < 2 * 400**-0.5
    _, product = at_random({}, GRAD)
    assert not flat(product(GRAD)[1]).any()  # it does not move with the gradient


@pytest.mark.parametrize("draw", [at_random, on_half])
def test_a_draw_is_a_function_of_the_gradient_alone(draw):
    torch.manual_seed(1)
    one = flat(draw({}, GRAD)[0])
    torch.manual_seed(2)
    assert torch.equal(flat(draw({}, GRAD)[0]), one)
    nearly = {**GRAD, "norm1.scale": GRAD["norm1.scale"] * (1 + 1e-6)}
    assert not torch.equal(flat(draw({}, nearly)[0]) != 0, one != 0) or draw is at_random
    assert (flat(draw({}, nearly)[0]) - one).norm() > 0.5


# ASAM.

TREE = {
    "a": torch.tensor([[0.5, -2.0], [0.0, 1.0]], dtype=torch.float64),
    "b": torch.tensor([-0.25], dtype=torch.float64),
}
SLOPE = {
    "a": torch.tensor([[1.0, 0.5], [-3.0, 0.0]], dtype=torch.float64),
    "b": torch.tensor([2.0], dtype=torch.float64),
}


def test_the_adaptive_ascent_is_the_formula_of_the_paper():
    """T = diag(|theta| + eta) as a matrix, eps = rho T^2 g / |T g|."""
    T = torch.diag(flat(TREE).abs() + 0.01)
    expected = flat(TREE) + 0.3 * (T @ T @ flat(SLOPE)) / (T @ flat(SLOPE)).norm()
    found = ascent(TREE, SLOPE, alpha=0.3, direction=adaptive)
    torch.testing.assert_close(flat(found), expected, rtol=1e-13, atol=0)


def test_the_adaptive_ascent_maximises_the_linearised_loss_in_its_ellipsoid():
    size = flat(TREE).abs() + 0.01
    best = torch.dot(flat(adaptive(TREE, SLOPE)[0]), flat(SLOPE))
    others = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = size * others / others.norm(dim=1, keepdim=True)
    assert (flat(adaptive(TREE, SLOPE)[0]) / size).norm().item() == pytest.approx(1, rel=1e-13)
    assert (others @ flat(SLOPE)).max() <= best


def normalised_loss(params):
    """A layer, batch norm without its small constant, and a linear head: the scale of `w` changes nothing."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(7, generator=generator, dtype=torch.float64)
    z = x @ params["w"]
    z = (z - z.mean(0)) / z.std(0, correction=0)
    return ((z.tanh() @ params["head"]) - y).square().mean()


@given(st.floats(1e-2, 1e2))
def test_the_adaptive_ascent_does_not_see_a_rescaling_of_weights_before_batch_norm(scale):
    """The loss at the perturbed point is the same for (w, head) and (scale w, head); along the gradient it is not."""
    generator = torch.Generator().manual_seed(4)
    params = {name: torch.randn(shape, generator=generator, dtype=torch.float64)
              for name, shape in (("w", (4, 3)), ("head", (3,)))}  # fmt: skip
    scaled = {"w": scale * params["w"], "head": params["head"]}

    def at_the_top(at, direction):
        grad = torch.func.grad(normalised_loss)(at)
        return normalised_loss(ascent(at, grad, alpha=0.2, direction=direction)).item()

    invariant = partial(adaptive, eta=0.0)
    assert at_the_top(scaled, invariant) == pytest.approx(at_the_top(params, invariant), rel=1e-10)
    if abs(scale - 1) > 0.1:
        assert at_the_top(scaled, along_gradient) != pytest.approx(at_the_top(params, along_gradient), rel=1e-4)
