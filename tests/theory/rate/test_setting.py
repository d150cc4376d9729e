"""The instances that the statistical claims draw: how many, how different, and that the base seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theory.check.budgets import BUDGETS, FULL, SMOKE, TEST
from theory.generalization import setting as generalization
from theory.rate import setting as rate
from theory.runner import OFF


@pytest.mark.parametrize("budget", [TEST, FULL], ids=lambda budget: budget.name)
def test_there_are_fifty_instances_of_many_sizes_with_both_kinds_of_noise(budget) -> None:
    readings = rate.drawn(budget, 3).values()
    assert sum(reading.instances for reading in readings) >= 50
    assert {len(reading.start) for reading in readings} >= {2, 100}
    assert {reading.family.tasks for reading in readings} >= {2, 50}
    for reading in readings:
        assert reading.family.support_centres.shape == (reading.family.tasks, reading.instances, len(reading.start))
        assert 0 < reading.family.heavy.double().mean() < 1
        assert len(reading.family.query_centres.unique()) == reading.family.query_centres.numel()


def test_another_base_seed_has_other_instances_and_other_noise() -> None:
    for name in rate.DRAWN:
        one, other = (rate.drawn(SMOKE, seed)[name] for seed in (10, 11))
        assert not (one.family.query_centres == other.family.query_centres).any()
    assert not np.isin(rate.averages(rate.DRAWN[-1], SMOKE, 10), rate.averages(rate.DRAWN[-1], SMOKE, 11)).any()
    regressions = [rate.readings(seed)["shared minibatches"].family for seed in (10, 11)]
    assert not (regressions[0].query_targets == regressions[1].query_targets).any()


def test_an_instance_is_weighed_by_the_leading_coefficient_of_its_bound() -> None:
    """Delta/c2 + c2 Lq sq^2/(2M), Delta between the height above a minimum that descent finds and a little more."""
    for name, reading in rate.drawn(SMOKE, 10).items():
        known, found = reading.family.constants, rate.leading(reading.family, reading.start)
        x = rate.minimum(reading.family, reading.start, [rate.MAML.but("", beta=OFF)], [1])[0, 0]
        descent = reading.family.meta_loss(reading.start, 0.0) - reading.family.meta_loss(x, 0.0)
        least = (descent / 2 + known.Lq * known.sq**2 / reading.family.tasks).numpy()
        assert found.shape == (reading.instances,)
        assert (least <= found).all(), name
        assert (found <= 1.01 * least).all(), name


def test_pooled_averages_are_those_of_the_sizes_in_a_row() -> None:
    readings = rate.drawn(SMOKE, 10)
    T, found = rate.on_instances(SMOKE, 10)
    parts = [rate.averages(name, SMOKE, 10) / rate.leading(readings[name].family, readings[name].start)
             for name in rate.DRAWN]  # fmt: skip
    assert found["both"].shape == (len(T), sum(reading.instances for reading in readings.values()))
    np.testing.assert_allclose(found["both"], np.concatenate([part[3] for part in parts], -1), rtol=1e-12)


def test_every_data_set_has_tasks_of_its_own_drawn_by_the_base_seed() -> None:
    setting = generalization.Setting(tasks=3, samples=4)
    one, other = (generalization.trained(setting, 5, seed) for seed in (10, 11))
    assert one.family.centres.shape == (5, 3, 2)
    assert len(torch.cat([one.family.centres, other.family.centres]).unique()) == 2 * 5 * 3 * 2
    again = setting.draw(torch.Generator().manual_seed(10), 5)
    assert torch.equal(one.family.centres, again.centres)


@pytest.mark.parametrize("dim", [2, 10])
def test_the_maximum_over_the_ball_is_looked_for_on_its_sphere(dim) -> None:
    sphere = generalization.Setting(dim=dim, radius=0.3).sphere
    assert sphere.shape == (generalization.DIRECTIONS, dim)
    torch.testing.assert_close(sphere.norm(dim=-1), torch.full((len(sphere),), 0.3, dtype=torch.float64))
    assert sphere.mean(0).norm() < 0.3 * 3 / len(sphere) ** 0.5


def test_every_budget_has_two_horizons_of_every_reading_so_that_there_is_a_slope() -> None:
    for budget in BUDGETS.values():
        for reading in (rate.readings(3) | rate.drawn(budget, 3)).values():
            assert len(reading.horizons(budget)) >= 2
