"""Risk around a parameter: quadrature, sampling and enclosures against closed forms and dense grids."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic import Welsch
from theory.generalization import risk as perturbation
from theory.generalization.risk import ascent_maximum, ball_maximum, gaussian_risk, sampled_risk

SMOOTHNESS = 1.0


def bowl(dim: int):
    """The loss of one sample at the origin; its Gaussian mean is the task risk with sigma = s."""
    return lambda x: -torch.expm1(-x.square().sum(-1) / 2)


def mean_of_bowl(x: torch.Tensor, deviation: float) -> torch.Tensor:
    return Welsch(torch.zeros((1, x.shape[-1]), dtype=torch.float64), deviation).task_risk(x[..., None, :])[..., 0]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 2]), st.floats(0, 1.0), st.integers(0, 10**6))
def test_quadrature_is_the_closed_form(dim, deviation, seed) -> None:
    x = 2 * torch.randn((5, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(gaussian_risk(bowl(dim), x, deviation), mean_of_bowl(x, deviation), rtol=0, atol=1e-8)


def test_more_nodes_change_nothing(monkeypatch) -> None:
    x = torch.tensor([0.3, -0.4], dtype=torch.float64)
    few = gaussian_risk(bowl(2), x, 0.5)
    monkeypatch.setattr(perturbation, "NODES", 40)
    torch.testing.assert_close(gaussian_risk(bowl(2), x, 0.5), few, rtol=0, atol=1e-12)


def test_the_interval_of_sampling_holds_the_mean_in_any_dimension() -> None:
    for dim in (2, 30):
        x = torch.full((dim,), 0.1, dtype=torch.float64)
        found = sampled_risk(bowl(dim), x, 0.2, samples=4000, generator=torch.Generator().manual_seed(dim))
        assert found.low <= float(mean_of_bowl(x, 0.2)) <= found.high
        assert found.high - found.low <= 2 * math.sqrt(math.log(2 / perturbation.LEVEL) / 8000) + 1e-12


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([1, 2]), st.integers(0, 10**6), st.floats(0.1, 1.5))
def test_the_enclosure_holds_the_maximum_of_a_dense_grid(dim, seed, radius) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn((4, dim), generator=generator, dtype=torch.float64)
    risk = lambda x: -torch.expm1(-(x[..., None, :] - centres).square().sum(-1) / 2).mean(-1)  # noqa: E731
    x = torch.randn(dim, generator=generator, dtype=torch.float64)
    found = ball_maximum(risk, x, radius, smoothness=SMOOTHNESS, tolerance=1e-4)
    assert found.high - found.low <= 1e-4
    side = torch.linspace(-radius, radius, 81, dtype=torch.float64)
    offsets = torch.cartesian_prod(*[side] * dim).view(-1, dim)
    dense = float(risk(x + offsets[offsets.norm(dim=-1) <= radius]).max())
    assert dense <= found.high
    assert float((found.argument - x).norm()) <= radius * (1 + 1e-12)
    assert float(risk(found.argument)) == pytest.approx(found.low)


def test_the_maximum_of_a_bowl_is_on_the_side_away_from_its_middle() -> None:
    x = torch.tensor([0.3, 0.4], dtype=torch.float64)
    found = ball_maximum(bowl(2), x, 0.5, smoothness=SMOOTHNESS, tolerance=1e-6)
    assert found.low == pytest.approx(-math.expm1(-0.5), abs=1e-6)
    torch.testing.assert_close(found.argument, 2 * x, rtol=0, atol=1e-2)
    low, where = ascent_maximum(bowl(2), x, 0.5, start=x, smoothness=SMOOTHNESS)
    assert low == pytest.approx(-math.expm1(-0.5), abs=1e-6)
    assert float((where - x).norm()) <= 0.5 * (1 + 1e-12)


def test_ascent_is_at_most_the_enclosure_and_starts_inside() -> None:
    x = torch.zeros(2, dtype=torch.float64)
    low, where = ascent_maximum(bowl(2), x, 0.5, start=torch.tensor([9.0, 0.0]).double(), smoothness=1.0, steps=0)
    assert float(where.norm()) == pytest.approx(0.5)
    assert low <= ball_maximum(bowl(2), x, 0.5, smoothness=1.0, tolerance=1e-5).high


X = torch.zeros(2, dtype=torch.float64)
THREE = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_risk(bowl(3), THREE, 0.1), "quadrature is for d <= 2"),
        (lambda: gaussian_risk(bowl(2), X, -0.1), "s >= 0"),
        (lambda: ball_maximum(bowl(3), THREE, 0.1, smoothness=1, tolerance=1e-3), "for d <= 2"),
        (lambda: ball_maximum(bowl(2), X, 0.0, smoothness=1, tolerance=1e-3), "a positive radius"),
        (lambda: ball_maximum(bowl(2), X, 1.0, smoothness=1, tolerance=0), "tolerance"),
        (lambda: sampled_risk(bowl(2), X, 0.1, samples=0, generator=torch.Generator()), "samples must be >= 1"),
        (
            lambda: sampled_risk(lambda x: 2 + x[..., 0], X, 0.1, samples=5, generator=torch.Generator()),
            r"a risk must be in \[0, 1\]",
        ),
    ],
)
def test_what_cannot_be_computed_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
