"""T^(-1/4) suffices for beta_low and alpha_up.

Statement: with beta_low, alpha_up = O(T^(-1/4)) instead of the prescribed O(T^(-1/2)), beta_up = O(T^(-1/2)) and
alpha_low = O(1), the average is still O(1/sqrt T).

Source: derived here; the source's schedules are sufficient, not necessary.

Assumptions: those of `rate_bound`.

Why: the bound's terms fall like T^(-min(1-u, u, 2s, 2(a+r), 2a)) for beta_low ~ T^-a, beta_up ~ T^-u, alpha_up ~
T^-s, alpha_low ~ T^-r; u = 1/2 and s = a = 1/4, r = 0 make the smallest 1/2.

Setting: the wells, and the drawn instances up to two octaves less, pooled as in `rate_slope`; perturbations along the
gradient and, worse, all in the same direction.

Controls: alpha_up = O(T^(-1/8)) in a fixed direction, where s = 1/8 gives 1/4; the same with O(T^(-1/5)), without noise
and at constant beta_up, where s = 1/5 gives 2/5, 0.02 beyond the edge of the region; and, likewise,
beta_low = O(T^(-1/8)) with lower perturbations in fixed directions, where a = 1/8 gives 1/4. All start in the minimum
of F_T.

Limits: one family. The exponents of the single terms are in `rate_phase`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Evidence, Measure, Rule
from theory.rate.exponents import against_horizon, slope
from theory.rate.setting import MAML, OWN_WAYS, QUIET, SAME_WAY, SLOW, START, WELLS, minimum, on_instances
from theory.runner import Ascent, Power, Schedule, horizons, run

BETA_TOO_SLOW = MAML.but(
    "beta_low = T^(-1/8)/2", beta=Power(0.5, 0.125), eta=Power(0.3, 0.0), alpha_low=Power(0.5, 0.0)
)
TOO_SLOW = MAML.but("alpha_up = T^(-1/8)/2", alpha_up=Power(0.5, 0.125))
NEARLY = MAML.but("alpha_up = T^(-1/5)/2", beta=Power(0.1, 0.5), eta=Power(0.3, 0.0), alpha_up=Power(0.5, 0.2))


@cache
def fixed_direction(budget: Budget, seed: int) -> NDArray[np.float64]:
    """The averages of the two schedules with perturbations in a fixed direction."""
    T = horizons(budget.log2_horizon)
    starts = minimum(WELLS, START, [SLOW, TOO_SLOW], T)
    starts[0] = START
    return run(WELLS, [SLOW, TOO_SLOW], T=T, start=starts, seeds=budget.seeds, seed=seed, ascent=SAME_WAY)


def measure(budget: Budget, seed: int) -> Evidence:
    """Slopes along the gradient and in a fixed direction."""
    T = horizons(budget.log2_horizon)
    (along,) = run(WELLS, [SLOW], T=T, start=START, seeds=budget.seeds, seed=seed, ascent="shared")
    named = {
        "ascent direction": (T, along),
        "fixed direction": (T, fixed_direction(budget, seed)[0]),
    }
    for name, one_way in (("ascent", False), ("fixed", True)):
        less, on_drawn = on_instances(budget, seed, one_way=one_way)
        named[f"{name} direction, drawn instances"] = less, on_drawn[SLOW.name]
    return Evidence(
        tuple(slope(name, *found, predicted=-0.5) for name, found in named.items()),
        tuple(against_horizon(name, *found) for name, found in named.items()),
        latex=r"-\min\{1-u,\,u,\,2s,\,2(a+r),\,2a\}",
    )


def too_slow(budget: Budget, seed: int) -> Evidence:
    """Slope with alpha_up = O(T^(-1/8)) in a fixed direction."""
    T = horizons(budget.log2_horizon)
    values = fixed_direction(budget, seed)[1]
    name = TOO_SLOW.name
    return Evidence((slope(name, T, values, predicted=-0.5),), (against_horizon(name, T, values, "control"),))


def without_noise(schedule: Schedule, ascent: Ascent) -> Measure:
    """Slope of a schedule from the minimum, without noise."""

    def measure_without_noise(budget: Budget, seed: int) -> Evidence:
        T = horizons(budget.log2_horizon - 1)
        start = minimum(QUIET, START, [schedule], T)
        (values,) = run(QUIET, [schedule], T=T, start=start, seeds=1, seed=seed, ascent=ascent)
        name = schedule.name
        return Evidence((slope(name, T, values, predicted=-0.5),), (against_horizon(name, T, values, "control"),))

    return measure_without_noise


CLAIM = Claim(
    rule=Rule("every slope lies in -1/2 +- 0.08", below=0.08, above=0.08),
    measure=measure,
    controls={
        "alpha_up = O(T^(-1/8))": too_slow,
        "alpha_up = O(T^(-1/5))": without_noise(NEARLY, SAME_WAY),
        "beta_low = O(T^(-1/8))": without_noise(BETA_TOO_SLOW, OWN_WAYS),
    },
    evidence="statistical",
    shares="prescribed",
    axes=("T", r"$(1/T)\,\sum_t E|\nabla F(x_t)|^2$"),
)
