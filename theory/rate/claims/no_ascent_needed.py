"""The theorem does not use that the perturbation is an ascent direction.

Statement: perturbations in the same balls that always point the same way, whatever the gradients are, give the
average of Sharp-MAML within 5 per cent at the largest horizon.

Source: derived here; a restatement of what the source's theorem says.

Assumptions: those of `rate_bound`. The fixed perturbations are made by ascent episodes whose gradient is a constant,
so that the core itself makes them. Two opposite directions are taken: to first order, the loss grows along at most one
of them.

Why: the bias b bounds the effect of any vector in the ball, and nothing else of the perturbation enters the proof.

Setting: the wells, prescribed schedules, largest horizon; and the drawn instances two octaves earlier, pooled as in
`rate_slope`; the ratio of the averages over paired seeds.

Controls: the same fixed direction with a radius that does not shrink, and is not much larger than the prescribed one.

Limits: it says what the rate cannot show. Why the ascent direction should be preferred is not a question of the rate.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Curve, Evidence, Rule
from theory.rate.exponents import ratio
from theory.rate.setting import OTHER_WAY, PRESCRIBED, SAME_WAY, START, WELLS, on_instances
from theory.runner import Power, horizons, run

UP, BOTH = PRESCRIBED[1], PRESCRIBED[3]
LARGE = BOTH.but("alpha_up = 0.06", alpha_up=Power(0.06, 0.0))


@cache
def averages(budget: Budget, seed: int) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Horizons; averages along the gradient (up, both) and in fixed directions (up, both, too large, opposite)."""
    T = horizons(budget.log2_horizon, budget.log2_horizon - 4)
    ascending = run(WELLS, [UP, BOTH], T=T, start=START, seeds=budget.seeds, seed=seed, ascent="shared")
    pointing = run(WELLS, [UP, BOTH, LARGE], T=T, start=START, seeds=budget.seeds, seed=seed, ascent=SAME_WAY)
    opposite = run(WELLS, [BOTH], T=T, start=START, seeds=budget.seeds, seed=seed, ascent=OTHER_WAY)
    return T, ascending, np.concatenate([pointing, opposite])


def measure(budget: Budget, seed: int) -> Evidence:
    """Ratios of the average with a fixed direction to that with the ascent direction."""
    T, ascending, pointing = averages(budget, seed)
    named = {
        "up": (pointing[0], ascending[0]),
        "both": (pointing[1], ascending[1]),
        "both, opposite": (pointing[3], ascending[1]),
    }
    earlier, along = on_instances(budget, seed)
    _, one_way = on_instances(budget, seed, one_way=True)
    last = (of[BOTH.name][-1] for of in (one_way, along))
    return Evidence(
        (
            *(ratio(f"{name}, T = {T[-1]}", one[-1], other[-1]) for name, (one, other) in named.items()),
            ratio(f"drawn instances, both, T = {earlier[-1]}", *last),
        ),
        (
            *(Curve(name, T, (one.mean(1) / other.mean(1)).tolist()) for name, (one, other) in named.items()),
            Curve("ascent direction", T, [1.0] * len(T), "predicted"),
        ),
        latex="1",
    )


def constant_radius(budget: Budget, seed: int) -> Evidence:
    """The ratio with a radius that does not shrink."""
    T, ascending, pointing = averages(budget, seed)
    return Evidence((ratio(f"{LARGE.name}, T = {T[-1]}", pointing[2][-1], ascending[1][-1]),))


CLAIM = Claim(
    rule=Rule("every ratio lies in [0.95, 1.05]", below=0.05, above=0.05),
    measure=measure,
    controls={"constant radius": constant_radius},
    evidence="statistical",
    shares="prescribed",
    axes=("T", "average, fixed / ascent direction"),
)
