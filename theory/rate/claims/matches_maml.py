"""The variants' averages equal MAML's.

Statement: under the prescribed schedules the average of Sharp-MAML up, low and both is that of MAML within 5 per cent
at the largest horizon.

Source: "Sharp-MAML matches the convergence rate of MAML"; that the constants match too follows from `rate_algebra`.

Assumptions: those of `rate_bound`.

Why: no perturbation appears at the leading order of the bound, nor in the limit of `rate_constant`.

Setting: the same runs as `rate_bound`, at the largest horizon, on separable and rotated wells with fresh samples, on
regression with shared minibatches, and on the drawn instances, pooled as in `rate_slope`. Seeds are paired: seed s has
the same samples in every variant.

Controls: beta_up of one variant smaller by a ninth, of which the limit of `rate_constant` makes a ratio of about 1.08.

Limits: an equivalence within 5 per cent at finite T, not a limit. At small T the ratios differ more, as the figure
shows.
"""

from __future__ import annotations

import numpy as np

from theory.check.claim import Budget, Claim, Curve, Evidence, Rule
from theory.rate.exponents import ratio
from theory.rate.setting import MAML, PRESCRIBED, START, WELLS, averages, on_instances, readings
from theory.runner import horizons, run

READ = ("fresh samples", "fresh samples, rotated", "shared minibatches")


def measure(budget: Budget, seed: int) -> Evidence:
    """Ratio of each variant's average to MAML's."""
    items, curves = [], []
    found = {name: (readings(seed)[name].horizons(budget), averages(name, budget, seed)) for name in READ}
    T, on_drawn = on_instances(budget, seed)
    found["drawn instances"] = T, np.stack([on_drawn[schedule.name] for schedule in PRESCRIBED])
    for name, (T, (maml, *others)) in found.items():
        for schedule, of_variant in zip(PRESCRIBED[1:], others, strict=True):
            items.append(ratio(f"{name}, {schedule.name}, T = {T[-1]}", of_variant[-1], maml[-1]))
            means = (of_variant.mean(1) / maml.mean(1)).tolist()
            if name != READ[1]:
                curves.append(Curve(f"{schedule.name}, {name}", T, means))
    T = found[READ[0]][0]
    curves.append(Curve("MAML", T, [1.0] * len(T), "predicted"))
    return Evidence(tuple(items), tuple(curves), latex="1")


def smaller(budget: Budget, seed: int) -> Evidence:
    """The ratio of `both` with eight ninths of beta_up to MAML."""
    T = horizons(budget.log2_horizon)[-1:]
    both = PRESCRIBED[-1].but("both, beta_up x 8/9", eta=MAML.eta.times(8 / 9))
    other, maml = run(WELLS, [both, MAML], T=T, start=START, seeds=budget.seeds, seed=seed)[:, 0]
    return Evidence((ratio(both.name, other, maml),))


CLAIM = Claim(
    rule=Rule("every ratio lies in [0.95, 1.05] (two one-sided tests)", below=0.05, above=0.05),
    measure=measure,
    controls={"beta_up x 8/9": smaller},
    evidence="statistical",
    shares="prescribed",
    literal=True,
    axes=("T", "average of the variant / average of MAML"),
)
