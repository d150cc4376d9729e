"""The gap falls with n M for fixed tasks, and not with n for a new task.

Statement: for fixed tasks, E |F(x; P) - F(x; D)| at the trained x falls as (n M)^(-1/2), in n and in M; for a new
task it does not fall with n.

Source: the n M of the source's bound; the restriction to fixed tasks was derived here.

Assumptions: those of the readings of `theory/generalization/pac_bayes.py`.

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
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule, Sample
from theory.generalization.setting import Setting, trained

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
def gaps(setting: Setting, varied: str, budget: Budget, seed: int) -> tuple[NDArray[np.float64], ...]:
    """The absolute gap of every data set, by size."""
    every = []
    for size in SIZES:
        found = trained(resized(setting, varied, size), repeats(size, budget), seed)
        every.append((found.population - found.empirical(found.x)).abs().numpy())
    return tuple(every)


def averaged(of_size: tuple[NDArray[np.float64], ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over data sets, and their standard errors, by size."""
    errors = [gap.std(ddof=1) / np.sqrt(len(gap)) for gap in of_size]
    return np.array([gap.mean() for gap in of_size]), np.array(errors)


def exponent(label: str, *of_size: NDArray[np.float64]) -> Item:
    """Slope of log mean against log size with the delta method's standard error."""
    means, errors = averaged(of_size)
    x = np.log(SIZES) - np.log(SIZES).mean()
    weights = x / (x @ x)
    error = float(np.sqrt(((weights * errors / means) ** 2).sum()))
    sample = Sample(of_size, partial(exponent, label), is_exponent=True, per_seed=False)
    return Item(label, float(weights @ np.log(means)), -0.5, error, min(map(len, of_size)), sample=sample)


def measure(budget: Budget, seed: int) -> Evidence:
    """Exponents in n and in M for fixed tasks; the gaps."""
    found = {
        "n, fixed tasks": gaps(FIXED, "samples", budget, seed),
        "M, fixed tasks": gaps(FIXED, "tasks", budget, seed),
    }
    curves = {label: averaged(of) for label, of in found.items()}
    start = curves["n, fixed tasks"][0][0]
    return Evidence(
        tuple(exponent(f"exponent in {label}", *of) for label, of in found.items()),
        (
            *(
                Curve(
                    f"over {label}",
                    SIZES,
                    means.tolist(),
                    low=(means - 2 * errors).tolist(),
                    high=(means + 2 * errors).tolist(),
                )
                for label, (means, errors) in curves.items()
            ),
            Curve("exponent -1/2", SIZES, [start * (SIZES[0] / size) ** 0.5 for size in SIZES], "predicted"),
        ),
    )


def new_tasks(budget: Budget, seed: int) -> Evidence:
    """The exponent in n for the risk of a new task."""
    found = gaps(FRESH, "samples", budget, seed)
    return Evidence(
        (exponent("exponent in n, a new task", *found),),
        (Curve("over n, a new task", SIZES, averaged(found)[0].tolist(), "control"),),
    )


CLAIM = Claim(
    rule=Rule("every exponent lies in -1/2 +- 0.15", below=0.15, above=0.15),
    measure=measure,
    controls={"the risk of a new task": new_tasks},
    evidence="statistical",
    axes=("n or M", "mean of |F(x; P) - F(x; D)|"),
)
