from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays

from sharp_maml import ascent
from sharp_maml.ascent import direction

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
    unit, reciprocal = direction({"a": torch.zeros(3)})
    assert unit["a"].tolist() == [0, 0, 0]
    assert reciprocal == 0


def test_the_derivative_at_a_zero_gradient_is_not_nan():
    grad = torch.func.jacrev(lambda g: ascent({"a": torch.ones(2)}, {"a": g}, alpha=1.0)["a"])(torch.zeros(2))
    assert torch.isfinite(grad).all()


def test_the_derivative_is_that_of_the_normalised_gradient():
    g = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: direction({"a": g})[0]["a"], g)
    assert torch.autograd.gradcheck(lambda g: direction({"a": g})[1], g)


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
    unit, _ = direction({"a": torch.tensor([size, 0.0]), "b": torch.tensor([-size])})
    torch.testing.assert_close(torch.cat(list(unit.values())), torch.tensor([1.0, 0.0, -1.0]) / 2**0.5)
