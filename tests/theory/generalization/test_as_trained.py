"""What the claim trains and bounds at once, against one training and one bound at a time."""

from __future__ import annotations

import pytest
import torch

from sharp_maml import Batch, Episode, meta_gradient
from synthetic import Welsch
from theory.check.budgets import SMOKE
from theory.generalization.claims import as_trained as claim
from theory.generalization.claims import compare
from theory.generalization.setting import STEPS


@pytest.mark.parametrize("lane", [(-4.0, 1.5, True), (2.0, 3.0, False), (-2.0, 0.0, False)], ids=str)
def test_a_lane_ends_where_a_plain_loop_of_the_core_does(lane) -> None:
    start, radius, decays = lane
    name, data = "narrow at -2", claim.drawn(SMOKE, 0)["narrow at -2"]
    found = claim.trained(SMOKE, 0, bool(radius))[name][claim.lanes(bool(radius)).index(lane)]
    for x_end, support, query in zip(found[:1], *(part[:1] for part in data), strict=True):  # of 24 data sets
        episodes = [Episode(*(Batch(z, z[..., :0]) for z in pair)) for pair in zip(support, query, strict=True)]
        x = torch.tensor([start], dtype=torch.float64)
        for step in range(STEPS):
            alpha = radius * (1 - step / STEPS) if decays else radius
            x = x - meta_gradient(Welsch.loss, {"x": x}, episodes, beta_low=0.5, alpha_up=alpha).grad["x"]
        assert float(x_end) == pytest.approx(float(x), abs=1e-10)


def test_the_bounds_are_those_of_the_other_claim_on_its_grid() -> None:
    """The maximum over 97 points is at most that over the finer grid, and near it."""
    data = claim.drawn(SMOKE, 0)["one basin"]
    x = compare.GRID[[2000, 2400, 2200]]
    found = claim.bounds(data, x, 0.5)
    assert bool((found[1] > found[0]).all())  # a share of delta costs something
    for i, pair in enumerate(zip(*data, strict=True)):
        _, maximum = compare.landscape(compare.ONE_BASIN, pair)
        at = int((compare.GRID - x[i]).abs().argmin())
        assert float(found[0, i]) == pytest.approx(compare.bound(compare.ONE_BASIN, maximum[at], float(x[i])), abs=1e-4)


def test_a_share_counts_the_data_sets_with_the_smaller_bound() -> None:
    item = claim.share("x", torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 4.0]))
    assert item.measured == pytest.approx(2 / 3)
    assert "median ratio 0.7500, of 2.00" in item.label
