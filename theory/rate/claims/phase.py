"""Each term of the bound has the exponent that the map gives it.

Statement: for beta_low ~ T^-a, beta_up ~ T^-u, alpha_up ~ T^-s, alpha_low ~ T^-r the terms of the average fall like
T^-(1-u) (descent), T^-u (query noise), T^-2s (upper perturbation), T^-2(a+r) (lower perturbation) and T^-2a (inner
noise, at constant beta_up), so that the rate is the smallest of these exponents; with all terms present it is.

Source: derived here from the bound of `rate_bound`; it is the map behind the source's prescription.

Assumptions: those of `rate_bound`, each term isolated: what belongs to the others is zero or falls faster.

Why: see `rate_algebra` for the terms. The perturbations point along fixed directions, which attain b; along the
gradient they mostly average out.

Setting: wells in two dimensions with three tasks, every one drawn by the base seed and run once, as many as four times
the budget's seeds where there is noise and as the budget's seeds where there is none; a number is the slope of their
mean. The terms that need no noise have none. The largest five horizons, because the first ones are not yet asymptotic.
Descent starts at the common start, everything else in the minimum of F_T.

Controls: for each term, the same runs with the predictions of its schedules swapped.

Limits: not all exponents are reached at these horizons (a = 1/8 for the lower perturbation is not), and they were
left out beforehand. One size, because the exponents need the largest horizons. Where a perturbation follows the
gradient the term can be smaller than the map says.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from theory.check.claim import Budget, Claim, Curve, Evidence, Measure, Rule
from theory.rate.exponents import slope
from theory.rate.setting import FAR_OUT, MAML, OWN_WAYS, SAME_WAY, apart, instances, minimum
from theory.runner import Ascent, Power, Schedule, horizons, run

_SMALL = MAML.but("", beta=Power(0.1, 0.5), eta=Power(0.3, 0.0))
QUIET = {"zeta": 0.0, "sA": 0.0, "xi": 0.0}

Term = tuple[str, dict[str, float], Ascent, dict[Schedule, float]]
"""Name, the noise that is not that of other claims, whose samples make the perturbations, exponent by schedule."""

TERMS: tuple[Term, ...] = (
    (
        "all together",
        {},
        SAME_WAY,
        {
            MAML.but("u = 0.25", eta=Power(0.4, 0.25), alpha_up=Power(0.3, 0.5), alpha_low=Power(0.5, 0.0)): 0.25,
            MAML.but("u = 0.5", alpha_up=Power(0.3, 0.5), alpha_low=Power(0.5, 0.0)): 0.5,
            MAML.but("s = 0.125", alpha_up=Power(0.5, 0.125), alpha_low=Power(0.5, 0.0)): 0.25,
        },
    ),
    (
        "descent",
        QUIET,
        "shared",
        {_SMALL.but(f"u = {u}", eta=Power(c, u)): 1 - u for u, c in ((0.0, 0.4), (0.25, 0.8), (0.5, 2.0))},
    ),
    (
        "query noise",
        {**QUIET, "xi": 1.0},
        "shared",
        {_SMALL.but(f"u = {u}", eta=Power(c, u)): u for u, c in ((0.25, 0.8), (0.5, 2.0), (0.75, 5.0))},
    ),
    (
        "upper perturbation",
        QUIET,
        SAME_WAY,
        {_SMALL.but(f"s = {s}", alpha_up=Power(c, s)): 2 * s for s, c in ((0.125, 0.3), (0.25, 0.5), (0.5, 1.0))},
    ),
    (
        "lower perturbation",
        QUIET,
        OWN_WAYS,
        {
            _SMALL.but(f"a = {a}, r = {r}", beta=Power(c, a), alpha_low=Power(0.5, r)): 2 * (a + r)
            for a, c, r in ((0.25, 0.4, 0.0), (0.25, 0.4, 0.125), (0.5, 1.0, 0.0))
        },
    ),
    (
        "inner noise",
        {**QUIET, "zeta": 1.0},
        "shared",
        {_SMALL.but(f"a = {a}", beta=Power(c, a)): 2 * a for a, c in ((0.125, 0.1), (0.25, 0.2), (0.5, 0.5))},
    ),
)


@cache
def measure(budget: Budget, seed: int) -> Evidence:
    """Slope of every schedule of every term, beside its exponent."""
    longest = min(budget.log2_horizon + 1, 14)  # an octave more than other claims: on short horizons no term dominates
    T = horizons(longest, longest - 4)
    items, curves = [], []
    generator, start = apart(seed), torch.full((2,), FAR_OUT, dtype=torch.float64)
    for name, noise, ascent, schedules in TERMS:
        number = budget.seeds if noise is QUIET else 4 * budget.seeds
        family = replace(instances(generator, number, dim=2, tasks=3), **noise)  # type: ignore[arg-type]
        x = start if name == "descent" else minimum(family, start, list(schedules), T)
        measured = run(family, list(schedules), T=T, start=x, seeds=number, seed=seed, ascent=ascent)
        found = [
            slope(f"{name}, {schedule.name}", T, values, predicted=-exponent)
            for (schedule, exponent), values in zip(schedules.items(), measured, strict=True)
        ]
        items += found
        curves.append(Curve(name, [-item.predicted for item in found], [-item.measured for item in found]))
    curves.append(Curve("as predicted", [0.25, 1.0], [0.25, 1.0], "predicted"))
    return Evidence(tuple(items), tuple(curves), latex=r"-\min\{1-u,\,u,\,2s,\,2(a+r),\,2a\}")


def swapped(name: str) -> Measure:
    """The slopes of a term, each beside the exponent of another schedule of it."""

    def measure_swapped(budget: Budget, seed: int) -> Evidence:
        items = [item for item in measure(budget, seed).items if item.label.startswith(f"{name}, ")]
        others = [*items[1:], items[0]]
        return Evidence(
            tuple(replace(item, predicted=other.predicted) for item, other in zip(items, others, strict=True))
        )

    return measure_swapped


CLAIM = Claim(
    rule=Rule("every slope is within 0.08 of the predicted one", below=0.08, above=0.08),
    measure=measure,
    controls={f"schedules swapped, {name}": swapped(name) for name, *_ in TERMS},
    evidence="statistical",
    axes=("predicted exponent", "measured exponent"),
    scale="linear",
)
