"""Slopes and ratios on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.slopes import against_horizon, ratio, slope

T = [64, 128, 256, 512, 1024]


@given(st.floats(-2, 2), st.floats(0.1, 10))
def test_a_power_law_has_its_exponent_as_slope(exponent, factor) -> None:
    exact = factor * np.array(T, dtype=float)[:, None] ** exponent
    item = slope("x", T, exact, predicted=exponent)
    assert item.measured == pytest.approx(exponent, abs=1e-12)
    assert (item.error, item.n) == (0.0, 1)


def test_the_slopes_error_is_what_repeating_the_experiment_shows() -> None:
    rng = np.random.default_rng(1)

    def sample() -> np.ndarray:
        shared = rng.normal(size=(1, 64))  # the noise of a seed is shared by its horizons
        return np.array(T)[:, None] ** -0.5 * (2 + 0.3 * shared + 0.2 * rng.normal(size=(len(T), 64)))

    items = [slope("x", T, sample(), predicted=-0.5) for _ in range(300)]
    spread = np.std([item.measured for item in items], ddof=1)
    assert np.mean([item.error for item in items]) == pytest.approx(spread, rel=0.15)


def test_the_slopes_error_is_unbiased_for_few_seeds() -> None:
    """The slope is linear in small noise, so that its error is that of a mean over three seeds."""
    noise = 1e-6 * np.random.default_rng(4).normal(size=(len(T), 3))
    item = slope("x", T, np.array(T)[:, None] ** -0.5 * (1 + noise), predicted=-0.5)
    of_seed = np.polyfit(np.log(T), noise, 1)[0]
    assert item.error == pytest.approx(of_seed.std(ddof=1) / np.sqrt(3), rel=0.05)


def test_seeds_are_averaged_before_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    heavy = rng.lognormal(sigma=np.linspace(0.1, 1, len(T))[:, None], size=(len(T), 4000))
    expected = np.polyfit(np.log(T), np.log(heavy.mean(1)), 1)[0]
    assert slope("x", T, heavy, predicted=0.0).measured == pytest.approx(expected, abs=1e-12)


def test_the_ratios_error_is_what_repeating_the_experiment_shows_and_pairs_help() -> None:
    rng = np.random.default_rng(2)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        shared = rng.normal(size=100)
        return 3 + shared + 0.1 * rng.normal(size=100), 2 + shared * 2 / 3

    items = [ratio("x", *sample()) for _ in range(400)]
    measured = np.array([item.measured for item in items])
    assert measured.mean() == pytest.approx(1.5, abs=0.005)
    assert np.mean([item.error for item in items]) == pytest.approx(measured.std(ddof=1), rel=0.15)


def test_a_ratio_to_a_known_number_has_the_error_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(5, 1, 50)
    item = ratio("x", values, np.array([2.0]))
    assert item.error == pytest.approx(values.std(ddof=1) / np.sqrt(50) / 2)


def test_a_curve_is_scaled_by_the_power_asked_for() -> None:
    curve = against_horizon("x", T, np.ones((len(T), 4)), times=0.5)
    assert curve.y == pytest.approx(np.sqrt(T))
    assert curve.low == pytest.approx(np.sqrt(T))
