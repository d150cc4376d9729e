from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from sharp_maml.estimates import (
    Estimate,
    clopper_pearson,
    holm,
    interval_over_episodes,
    interval_over_seeds,
    paired_difference,
)

numbers = st.floats(-1e3, 1e3)
samples = st.lists(numbers, min_size=1, max_size=30)
estimates = st.builds(
    lambda ends, n, unit: Estimate(sorted(ends)[1], sorted(ends)[0], sorted(ends)[2], n, unit),
    st.lists(numbers, min_size=3, max_size=3),
    st.integers(1, 10_000),
    st.text(max_size=3),
)


@given(estimates | samples.map(interval_over_seeds))
def test_an_estimate_survives_json(estimate: Estimate) -> None:
    assert Estimate.from_dict(json.loads(json.dumps(estimate.to_dict(), allow_nan=False))) == estimate


@pytest.mark.parametrize(
    ("estimate", "spec", "text"),
    [
        (Estimate(49.6, 48.5, 50.7, 600, "%"), ".2f", "49.60 ± 1.10 %"),
        (Estimate(0.97, 0.91, 0.99, 50), ".2f", "0.97 [0.91, 0.99]"),
        (Estimate(49.6, -math.inf, math.inf, 1, "%"), ".1f", "49.6 % (n = 1, no interval)"),
        (Estimate(49.6, 48.5, 50.7, 600, "%"), "", "49.6 ± 1.1 %"),
        (Estimate(1.0, 0.5, math.inf, 3), ".1f", "1.0 [0.5, inf]"),
    ],
)
def test_an_estimate_is_printed_with_its_interval(estimate: Estimate, spec: str, text: str) -> None:
    assert format(estimate, spec) == text


def test_the_plain_text_of_an_estimate_is_its_short_form() -> None:
    assert str(Estimate(1.23456, 1.03456, 1.43456, 5)) == "1.235 ± 0.2"


@pytest.mark.parametrize(
    ("mean", "low", "high"), [(math.nan, 0, 1), (math.inf, 0, math.inf), (2, 0, 1), (0, math.nan, 1)]
)
def test_a_mean_outside_its_interval_is_refused(mean: float, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"mean must be finite and in \[low, high\]"):
        Estimate(mean, low, high, 2)


def test_an_estimate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        Estimate(0.0, 0.0, 0.0, 0)


@given(st.lists(numbers, min_size=2, max_size=30))
def test_the_interval_over_seeds_is_students(values: list[float]) -> None:
    assume(np.std(values) > 1e-6)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = interval_over_seeds(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)
    assert estimate.n == len(values)


def test_the_interval_over_episodes_is_the_conventional_one() -> None:
    # Half of 600 accuracies are 0.4 and half are 0.6: s = 0.1 sqrt(600 / 599).
    estimate = interval_over_episodes([0.4, 0.6] * 300, unit="x")
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.high - estimate.mean == pytest.approx(1.959964 * 0.1 / math.sqrt(599), rel=1e-6)
    assert (estimate.n, estimate.unit) == (600, "x")


@pytest.mark.parametrize("interval", [interval_over_episodes, interval_over_seeds])
def test_one_value_has_no_interval(interval: object) -> None:
    assert interval([0.5]) == Estimate(0.5, -math.inf, math.inf, 1)  # type: ignore[operator]


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf], [[1.0]], 1.0])
def test_values_without_a_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values must be at least one finite number"):
        interval_over_seeds(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_outside_zero_and_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        interval_over_episodes([0.1, 0.2], confidence=confidence)


@given(st.floats(0.5, 0.99), st.floats(0.001, 0.009))
def test_more_confidence_gives_a_wider_interval(confidence: float, more: float) -> None:
    values = [0.1, 0.4, 0.35]
    narrow, wide = (interval_over_seeds(values, confidence=c) for c in (confidence, confidence + more))
    assert wide.low < narrow.low
    assert narrow.high < wide.high


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=10))
def test_the_paired_difference_changes_its_sign_with_the_order(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-9)


def test_what_both_of_a_pair_share_does_not_widen_the_difference() -> None:
    shared = np.array([10.0, -50.0, 70.0, 20.0])
    noise = np.array([0.1, -0.1, 0.1, -0.1])
    assert paired_difference(shared + 1 + noise, shared).high < 1.2


def test_the_paired_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="a and b must be pairs, got 2 and 1 values"):
        paired_difference([1.0, 2.0], [1.0])


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.9999))
def test_clopper_pearson_is_the_exact_interval(counts: tuple[int, int], confidence: float) -> None:
    interval = scipy.stats.binomtest(*counts).proportion_ci(confidence, method="exact")
    estimate = clopper_pearson(*counts, confidence=confidence)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=1e-8)
    assert (estimate.mean, estimate.n) == (counts[0] / counts[1], counts[1])


def test_clopper_pearson_without_a_failure_has_its_closed_form() -> None:
    assert clopper_pearson(180, 180).low == pytest.approx(0.025 ** (1 / 180))


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_counts_out_of_range_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        clopper_pearson(successes, trials)


@given(st.lists(st.floats(0, 1) | st.floats(0, 0.1), max_size=6), st.sampled_from([0.001, 0.05, 0.3]))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float], level: float) -> None:
    """A hypothesis is rejected exactly if Bonferroni rejects every intersection that it is part of."""
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(range(len(p_values)), size)]
    expected = [
        all(min(p_values[i] for i in subset) <= level / len(subset) for subset in subsets if index in subset)
        for index in range(len(p_values))
    ]
    assert holm(p_values, level) == expected


def test_holm_keeps_the_order_of_the_hypotheses() -> None:
    assert holm([0.04, 0.5, 0.001, 0.02], 0.05) == [False, False, True, False]


@pytest.mark.parametrize(("p_values", "level"), [([1.1], 0.05), ([math.nan], 0.05), ([0.1], 0.0), ([0.1], 1.0)])
def test_holm_refuses_what_is_no_probability(p_values: list[float], level: float) -> None:
    with pytest.raises(ValueError, match=re.escape("must be in")):
        holm(p_values, level)
