"""Rates read off averages over seeds: log-log slopes and ratios, with standard errors over seeds.

Averages over seeds are taken before logarithms, since the mean of logarithms is not the logarithm of the mean. All
horizons of a seed share their noise, so the bootstrap draws seeds, never (seed, horizon) pairs. Read next:
`claims/slope.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Curve, Item, Sample

RESAMPLES = 2000


def slope(label: str, T: Sequence[int], averages: NDArray[np.float64], *, predicted: float) -> Item:
    """Least-squares slope of log(mean over seeds) against log T; its standard error by the bootstrap over seeds.

    Args:
        label: Name of the item.
        T: Horizons, H of them.
        averages: `H x S`, positive.
        predicted: The exponent to compare with.

    Returns:
        The slope.
    """
    seeds = averages.shape[1]
    measured = float(_fit(T, averages.mean(1, keepdims=True))[0])
    if seeds == 1:
        return Item(label, measured, predicted)
    # The bootstrap's variance is that of a sample without Bessel's correction.
    error = _fit(T, averages @ _resamples(seeds)).std(ddof=1) * np.sqrt(seeds / (seeds - 1))
    sample = Sample((averages,), partial(slope, label, T, predicted=predicted), is_exponent=True)
    return Item(label, measured, predicted, float(error), seeds, sample=sample)


def ratio(label: str, a: NDArray[np.float64], b: NDArray[np.float64], *, predicted: float = 1.0) -> Item:
    """mean(a) / mean(b) over paired seeds, with the standard error of the linearised ratio.

    Args:
        label: Name of the item.
        a: `S`.
        b: `S`, the same seeds; or one number, known exactly.
        predicted: The ratio to compare with.

    Returns:
        The ratio.
    """
    value = a.mean() / b.mean()
    residual = a - value * b
    error = residual.std(ddof=1) / np.sqrt(len(a)) / b.mean() if len(a) > 1 else 0.0
    sample = Sample((np.stack([a, np.broadcast_to(b, a.shape)]),), partial(_of_pair, label, predicted), False)
    return Item(label, float(value), predicted, float(error), len(a), sample=sample)


def mean(label: str, samples: NDArray[np.float64], *, predicted: float) -> Item:
    """Mean over seeds with its standard error, which is 0 where the seeds agree to the last digit or two.

    Args:
        label: Name of the item.
        samples: `S`.
        predicted: The number to compare with.

    Returns:
        The mean.
    """
    value = samples.mean()
    error = samples.std(ddof=1) / len(samples) ** 0.5 if np.ptp(samples) > 1e-12 * abs(value) else 0.0
    sample = Sample((samples,), partial(mean, label, predicted=predicted), is_exponent=False)
    return Item(label, float(value), predicted, float(error), len(samples), sample=sample)


def against_horizon(
    label: str, T: Sequence[int], averages: NDArray[np.float64], role: str = "measured", *, times: float = 0.0
) -> Curve:
    """Mean over seeds against T, with two standard errors; multiplied by T^times.

    Args:
        label: Name of the curve.
        T: Horizons, H of them.
        averages: `H x S`.
        role: See `Curve`.
        times: Exponent of the factor.

    Returns:
        The curve.
    """
    factor = np.asarray(T, dtype=float) ** times
    mean = averages.mean(1) * factor
    seeds = averages.shape[1]
    half = 2 * averages.std(1, ddof=1) / np.sqrt(seeds) * factor if seeds > 1 else 0 * mean
    return Curve(label, list(map(float, T)), mean.tolist(), role, (mean - half).tolist(), (mean + half).tolist())  # type: ignore[arg-type]


@cache
def _resamples(seeds: int) -> NDArray[np.float64]:
    """The bootstrap's resamples: the share that each seed has in each, `S x RESAMPLES`."""
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    return np.stack([np.bincount(resample, minlength=seeds) for resample in drawn], 1) / seeds


def _of_pair(label: str, predicted: float, pair: NDArray[np.float64]) -> Item:
    """The ratio of the rows of `2 x S`."""
    return ratio(label, *pair, predicted=predicted)


def _fit(T: Sequence[int], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope for each column of `H x columns`."""
    x = np.log(np.asarray(T, dtype=float))
    x = x - x.mean()
    result: NDArray[np.float64] = x @ np.log(means) / (x @ x)
    return result
