"""What a table's runs say of each row: three questions on paired differences to the baseline, decided for all rows.

The rule was written down in `docs/plan.md` before a cell of the table `miniimagenet` was trained, and is the same for
every table. Read next: `lines.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import nct

from sharp_maml import holm

LEVEL = 0.05
"""Holm's bound on the probability of any wrong answer to one question, over the rows of a table."""

MARGIN = 0.87
"""Percentage points within which a row counts as equivalent to the baseline: half of the smallest gain over MAML that
the source prints, 48.87 - 47.13."""

POWER = 0.8
"""Probability with which the number of seeds that is called needed would decide; see `power`."""

MOST_SEEDS = 1000


class Answer(NamedTuple):
    """What is rejected of a row: that it has the printed gain, that it makes no difference, that it makes a large one.

    excluded: the gain. sign: of the difference, 0 where there may be none. equivalent: |D| < m.
    """

    excluded: bool
    sign: int
    equivalent: bool


def answers(differences: Mapping[str, Sequence[float]], gains: Mapping[str, float]) -> dict[str, Answer]:
    """Three questions to every row of a table, each with Holm's correction over the rows; see `decide`.

    Args:
        differences: For each row its differences, percentage points.
        gains: For rows that the source has, the gain over the baseline that it prints.

    Returns:
        An answer a row.
    """
    rows = list(differences)
    sizes = {row: len(values) for row, values in differences.items()}
    means = {row: float(np.mean(values)) for row, values in differences.items()}
    errors = {row: float(np.std(differences[row], ddof=1)) / math.sqrt(n) for row, n in sizes.items() if n > 1}

    def p_values(row: str, bound: float) -> tuple[float, float]:
        """The p-values of the hypotheses that the mean difference is at least, and that it is at most, `bound`."""
        if row not in errors:
            return 1.0, 1.0
        distance, error = means[row] - bound, errors[row]
        at_least = float(stdtr(sizes[row] - 1, distance / error)) if error else (1 + float(np.sign(distance))) / 2
        return at_least, 1 - at_least

    def rejected(among: Sequence[str], p_value: Callable[[str], float]) -> dict[str, bool]:
        """Whether one question is answered, by row."""
        return dict(zip(among, holm([p_value(row) for row in among], LEVEL), strict=True))

    excluded = rejected([row for row in rows if row in gains], lambda row: p_values(row, gains[row])[0])
    signed = rejected(rows, lambda row: min(1.0, 2 * min(p_values(row, 0.0))))
    equivalent = rejected(rows, lambda row: max(p_values(row, MARGIN)[0], p_values(row, -MARGIN)[1]))
    return {
        row: Answer(excluded.get(row, False), (1 if means[row] > 0 else -1) if signed[row] else 0, equivalent[row])
        for row in rows
    }


def decide(differences: Mapping[str, Sequence[float]], gains: Mapping[str, float]) -> dict[str, str]:
    """The verdict of each row, from its differences to the baseline, one a training seed.

    With D the mean difference that more and more seeds would show, g the gain that the source prints and m the
    `MARGIN`, Student's t-tests reject

    - D >= g: *gain excluded*;
    - D = 0: *more accurate* or *less accurate*, by the sign; more accurate with g not excluded is *gain confirmed*;
    - |D| >= m, by two tests of level `LEVEL` each: *equivalent within m points*.

    Each question is asked of all rows at once, with Holm's correction. Where nothing is rejected the verdict says how
    many seeds it would take, see `seeds_needed`. One seed decides nothing.

    Args:
        differences: For each row its differences, percentage points.
        gains: For rows that the source has, the gain over the baseline that it prints, g > 0, taken as it is.

    Returns:
        A verdict a row.

    Source: Student 1908; Holm 1979; Schuirmann 1987 for the two tests of equivalence. The rule is this package's own.
    """
    if max(map(len, differences.values()), default=0) < 2:
        return dict.fromkeys(differences, "one seed decides nothing")
    spread = pooled_deviation(differences)

    def verdict(row: str, answer: Answer) -> str:
        if answer.sign > 0 and row in gains and not answer.excluded:
            return "gain confirmed"
        said = [
            words
            for holds, words in (
                (answer.excluded, "gain excluded"),
                (answer.sign > 0, "more accurate"),
                (answer.sign < 0, "less accurate"),
                (answer.equivalent, f"equivalent within {MARGIN:g} points"),
            )
            if holds
        ]
        if said:
            return ", ".join(said)
        asked = [each for each in differences if each in gains] if row in gains else differences
        mean = float(np.mean(differences[row]))
        needed = seeds_needed(spread, gains.get(row), rows=len(asked), difference=mean)
        count = f"about {needed:,}" if needed else f"more than {MOST_SEEDS:,}"
        return f"not enough runs: {count} seeds needed"

    return {row: verdict(row, answer) for row, answer in answers(differences, gains).items()}


def pooled_deviation(differences: Mapping[str, Sequence[float]]) -> float:
    """Standard deviation over seeds of a row's difference, pooled over rows, which gives it more degrees of freedom."""
    freedom = sum(len(values) - 1 for values in differences.values())
    if freedom < 1:
        raise ValueError("a spread over seeds needs a row with two seeds")
    squares = sum(float(np.square(np.asarray(values) - np.mean(values)).sum()) for values in differences.values())
    return math.sqrt(squares / freedom)


def power(n: int, deviation: float, gain: float | None, *, rows: int, difference: float = 0.0) -> float:
    """Probability that n seeds decide a row, at Bonferroni's share of the level.

    With a gain g: that D >= g is rejected, were D = 0. Without: where the difference d that was found is outside of
    `MARGIN`, that its sign is shown, were D = d; inside, that equivalence is, were D = 0. All from the noncentral t
    distribution, with g sqrt(n) / s, |d| sqrt(n) / s and m sqrt(n) / s.

    Args:
        n: Seeds, at least 2.
        deviation: Standard deviation s of the difference over seeds, > 0.
        gain: The gain g that the source prints, or None.
        rows: How many rows share the level.
        difference: The difference d that was found; without a gain.

    Returns:
        The probability.
    """
    is_of_sign = gain is None and abs(difference) > MARGIN
    quantile = stdtrit(n - 1, 1 - LEVEL / (2 * rows if is_of_sign else rows))
    distance = abs(difference) if is_of_sign else MARGIN if gain is None else gain
    one_side = float(nct.sf(quantile, n - 1, distance * math.sqrt(n) / deviation))
    return one_side if gain is not None or is_of_sign else max(0.0, 2 * one_side - 1)


def seeds_needed(deviation: float, gain: float | None, *, rows: int, difference: float = 0.0) -> int:
    """The smallest number of seeds with `POWER`, see `power`; 0 where `MOST_SEEDS` are not enough."""
    if deviation == 0:
        return 2
    of = partial(power, deviation=deviation, gain=gain, rows=rows, difference=difference)
    return next((n for n in range(2, MOST_SEEDS + 1) if of(n) >= POWER), 0)
