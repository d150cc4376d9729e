"""The bound of normal noise against closed forms and a plain simulation, and the two kinds of unusual noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from scipy.stats import t as student

from synthetic import Constants, apart
from theory.rate.claims.heavy_tails import StudentWells
from theory.rate.claims.tail import QUADRATIC, Rare, T, chernoff, of_quadratic, rarity
from theory.rate.setting import WELLS

MERE = Constants(L0=math.inf, L1=0.0, L2=0.0, Lq=1.0, sg=0.0, sH=0.0, sq=1.0)


@given(st.floats(1.01, 3))
def test_on_the_quadratic_it_is_chernoffs_bound_of_a_chi_square(multiple: float) -> None:
    """The least of (1 - rho)^(-T/2) exp(-rho T y/2) is at rho = 1 - 1/y."""
    exact = T / 2 * (1 + math.log(multiple) - multiple)
    assert exact - 1e-12 <= math.log(of_quadratic(multiple)) <= exact + 1e-3  # rounding, and the grid


def test_below_the_mean_it_says_nothing() -> None:
    assert of_quadratic(0.9) == 1.0


@pytest.mark.parametrize("push", [0.0, 0.3])
def test_no_share_of_simulated_runs_exceeds_it(push: float) -> None:
    """x_{t+1} = x_t - eta (x_t + push + n_t), many runs of it at once."""
    steps, eta, start, runs = 16, 0.5, 1.0, 40_000
    generator, x, total = np.random.default_rng(0), np.full(40_000, start), np.zeros(40_000)
    for _ in range(steps):
        total += x**2 / steps
        x = x - eta * (x + push + generator.standard_normal(runs))
    values = {"Delta": start**2 / 2, "beta": 0.0, "eta": eta, "alpha_up": push, "alpha_low": 0.0}
    bounds = [chernoff(A, MERE, dim=1, M=1, T=steps, **values) for A in (0.5, 1.0, 1.5, 2.0, 4.0)]
    shares = [(total >= A).mean() for A in (0.5, 1.0, 1.5, 2.0, 4.0)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.05
    for bound, share in zip(bounds, shares, strict=True):
        assert share <= bound


def test_rare_noise_has_its_variance_and_one_step_of_it_exceeds_the_multiple() -> None:
    p = rarity(4.0)
    family = Rare(**QUADRATIC.__dict__, p=p)
    (episode,) = apart(family.sample(torch.Generator().manual_seed(0), 200_000))
    slopes = episode.query.inputs[:, 1, 0]
    found = slopes[slopes != 0]
    assert abs(len(found) / len(slopes) - p) < 5 * math.sqrt(p / len(slopes))
    torch.testing.assert_close(found.abs(), torch.full_like(found, p**-0.5))
    assert float(found[0] ** 2) / T > 4.0
    assert not episode.support.inputs[:, 1].any()


@pytest.mark.parametrize("freedom", [1.5, 2.5, 1e6])
def test_every_coordinate_of_the_noise_in_the_plane_has_students_distribution(freedom: float) -> None:
    family = StudentWells(
        WELLS.support_centres, WELLS.query_centres, zeta=0.3, xi=0.7, support_freedom=1.7, query_freedom=freedom
    )
    for support, query in apart(family.sample(torch.Generator().manual_seed(0), 5000)):
        for batch, scale, degrees in ((support, 0.3, 1.7), (query, 0.7, freedom)):
            for coordinate in batch.inputs[:, 1].T:
                drawn = (math.sqrt(2) * coordinate / scale).numpy()
                assert kstest(drawn, student(degrees).cdf).pvalue > 1e-3
        lengths = [batch.inputs[:, 1].norm(dim=-1) for batch in (support, query)]
        assert abs(np.corrcoef(*(length.argsort().argsort() for length in lengths))[0, 1]) < 0.07
    centres = support.inputs[:, 0]
    assert torch.equal(centres, WELLS.support_centres[-1].expand_as(centres))
