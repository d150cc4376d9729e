"""The average falls like T^(-1/2) under the prescribed schedules.

Statement: (1/T) sum_{t<T} E |grad F(x_t)|^2 = O(1/sqrt T) for Sharp-MAML up, low and both and for MAML, when
beta_low, beta_up, alpha_up = O(1/sqrt T) and alpha_low = O(1): the log-log slope is -1/2.

Source: the main theorem of the optimization analysis.

Assumptions: those of `rate_bound`, on the same tasks. The noise of the query gradient is not zero; without it the
rate is better and -1/2 is no lower bound.

Why: inserting the schedules into the bound of `rate_bound` leaves no constant term and Delta/c2 + c2 Lq sq^2/(2M)
at order T^(-1/2) (`rate_algebra`). That the measured slope is -1/2, and not less, is a property of tasks with noise.

Setting: as in `rate_bound`, and one reading that the theorem does not cover, the perturbation differentiated through; T
= 64, ..., an octave less for shared, summed and differentiated, two for rotated and drawn. The drawn instances are
pooled: a number is the slope of the mean of their averages, each over the leading coefficient of its own bound. Slopes
by least squares, standard errors by the bootstrap over seeds, which are the instances where these are drawn.

Controls: beta_up = O(T^-0.4) on the drawn instances with d = 100, all with normal noise, where the slope of -0.4 lies
0.02 beyond the edge of the region; and farther away, on the named wells, wrong schedules, started like this one in the
minimum of F_T so that no transient masks the plateau: a fixed direction with constant radius; an ascent radius larger
than the distance of the wells; constant beta_up; beta_up = O(1/T), from the common start; beta_low and alpha_low
constant, perturbed in fixed directions; constant beta_low with an inner step whose noise is larger (zeta = 4) and a
query noise that is smaller (xi = 0.5) than elsewhere, on four times the seeds.

Limits: slopes at finite T lie above -1/2 by the next order of the bound, as the figure shows; the claim's region is
0.08 wide on each side. A constant alpha_up along the ascent direction usually converges too: see
`rate_no_ascent_needed` and the controls here, which need another direction or a large radius.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Evidence, Rule
from theory.rate.exponents import against_horizon, slope
from theory.rate.setting import (
    DRAWN,
    MAML,
    OWN_WAYS,
    PRESCRIBED,
    SAME_WAY,
    START,
    WELLS,
    averages,
    drawn,
    measured,
    minimum,
    on_instances,
    readings,
)
from theory.runner import Ascent, Power, Schedule, horizons, run


def constant(c: float) -> Power:
    """c, whatever T is."""
    return Power(c, 0.0)


WRONG: Mapping[str, Schedule] = {
    "fixed direction, constant radius": MAML.but("fixed direction", alpha_up=constant(0.5)),
    "radius larger than a well": MAML.but("radius 4.5", alpha_up=constant(4.5)),
    "constant beta_up": MAML.but("constant beta_up", eta=constant(0.2)),
    "beta_up = O(1/T)": MAML.but("beta_up = 16/T", eta=Power(16.0, 1.0)),
    "constant beta_low and alpha_low, fixed directions": MAML.but("low", beta=constant(0.4), alpha_low=constant(1.0)),
    "noisy inner step, constant beta_low": MAML.but("noisy", beta=constant(0.4)),
}
NEARLY = MAML.but("beta_up = O(T^-0.4)", eta=Power(2.2, 0.4))
SHARED: Ascent = "shared"
FIXED: Mapping[str, Ascent] = {
    "fixed direction, constant radius": SAME_WAY,
    "constant beta_low and alpha_low, fixed directions": OWN_WAYS,
}


def measure(budget: Budget, seed: int) -> Evidence:
    """Slopes of every reading and variant."""
    items, curves = [], []
    found = {name: (reading.horizons(budget), averages(name, budget, seed)) for name, reading in readings(seed).items()}
    T, on_drawn = on_instances(budget, seed)
    found["drawn instances"] = T, np.stack([on_drawn[schedule.name] for schedule in PRESCRIBED])
    for name, (T, values) in found.items():
        for schedule, of_variant in zip(PRESCRIBED, values, strict=True):
            items.append(slope(f"{name}, {schedule.name}", T, of_variant, predicted=-0.5))
        curves.append(against_horizon(f"both, {name}", T, values[3]))
    return Evidence(tuple(items), tuple(curves), latex=r"-\frac{1}{2}")


@cache
def along_the_gradient(budget: Budget, seed: int) -> Mapping[str, NDArray[np.float64]]:
    """Averages of the controls that differ in their schedule only, in one run."""
    T = horizons(budget.log2_horizon)
    names = [name for name in WRONG if name not in FIXED and not name.startswith("noisy")]
    schedules = [WRONG[name] for name in names]
    starts = minimum(WELLS, START, schedules, T)
    starts[names.index("beta_up = O(1/T)")] = START
    measured = run(WELLS, schedules, T=T, start=starts, seeds=budget.seeds, seed=seed, ascent="shared")
    return dict(zip(names, measured, strict=True))


def control(name: str, budget: Budget, seed: int) -> Evidence:
    """Slope under one wrong schedule."""
    T = horizons(budget.log2_horizon)
    if name in FIXED or name.startswith("noisy"):
        is_noisy = name.startswith("noisy")
        family = replace(WELLS, zeta=4.0, xi=0.5) if is_noisy else WELLS
        seeds = budget.seeds * (4 if is_noisy else 1)
        starts = minimum(family, START, [WRONG[name]], T)
        (of_control,) = run(
            family, [WRONG[name]], T=T, start=starts, seeds=seeds, seed=seed, ascent=FIXED.get(name, SHARED)
        )
    else:
        of_control = along_the_gradient(budget, seed)[name]
    return Evidence((slope(name, T, of_control, predicted=-0.5),), (against_horizon(name, T, of_control, "control"),))


def nearly(budget: Budget, seed: int) -> Evidence:
    """Slope of -0.4 on the largest of the drawn instances."""
    reading = drawn(budget, seed)[DRAWN[-1]]
    T, family = reading.horizons(budget), replace(reading.family, heavy=None)  # type: ignore[type-var]
    start = minimum(family, reading.start, [NEARLY], T)
    reading = reading._replace(family=family, schedules=(NEARLY,), start=start, ascent="shared")
    (values,) = measured(reading, budget, seed)
    name = NEARLY.name
    return Evidence((slope(name, T, values, predicted=-0.5),), (against_horizon(name, T, values, "control"),))


CLAIM = Claim(
    rule=Rule("every slope lies in -1/2 +- 0.08", below=0.08, above=0.08),
    measure=measure,
    controls={
        NEARLY.name: nearly,
        **{name: lambda budget, seed, name=name: control(name, budget, seed) for name in WRONG},  # type: ignore[misc]
    },
    evidence="statistical",
    shares="prescribed",
    literal=True,
    axes=("T", r"$(1/T)\,\sum_t E|\nabla F(x_t)|^2$"),
)
