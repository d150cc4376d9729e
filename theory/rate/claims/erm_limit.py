"""With beta_low -> 0 as prescribed, the statement becomes one about plain SGD.

Statement: under beta_low = O(1/sqrt T) the average of MAML, of |grad F_T|^2, is, within 5 per cent at the largest
horizon, that of stochastic gradient descent on the query losses alone, of |grad F_0|^2, where F_0 = (1/M) sum q_m.

Source: derived here; a restatement of what the source's theorem says.

Assumptions: those of `rate_bound`.

Why: F_T tends to F_0 with its gradient, as beta_low does. So the theorem does not tell meta-learning from training on
the query sets; the informative form keeps beta_low fixed (`rate_phase`).

Setting: the wells, prescribed schedules, largest horizon, paired seeds; and the drawn instances two octaves earlier,
pooled as in `rate_slope`. SGD is the core at beta_low = 0.

Controls: beta_low fixed at 0.1, which makes a ratio of about 0.92.

Limits: at finite T the ratio still holds a trace of beta_low.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.check.claim import Budget, Claim, Curve, Evidence, Rule
from theory.rate.exponents import ratio
from theory.rate.setting import MAML, SGD, START, WELLS, on_instances
from theory.runner import Power, horizons, run

FIXED = MAML.but("beta_low = 0.1", beta=Power(0.1, 0.0))


@cache
def averages(budget: Budget, seed: int) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Horizons, and the averages of MAML, SGD and MAML with a fixed beta_low."""
    T = horizons(budget.log2_horizon, budget.log2_horizon - 4)
    return T, run(WELLS, [MAML, SGD, FIXED], T=T, start=START, seeds=budget.seeds, seed=seed, ascent="shared")


def measure(budget: Budget, seed: int) -> Evidence:
    """Ratios of MAML's average to that of SGD, on the named wells and on the drawn instances."""
    T, (maml, sgd, _) = averages(budget, seed)
    earlier, on_drawn = on_instances(budget, seed)
    return Evidence(
        (
            ratio(f"{MAML.name}, T = {T[-1]}", maml[-1], sgd[-1]),
            ratio(f"drawn instances, T = {earlier[-1]}", on_drawn[MAML.name][-1], on_drawn[SGD.name][-1]),
        ),
        (
            Curve(MAML.name, T, (maml.mean(1) / sgd.mean(1)).tolist()),
            Curve(SGD.name, T, [1.0] * len(T), "predicted"),
        ),
        latex="1",
    )


def fixed(budget: Budget, seed: int) -> Evidence:
    """The ratio with a fixed beta_low."""
    T, (_, sgd, of_fixed) = averages(budget, seed)
    return Evidence(
        (ratio(f"{FIXED.name}, T = {T[-1]}", of_fixed[-1], sgd[-1]),),
        (Curve(FIXED.name, T, (of_fixed.mean(1) / sgd.mean(1)).tolist(), "control"),),
    )


CLAIM = Claim(
    rule=Rule("the ratio lies in [0.95, 1.05]", below=0.05, above=0.05),
    measure=measure,
    controls={"beta_low fixed": fixed},
    evidence="statistical",
    shares="prescribed",
    axes=("T", "average of MAML / average of SGD"),
)
