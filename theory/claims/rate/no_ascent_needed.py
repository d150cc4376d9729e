"""The theorem does not use that the perturbation is an ascent direction.

Statement: any perturbations in the same balls give the average of Sharp-MAML asymptotically: here one that always points
the same way, whatever the gradients are.

Source: derived here; a restatement of what the source's theorem says.

Assumptions: those of `rate_bound`. The fixed perturbations are made by ascent episodes whose gradient is a constant, so
that the core itself makes them.

Why: the bias b bounds the effect of any vector in the ball, and nothing else of the perturbation enters the proof.

Setting: the wells, prescribed schedules, `both`, largest horizon; the ratio of the averages over paired seeds.

Controls: the same fixed direction with a radius that does not shrink.

Limits: it says what the rate cannot show. Why the ascent direction should be preferred is not a question of the rate.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.claim import Budget, Claim, Curve, Evidence, Rule
from theory.claims.rate import PRESCRIBED, SAME_WAY, START, WELLS
from theory.runner import Power, Schedule, horizons, run
from theory.slopes import ratio

UP, BOTH = PRESCRIBED[1], PRESCRIBED[3]


def measure(budget: Budget, seed: int, *, fixed: Schedule = BOTH) -> Evidence:
    """Ratio of the average with a fixed direction to that with the ascent direction."""
    T = horizons(budget.log2_T, budget.log2_T - 4)
    ascending = along_the_gradient(budget, seed)
    pointing = run(WELLS, [UP, fixed], T=T, start=START, seeds=budget.seeds, seed=seed, ascent=SAME_WAY)
    items = tuple(
        ratio(f"{schedule.name}, T = {T[-1]}", one[-1], other[-1])
        for schedule, one, other in zip((UP, fixed), pointing, ascending, strict=True)
    )
    curves = [
        Curve(schedule.name, T, (one.mean(1) / other.mean(1)).tolist())
        for schedule, one, other in zip((UP, fixed), pointing, ascending, strict=True)
    ]
    return Evidence(items, (*curves, Curve("ascent direction", T, [1.0] * len(T), "predicted")), latex="1")


@cache
def along_the_gradient(budget: Budget, seed: int) -> NDArray[np.float64]:
    """The averages with the ascent direction."""
    T = horizons(budget.log2_T, budget.log2_T - 4)
    return run(WELLS, [UP, BOTH], T=T, start=START, seeds=budget.seeds, seed=seed, ascent="shared")


CLAIM = Claim(
    rule=Rule("every ratio lies in [0.95, 1.05]", below=0.05, above=0.05),
    measure=measure,
    controls={
        "constant radius": lambda budget, seed: measure(
            budget, seed, fixed=BOTH.but("radius 0.5", alpha_up=Power(0.5, 0.0))
        )
    },
    evidence="statistical",
    axes=("T", "average with a fixed direction / with the ascent direction"),
)
