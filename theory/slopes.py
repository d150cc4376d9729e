"""Rates read off averages over seeds: log-log slopes and ratios, with standard errors over seeds.

Averages over seeds are taken before logarithms, since the mean of logarithms is not the logarithm of the mean. All
horizons of a seed share their noise, so the bootstrap draws seeds, never (seed, horizon) pairs. Read next:
`theory/claims/rate/slope.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theory.claim import Curve, Item

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
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    resampled = averages[:, drawn].mean(-1) if seeds > 1 else averages
    # The bootstrap's variance is that of a sample without Bessel's correction.
    error = _fit(T, resampled).std(ddof=1) * np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    return Item(label, float(_fit(T, averages.mean(1, keepdims=True))[0]), predicted, float(error), seeds)


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
    return Item(label, float(value), predicted, float(error), len(a))


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


def _fit(T: Sequence[int], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope for each column of `H x columns`."""
    x = np.log(np.asarray(T, dtype=float))
    x = x - x.mean()
    result: NDArray[np.float64] = x @ np.log(means) / (x @ x)
    return result
