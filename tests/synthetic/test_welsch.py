"""Bounded location tasks: closed forms against sampling and the core, constants attained, wrong data named."""

from __future__ import annotations

import math
from operator import itemgetter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_map

from sharp_maml import adapt, meta_loss
from synthetic import Welsch
from tests.synthetic.families import normal, seeded

SEEDS = st.integers(0, 10**6)


def family(seed: int, *, tasks: int = 3, dim: int = 2, sigma: float = 0.7) -> Welsch:
    return Welsch.drawn(seeded(seed), tasks=tasks, dim=dim, tau=1.0, sigma=sigma)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_task_risk_is_the_mean_loss_over_samples(dim) -> None:
    tasks = family(0, dim=dim)
    x = normal(seeded(1), dim)
    samples = tasks.draw(seeded(2), 200_000)[0]
    losses = -torch.expm1(-(x - samples).square().sum(-1) / 2)
    error = losses.std(-1) / math.sqrt(losses.shape[-1])
    assert bool(((losses.mean(-1) - tasks.task_risk(x)).abs() < 5 * error).all())


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.floats(0, 3))
def test_closed_forms_are_those_of_the_core(seed, beta) -> None:
    tasks = family(seed)
    generator = seeded(seed + 1)
    support, query = tasks.draw(generator, 6)[0], tasks.draw(generator, 4)[0]
    x = 2 * normal(generator, 2)
    together = tasks.episodes(support, query)
    episodes = [tree_map(itemgetter(m), together) for m in range(tasks.tasks)]
    adapted = tasks.adapted(x, support, beta)
    for of_task, episode in zip(adapted, episodes, strict=True):
        found = adapt(tasks.loss, {"x": x}, episode.support, beta_low=beta)["x"]
        torch.testing.assert_close(of_task, found, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        tasks.risk(adapted, query).mean(), meta_loss(tasks.loss, {"x": x}, episodes, beta_low=beta), rtol=0, atol=1e-13
    )


def test_the_population_risk_is_the_mean_over_fresh_queries() -> None:
    tasks = family(3)
    supports, queries = tasks.draw(seeded(4), 5, 4000), tasks.draw(seeded(5), 5, 4000)
    x = normal(seeded(6), 7, 2)
    found = tasks.population(x, supports, 0.5)
    assert found.shape == (7,)
    sampled = torch.stack([tasks.risk(tasks.adapted(one, supports, 0.5), queries).mean(-1) for one in x])
    error = sampled.std(1) / math.sqrt(4000)
    assert bool(((sampled.mean(1) - found).abs() < 5 * error).all())


def test_data_sets_with_tasks_of_their_own_are_as_many_families() -> None:
    own = Welsch.drawn(seeded(7), 3, tasks=2, dim=2, tau=1.0, sigma=0.7)
    supports = torch.stack([own.draw(seeded(seed), 5) for seed in (8, 9)])
    x = normal(seeded(10), 3, 2)
    found = own.population(x, supports, 0.5)
    assert (own.tasks, own.dim, supports.shape) == (2, 2, (2, 3, 2, 5, 2))
    for one, centres, of_data_set, at in zip(found, own.centres, supports.unbind(1), x, strict=True):
        torch.testing.assert_close(one, Welsch(centres, 0.7).population(at, of_data_set, 0.5))
    many = own.draw(seeded(11), 20_000)
    assert bool(((many.mean(-2) - own.centres).abs() < 5 * 0.7 / math.sqrt(20_000)).all())


def test_the_constants_are_attained() -> None:
    r = torch.linspace(0, 6, 60_001, dtype=torch.float64)
    decay = (-(r**2) / 2).exp()
    slope, bend, third = r * decay, (1 - r**2) * decay, r * (3 - r**2) * decay
    for values, constant in ((slope, Welsch.L0), (bend, Welsch.L1), (third, Welsch.L2)):
        assert float(values.abs().max()) == pytest.approx(constant, rel=1e-7)


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_losses_are_in_the_unit_interval_and_draws_depend_on_the_generator_alone(seed) -> None:
    tasks = family(seed)
    one, same = (tasks.draw(seeded(seed), 3, 2) for _ in range(2))
    assert torch.equal(one, same)
    assert one.shape == (2, 3, 3, 2)
    risk = tasks.risk(10 * normal(seeded(seed), 2, 3, 2), one)
    assert bool(((risk >= 0) & (risk <= 1)).all())


def test_without_spread_the_samples_are_the_centres() -> None:
    tasks = family(0, sigma=0.0)
    assert torch.equal(tasks.draw(seeded(0), 2)[0, :, 1], tasks.centres)
    at = tasks.centres + torch.tensor([1.0, 0.0])
    torch.testing.assert_close(tasks.task_risk(at), torch.full((3,), -math.expm1(-0.5), dtype=torch.float64))
    assert (tasks.tasks, tasks.dim) == (3, 2)


@pytest.mark.parametrize(
    ("centres", "sigma", "message"),
    [
        (torch.zeros(3), 1.0, r"centres must be M x d or R x M x d, and finite, got shape \(3,\)"),
        (torch.zeros(0, 2), 1.0, "centres must be M x d"),
        (torch.full((1, 2), math.nan), 1.0, "centres must be M x d or R x M x d, and finite"),
        (torch.zeros(1, 2), -1.0, "sigma must be at least 0 and finite, got -1.0"),
        (torch.zeros(1, 2), math.inf, "sigma must be at least 0 and finite"),
    ],
)
def test_wrong_data_are_named(centres, sigma, message) -> None:
    with pytest.raises(ValueError, match=message):
        Welsch(centres, sigma)
