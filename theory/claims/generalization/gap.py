"""The gap falls with n M for fixed tasks, and not with n for a new task.

Statement: for fixed tasks, E |F(x; P) - F(x; D)| at the trained x falls as (n M)^(-1/2), in n and in M; for a new
task it does not fall with n.

Source: the n M of the source's bound; the restriction to fixed tasks was derived here.

Assumptions: those of the readings of `theory/pac_bayes.py`.

Why: for fixed tasks all n M samples are independent; for random ones the M tasks are, and between them the risk
varies whatever n is.

Setting: every data set has tasks of its own, drawn for it alone, and the risk is that of these tasks. M = 8, n = 8 to
128, and n = 8, M = 8 to 128; slopes of log mean against log size by least squares, with standard errors of the means
over data sets, of which the smallest size has four times and the next twice as many: they cost little and weigh much. A
number is the exponent.

Controls: random tasks, tau = 1, sigma = 0.3, with the risk of a new task, over n.

Limits: an average, not a bound; the exponent in M holds for new tasks, too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.claims.generalization import Setting, trained

SIZES = (8, 16, 32, 64, 128)
FIXED = Setting(tasks=8, samples=8)
FRESH = Setting(tasks=8, samples=8, fresh_tasks=True, sigma=0.3)


def fewest(budget: Budget) -> int:
    """How many data sets of the largest size."""
    return min(10 * budget.instances, 600)


def repeats(size: int, budget: Budget) -> int:
    """How many data sets of a size."""
    return fewest(budget) * max(1, SIZES[2] // size)


def resized(setting: Setting, varied: str, size: int) -> Setting:
    """The setting with another n or M."""
    return replace(setting, samples=size) if varied == "samples" else replace(setting, tasks=size)


@cache
def gaps(setting: Setting, varied: str, budget: Budget, seed: int) -> tuple[list[float], list[float]]:
    """Means of the absolute gap over data sets, and their standard errors, by size."""
    means, errors = [], []
    for size in SIZES:
        found = trained(resized(setting, varied, size), repeats(size, budget), seed)
        gap = (found.population - found.empirical(found.x)).abs().numpy()
        means.append(float(gap.mean()))
        errors.append(float(gap.std(ddof=1) / np.sqrt(len(gap))))
    return means, errors


def exponent(label: str, means: list[float], errors: list[float], n: int) -> Item:
    """Slope of log mean against log size with the delta method's standard error."""
    x = np.log(SIZES) - np.log(SIZES).mean()
    weights = x / (x @ x)
    slope = float(weights @ np.log(means))
    error = float(np.sqrt(((weights * np.array(errors) / np.array(means)) ** 2).sum()))
    return Item(label, slope, -0.5, error=error, n=n)


def measure(budget: Budget, seed: int) -> Evidence:
    """Exponents in n and in M for fixed tasks; the gaps."""
    n = fewest(budget)
    found = {
        "n, fixed tasks": gaps(FIXED, "samples", budget, seed),
        "M, fixed tasks": gaps(FIXED, "tasks", budget, seed),
    }
    start = found["n, fixed tasks"][0][0]
    return Evidence(
        tuple(exponent(f"exponent in {label}", *of, n) for label, of in found.items()),
        (
            *(
                Curve(
                    f"over {label}",
                    SIZES,
                    means,
                    low=[mean - 2 * error for mean, error in zip(means, errors, strict=True)],
                    high=[mean + 2 * error for mean, error in zip(means, errors, strict=True)],
                )
                for label, (means, errors) in found.items()
            ),
            Curve("exponent -1/2", SIZES, [start * (SIZES[0] / size) ** 0.5 for size in SIZES], "predicted"),
        ),
    )


def new_tasks(budget: Budget, seed: int) -> Evidence:
    """The exponent in n for the risk of a new task."""
    means, errors = gaps(FRESH, "samples", budget, seed)
    return Evidence(
        (exponent("exponent in n, a new task", means, errors, fewest(budget)),),
        (Curve("over n, a new task", SIZES, means, "control"),),
    )


CLAIM = Claim(
    rule=Rule("every exponent lies in -1/2 +- 0.15", below=0.15, above=0.15),
    measure=measure,
    controls={"the risk of a new task": new_tasks},
    evidence="statistical",
    axes=("n or M", "mean of |F(x; P) - F(x; D)|"),
)
