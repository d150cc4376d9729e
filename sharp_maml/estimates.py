"""Numbers with their uncertainty: `Estimate`, the intervals that make one, and Holm's correction.

Two sources of noise are kept apart. Over *episodes* of one trained network the interval is the literature's, and too
narrow: the episodes share their images, and another training seed would give another network. Over training *seeds* it
is the honest one; verdicts use it, on differences between methods seed by seed on the same episodes. Read next:
`evaluate.py`, which makes accuracies; `records.py`, which keeps the estimates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri, stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean and an interval around it. One sample has a mean but no interval: its bounds are -inf and inf.

    `str` and `format` give `49.60 ± 1.10 %` where the interval is symmetric, `0.97 [0.91, 0.99]` where it is not, and
    `49.60 % (n = 1, no interval)`; a format specification such as `.2f` goes to each number.

    Attributes:
        mean: The point estimate, finite.
        low: Lower end of the interval; -inf where there is none.
        high: Upper end of the interval; inf where there is none.
        n: Number of samples, at least 1: episodes, seeds or trials.
        unit: Unit of the three numbers; empty for pure numbers.

    Raises:
        ValueError: The mean is not finite or outside the interval, or there is no sample.
    """

    mean: float
    low: float
    high: float
    n: int
    unit: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not self.low <= self.mean <= self.high:
            raise ValueError(f"mean must be finite and in [low, high], got {self.mean} in [{self.low}, {self.high}]")
        if self.n < 1:
            raise ValueError(f"n must be >= 1, got {self.n}")

    def __str__(self) -> str:
        return format(self, ".4g")

    def __format__(self, spec: str) -> str:
        unit = f" {self.unit}" if self.unit else ""
        mean, low, high = (format(value, spec or ".4g") for value in (self.mean, self.low, self.high))
        if math.isinf(self.low) and math.isinf(self.high):
            return f"{mean}{unit} (n = {self.n}, no interval)"
        below, above = self.mean - self.low, self.high - self.mean
        if math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-9 * abs(self.mean)):
            return f"{mean} ± {format(above, spec or '.2g')}{unit}"
        return f"{mean} [{low}, {high}]{unit}"

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, which has no infinity: a bound that is missing is null."""
        low, high = (bound if math.isfinite(bound) else None for bound in (self.low, self.high))
        return {"mean": self.mean, "low": low, "high": high, "n": self.n, "unit": self.unit}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: `values` is not what `to_dict` gives.
        """
        low = -math.inf if values["low"] is None else float(values["low"])
        high = math.inf if values["high"] is None else float(values["high"])
        return cls(float(values["mean"]), low, high, int(values["n"]), str(values["unit"]))


def interval_over_episodes(accuracies: ArrayLike, *, confidence: float = 0.95, unit: str = "") -> Estimate:
    """mean ± z s / sqrt(n), the interval that the few-shot literature prints.

    It covers the draw of the episodes only, as if they were independent; see the head of this module.

    Args:
        accuracies: One accuracy per episode, `n`.
        confidence: Nominal coverage, in (0, 1).
        unit: Unit of the accuracies.

    Returns:
        The estimate; without an interval for one episode.

    Raises:
        ValueError: There is no value, a value is not finite, or `confidence` is out of range.

    Source: Finn et al., ICML 2017, table 1, and most few-shot papers since; on its width, arXiv 2409.02850.
    """
    return _symmetric(accuracies, float(ndtri(_upper_quantile(confidence))), unit)


def interval_over_seeds(values: ArrayLike, *, confidence: float = 0.95, unit: str = "") -> Estimate:
    """mean ± t_{n-1} s / sqrt(n), Student's interval over independent runs.

    Args:
        values: One value a training seed, `n`.
        confidence: Coverage for normal values, in (0, 1).
        unit: Unit of the values.

    Returns:
        The estimate; without an interval for one seed.

    Raises:
        ValueError: There is no value, a value is not finite, or `confidence` is out of range.

    Source: Student, "The probable error of a mean", Biometrika 1908.
    """
    degrees = max(np.size(values) - 1, 1)
    return _symmetric(values, float(stdtrit(degrees, _upper_quantile(confidence))), unit)


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95, unit: str = "") -> Estimate:
    """Student's interval of the mean of a_i - b_i, where a_i and b_i share what makes them noisy.

    Args:
        a: One value per pair, `n`.
        b: The other value of each pair, `n`.
        confidence: Coverage for normal differences, in (0, 1).
        unit: Unit of the values.

    Returns:
        The estimate of the difference; positive where `a` is larger.

    Raises:
        ValueError: The lengths differ; or see `interval_over_seeds`.
    """
    first, second = _vector(a), _vector(b)
    if len(first) != len(second):
        raise ValueError(f"a and b must be pairs, got {len(first)} and {len(second)} values")
    return interval_over_seeds(first - second, confidence=confidence, unit=unit)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Estimate:
    """Exact interval of a probability: all p for which neither tail of Binomial(trials, p) is below (1 - c) / 2.

    With q = (1 - c) / 2 the ends are the quantiles q of Beta(k, n - k + 1) and 1 - q of Beta(k + 1, n - k).

    Args:
        successes: Number k of successes, in [0, trials].
        trials: Number n of trials, at least 1.
        confidence: Guaranteed coverage c, in (0, 1).

    Returns:
        The estimate of the probability.

    Raises:
        ValueError: An argument is out of range.

    Source: Clopper and Pearson, Biometrika 1934.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must be in [0, trials] and trials >= 1, got {successes} of {trials}")
    upper = _upper_quantile(confidence)
    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, 1 - upper)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, upper)) if failures else 1.0
    return Estimate(successes / trials, low, high, trials)


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected such that the probability of any false rejection is at most `level`.

    From the smallest p-value up, the i-th of m (i = 0, 1, ...) is rejected while p <= level / (m - i).

    Args:
        p_values: One p-value a hypothesis, in [0, 1].
        level: Bound on the probability of any false rejection, in (0, 1).

    Returns:
        For each hypothesis, in the order given, whether it is rejected.

    Raises:
        ValueError: A value is out of range.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 1979.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    outside = [p for p in p_values if not 0 <= p <= 1]
    if outside:
        raise ValueError(f"p_values must be in [0, 1], got {outside}")
    rejected = [False] * len(p_values)
    for done, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > level / (len(p_values) - done):
            break
        rejected[index] = True
    return rejected


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    """The values as a vector of finite numbers."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
        raise ValueError(f"values must be at least one finite number, in one dimension, got {values!r}")
    return vector


def _upper_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return (1 + confidence) / 2


def _symmetric(values: ArrayLike, quantile: float, unit: str) -> Estimate:
    """mean ± quantile s / sqrt(n); one value gives no interval."""
    vector = _vector(values)
    mean = float(vector.mean())
    half = quantile * float(vector.std(ddof=1)) / math.sqrt(vector.size) if vector.size > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, vector.size, unit)
