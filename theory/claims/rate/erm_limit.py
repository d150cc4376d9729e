"""With beta_low -> 0 as prescribed, the statement becomes one about plain SGD.

Statement: under beta_low = O(1/sqrt T) the average of MAML, of |grad F_T|^2, is, within 5 per cent at the largest
horizon, that of stochastic gradient descent on the query losses alone, of |grad F_0|^2, where F_0 = (1/M) sum q_m.

Source: derived here; a restatement of what the source's theorem says.

Assumptions: those of `rate_bound`.

Why: F_T tends to F_0 with its gradient, as beta_low does. So the theorem does not tell meta-learning from training on
the query sets; the informative form keeps beta_low fixed (`rate_phase`).

Setting: the wells, prescribed schedules, largest horizon, paired seeds. SGD is the core at beta_low = 0.

Controls: beta_low fixed at 0.5: the averages differ.

Limits: at finite T the ratio still holds a trace of beta_low.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from theory.claim import Budget, Claim, Curve, Evidence, Rule
from theory.claims.rate import MAML, START, WELLS
from theory.runner import OFF, Power, Schedule, horizons, run
from theory.slopes import ratio

SGD = MAML.but("SGD on the query losses", beta=OFF)
FIXED = MAML.but("beta_low = 0.5", beta=Power(0.5, 0.0))


@cache
def averages(budget: Budget, seed: int) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Horizons, and the averages of MAML, SGD and MAML with a fixed beta_low."""
    T = horizons(budget.log2_horizon, budget.log2_horizon - 4)
    return T, run(WELLS, [MAML, SGD, FIXED], T=T, start=START, seeds=budget.seeds, seed=seed, ascent="shared")


def measure(budget: Budget, seed: int, *, meta: Schedule = MAML) -> Evidence:
    """Ratio of MAML's average to that of SGD."""
    T, (maml, sgd, fixed) = averages(budget, seed)
    of_meta = maml if meta is MAML else fixed
    curves = (
        Curve(meta.name, T, (of_meta.mean(1) / sgd.mean(1)).tolist(), "measured" if meta is MAML else "control"),
        Curve(SGD.name, T, [1.0] * len(T), "predicted"),
    )
    return Evidence((ratio(f"{meta.name}, T = {T[-1]}", of_meta[-1], sgd[-1]),), curves, latex="1")


CLAIM = Claim(
    rule=Rule("the ratio lies in [0.95, 1.05]", below=0.05, above=0.05),
    measure=measure,
    controls={
        "beta_low fixed": lambda budget, seed: measure(budget, seed, meta=FIXED),
    },
    evidence="statistical",
    axes=("T", "average of MAML / average of SGD"),
)
