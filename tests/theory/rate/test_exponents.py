"""Slopes and ratios on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.rate.exponents import RESAMPLES, against_horizon, mean, ratio, slope

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


def test_the_bootstrap_averages_the_seeds_that_it_draws() -> None:
    averages = np.random.default_rng(4).lognormal(size=(len(T), 30))
    drawn = np.random.default_rng(0).integers(0, 30, (RESAMPLES, 30))
    slopes = np.polyfit(np.log(T), np.log(averages[:, drawn].mean(-1)), 1)[0]
    assert slope("x", T, averages, predicted=0.0).error == pytest.approx(slopes.std(ddof=1) * np.sqrt(30 / 29))


def test_a_mean_has_students_error_and_none_where_the_seeds_agree() -> None:
    samples = np.random.default_rng(5).normal(5, 1, 50)
    item = mean("x", samples, predicted=4.0)
    assert (item.measured, item.error) == pytest.approx((samples.mean(), samples.std(ddof=1) / np.sqrt(50)))
    assert mean("x", 5 + 1e-14 * samples, predicted=4.0).error == 0


def test_an_estimate_can_be_repeated_from_what_it_was_made_of() -> None:
    averages = np.random.default_rng(6).lognormal(size=(len(T), 30))
    three_times = np.array([[3.0], [1.0]])
    for item, factor in (
        (slope("x", T, averages, predicted=0.0), np.array(T)[:, None] ** 0.3),
        (ratio("x", averages[0], averages[1]), three_times),
        (ratio("x", averages[0], np.array([2.0])), three_times),
        (mean("x", averages[0], predicted=1.0), 3.0),
    ):
        assert item.sample is not None
        (values,) = item.sample.values
        again = item.sample.estimate(values)
        assert (again.measured, again.error, again.n) == pytest.approx((item.measured, item.error, item.n))
        moved = item.sample.estimate(factor * values)
        expected = (item.measured + 0.3, item.error) if item.sample.is_exponent else (3 * item.measured, 3 * item.error)
        assert (moved.measured, moved.error) == pytest.approx(expected)


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
