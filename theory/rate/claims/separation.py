"""On tasks with an F that is Lipschitz and smooth up has the rate, and low has not.

Statement: there are two tasks, without noise, with an F that is Lipschitz, smooth and bounded below, on which the
averages of MAML and of Sharp-MAML up fall like T^(-1/2), and those of low and both more slowly. With bounded query
gradients low and both keep the rate, even where the Hessian of the support losses jumps.

Source: derived here. The source's theorem assumes that F is Lipschitz and smooth and that estimators are unbiased with
bounded variances, and concludes the rate for up, low and both.

Assumptions: F and its estimators satisfy the source's. What the steep tasks lack are Lipschitz query losses with
Lipschitz gradients (L0, Lq); what the kinked ones lack is a Lipschitz Hessian (L2).

Why: the query losses of the steep tasks have opposite terms e^(3z) y, which cancel in F = log cosh(y' - 2) + log(1 +
e^-z), y' the adapted y. The ascent steps of the tasks differ, because the support loss of one is tilted along a
direction that no query loss knows. So the terms do not cancel in the update of low: a part beta e^(3z) is left, times a
number, and it points against the descent of log(1 + e^-z). They balance where beta e^(3z) ~ e^-z, that is e^-z ~
T^(-1/8), and the run stays there: |grad F|^2 ~ T^(-1/4). For up the update is grad F(x + eps), whatever the terms are.

Setting: the prescribed schedules, along the core's own ascent directions, an octave less than the largest horizon for
the steep tasks and two for the kinked ones. Nothing is random, so that a slope has no standard error.

Controls: low and both on the steep tasks; low where the terms grow like e^(2z) and the same argument gives -1/3.

Limits: two families. The slopes of low on the steep tasks lie above the predicted ones at these horizons. Query
gradients that grow linearly, which have Lq and not L0, were not tried.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Curve, Evidence, Measure, Rule
from theory.rate.exponents import against_horizon, slope
from theory.rate.setting import KINKED, PRESCRIBED, STEEP
from theory.runner import horizons, run

STARTS = {"steep": (1.9, 0.0, 0.0), "kinked": (-0.5, 0.0, 0.0)}
FAMILIES = {"steep": STEEP, "kinked": KINKED}
OCTAVES_LESS = {"steep": 1, "kinked": 2}
MAML, UP, LOW, BOTH = PRESCRIBED


@cache
def averages(name: str, budget: Budget) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Horizons, and the averages of all variants on a family, `4 x H x 1`."""
    T = horizons(budget.log2_horizon - OCTAVES_LESS[name])
    start = torch.tensor(STARTS[name], dtype=torch.float64)
    return T, run(FAMILIES[name], PRESCRIBED, T=T, start=start, seeds=1, seed=0, ascent="shared")


def measure(budget: Budget, seed: int) -> Evidence:
    """Slopes of what is claimed to have the rate."""
    items, curves = [], []
    for name, claimed in {"steep": (MAML, UP), "kinked": PRESCRIBED}.items():
        T, found = averages(name, budget)
        for schedule, values in zip(claimed, found, strict=False):
            items.append(slope(f"{name}, {schedule.name}", T, values, predicted=-0.5))
            if schedule is not MAML:
                curves.append(against_horizon(f"{name}, {schedule.name}", T, values))
    curves.append(Curve("T^(-1/4)", T, [0.5 * t**-0.25 for t in T], "predicted"))
    return Evidence(tuple(items), tuple(curves), latex=r"-\frac{1}{2}")


def less_steep(budget: Budget, seed: int) -> Evidence:
    """The slope of low where the terms grow like e^(2z)."""
    T = horizons(budget.log2_horizon - OCTAVES_LESS["steep"])
    start = torch.tensor(STARTS["steep"], dtype=torch.float64)
    (values,) = run(replace(STEEP, growth=2.0), [LOW], T=T, start=start, seeds=1, seed=0, ascent="shared")
    name = "e^(2z), low"
    return Evidence((slope(name, T, values, predicted=-0.5),), (against_horizon(name, T, values, "control"),))


def failing(variant: int) -> Measure:
    """The slope of a variant on the steep tasks."""

    def measure_failing(budget: Budget, seed: int) -> Evidence:
        T, found = averages("steep", budget)
        name = f"steep, {PRESCRIBED[variant].name}"
        return Evidence(
            (slope(name, T, found[variant], predicted=-0.5),), (against_horizon(name, T, found[variant], "control"),)
        )

    return measure_failing


CLAIM = Claim(
    rule=Rule("every slope lies in -1/2 +- 0.08", below=0.08, above=0.08),
    measure=measure,
    controls={
        "low on steep tasks": failing(2),
        "both on steep tasks": failing(3),
        "low on less steep tasks": less_steep,
    },
    evidence="illustration",
    axes=("T", r"$(1/T)\,\sum_t |\nabla F(x_t)|^2$"),
)
