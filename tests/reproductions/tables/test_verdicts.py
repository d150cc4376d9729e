"""The rule of the verdicts, against scipy's tests row by row and against simulated runs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from reproductions.tables.verdicts import (
    LEVEL,
    MARGIN,
    MOST_SEEDS,
    POWER,
    answers,
    decide,
    pooled_deviation,
    power,
    seeds_needed,
)

SEEDS = st.lists(st.floats(-5, 5), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-3)


def test_the_margin_is_half_of_the_smallest_gain_that_the_source_prints():
    assert pytest.approx(min(48.87, 49.03, 49.60) - 47.13) == 2 * MARGIN


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.5, 1.75, 2.0], "gain confirmed"),
        ([0.9, 1.0, 1.1], "gain excluded, more accurate"),
        ([-3.0, -2.75, -3.25], "gain excluded, less accurate"),
        ([0.0, 0.25, -0.25], "gain excluded, equivalent within 0.87 points"),
        ([0.4, 0.45, 0.5], "gain excluded, more accurate, equivalent within 0.87 points"),
        ([5.0, 5.25, 4.75], "gain confirmed"),  # larger than the source's
        ([1.75, 1.75], "gain confirmed"),
        ([0.0, 0.0], "gain excluded, equivalent within 0.87 points"),
    ],
)
def test_the_words_for_one_row_of_the_source(differences, expected):
    assert decide({"low": differences}, {"low": 1.74}) == {"low": expected}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 1.25, 1.5], "more accurate"),
        ([-1.0, -1.25, -1.5], "less accurate"),
        ([0.0, 0.1, -0.1], "equivalent within 0.87 points"),
        ([0.0, 0.0], "equivalent within 0.87 points"),
    ],
)
def test_a_row_without_a_printed_gain_is_asked_for_sign_and_equivalence(differences, expected):
    assert decide({"own": differences}, {}) == {"own": expected}


def test_one_seed_decides_nothing_and_says_so():
    assert decide({"low": [50.0], "own": [0.0]}, {"low": 1.74}) == dict.fromkeys(
        ("low", "own"), "one seed decides nothing"
    )
    assert decide({}, {}) == {}


def test_a_row_of_one_seed_beside_others_gets_the_number_that_it_needs():
    found = decide({"low": [50.0], "up": [0.1, -0.1, 0.2]}, {"low": 1.74, "up": 1.9})
    spread = pooled_deviation({"up": [0.1, -0.1, 0.2]})
    assert found["low"] == f"not enough runs: about {seeds_needed(spread, 1.74, rows=2)} seeds needed"


@given(SEEDS, st.none() | st.floats(0.5, 3))
def test_a_row_alone_is_decided_by_students_tests(differences, gain):
    found = decide({"row": differences}, {} if gain is None else {"row": gain})["row"]

    def p(bound, alternative):
        return ttest_1samp(differences, bound, alternative=alternative).pvalue

    is_excluded = gain is not None and p(gain, "less") <= LEVEL
    has_sign = p(0, "two-sided") <= LEVEL
    mean = np.mean(differences)
    assert ("gain excluded" in found) == is_excluded
    assert ("less accurate" in found) == (has_sign and mean < 0)
    confirmed = has_sign and mean > 0 and gain is not None and not is_excluded
    assert ("gain confirmed" in found) == confirmed
    assert ("more accurate" in found) == (has_sign and mean > 0 and not confirmed)
    equal = p(-MARGIN, "greater") <= LEVEL and p(MARGIN, "less") <= LEVEL
    assert ("equivalent" in found) == (equal and not confirmed)
    assert ("not enough" in found) == (not (is_excluded or has_sign or equal))


@given(st.dictionaries(st.sampled_from("abcde"), SEEDS, min_size=2))
def test_beside_other_rows_nothing_is_decided_that_was_not_decided_alone(rows):
    gains = dict.fromkeys("abc", 1.9)
    for row, together in answers(rows, gains).items():
        alone = answers({row: rows[row]}, gains)[row]
        assert together.excluded <= alone.excluded
        assert together.sign in (0, alone.sign)
        assert together.equivalent <= alone.equivalent


def test_without_any_difference_hardly_any_table_says_that_there_is_one():
    """Five rows of five seeds without a difference, or with exactly the printed gain: wrong in 5 % of the tables."""
    draws = np.random.default_rng(0)
    wrong = excluded = 0
    for _ in range(2000):
        rows = {str(row): draws.normal(0, 0.7, 5) for row in range(5)}
        wrong += any(answer.sign for answer in answers(rows, {}).values())
        gained = {row: values + 1.9 for row, values in rows.items()}
        excluded += any(answer.excluded for answer in answers(gained, dict.fromkeys(gained, 1.9)).values())
    assert wrong / 2000 < 0.065
    assert 0.03 < excluded / 2000 < 0.065  # the level is used, not merely kept


@pytest.mark.parametrize(
    ("gain", "n", "difference"),
    [(2.47, 4, 0.0), (1.74, 5, 9.0), (None, 8, 0.0), (None, 20, 0.8), (None, 3, 2.5), (None, 5, -1.5)],
)
def test_the_power_is_that_of_simulated_runs(gain, n, difference):
    draws = np.random.default_rng(1).normal(0, 0.7, (20_000, n))
    found = power(n, 0.7, gain, rows=3, difference=difference)
    if gain is not None:
        decided = ttest_1samp(draws, gain, axis=1, alternative="less").pvalue <= LEVEL / 3
    elif abs(difference) > MARGIN:
        tests = ttest_1samp(draws + difference, 0, axis=1)
        decided = (tests.pvalue <= LEVEL / 3) & (tests.statistic * difference > 0)
    else:
        below = ttest_1samp(draws, MARGIN, axis=1, alternative="less").pvalue
        above = ttest_1samp(draws, -MARGIN, axis=1, alternative="greater").pvalue
        decided = np.maximum(below, above) <= LEVEL / 3
        # twice the one side, less one, counts twice where neither side is rejected: a lower bound
        both_fail = np.mean((below > LEVEL / 3) & (above > LEVEL / 3))
        assert found == pytest.approx(decided.mean() - both_fail, abs=0.012)
        return
    assert found == pytest.approx(decided.mean(), abs=0.012)


@given(st.floats(0.05, 3), st.none() | st.floats(0.5, 3), st.integers(1, 9), st.floats(-4, 4))
def test_the_number_of_seeds_needed_is_the_smallest_with_the_power(deviation, gain, rows, difference):
    asked = partial(power, deviation=deviation, gain=gain, rows=rows, difference=difference)
    n = seeds_needed(deviation, gain, rows=rows, difference=difference)
    if n == 0:
        assert asked(MOST_SEEDS) < POWER
        return
    assert asked(n) >= POWER
    assert n == 2 or asked(n - 1) < POWER


def test_where_all_seeds_agree_two_are_enough():
    assert seeds_needed(0.0, 1.74, rows=3) == 2


def test_the_spread_is_pooled_over_rows_about_their_own_means():
    assert pooled_deviation({"a": [1.0, 3.0], "b": [10.0, 10.0, 10.0], "c": [7.0]}) == pytest.approx(np.sqrt(2 / 3))
    with pytest.raises(ValueError, match="needs a row with two seeds"):
        pooled_deviation({"a": [1.0]})
