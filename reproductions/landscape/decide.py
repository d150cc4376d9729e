"""Whether a variant's landscape is smoother than MAML's. Read next: `figures.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy.stats import ttest_1samp

from reproductions.landscape.measure import MEASURES
from sharp_maml import holm, paired_difference

BASELINE = "maml"

LEVEL = 0.05
"""Holm's bound on the probability of any wrong verdict among all variants and measures."""

Verdict = Literal["smoother", "less smooth", "not decided"]


def decide(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each variant and measure, whether the landscape is smoother than MAML's.

    The difference of the measure is paired over training seeds: a t-test on each, Holm over all of them at 5 per cent.

    Args:
        cells: What `measure` found, with the `row` of each.

    Returns:
        A line per variant and measure: the paired difference with Student's interval, MAML's mean, the p-value and the
        verdict; one seed decides nothing.
    """
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {BASELINE: {}}
    for cell in cells:
        by_row.setdefault(cell["row"], {})[cell["seed"]] = cell
    lines: list[dict[str, Any]] = []
    for row in list(by_row)[1:]:
        seeds = sorted(by_row[row].keys() & by_row[BASELINE].keys())
        for name in MEASURES if seeds else ():
            mine, base = ([by_row[of][seed][name] for seed in seeds] for of in (row, BASELINE))
            test = ttest_1samp(np.subtract(mine, base), 0) if len(seeds) > 1 else None
            lines.append(
                {
                    "row": row,
                    "measure": name,
                    "difference": paired_difference(mine, base).to_dict(),
                    "maml": float(np.mean(base)),
                    "p": float(test.pvalue) if test is not None and math.isfinite(test.pvalue) else 1.0,
                }
            )
    decided = holm([line["p"] for line in lines], LEVEL) if lines else []
    for line, is_decided in zip(lines, decided, strict=True):
        smaller = line["difference"]["mean"] < 0
        verdict: Verdict = "not decided" if not is_decided else "smoother" if smaller else "less smooth"
        line["verdict"] = verdict
    return lines
