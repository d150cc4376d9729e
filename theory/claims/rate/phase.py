"""Each term of the bound has the exponent that the map gives it.

Statement: for beta_low ~ T^-a, beta_up ~ T^-u, alpha_up ~ T^-s, alpha_low ~ T^-r the terms of the average fall like
T^-(1-u) (descent), T^-u (query noise), T^-2s (upper perturbation), T^-2(a+r) (lower perturbation) and T^-2a (inner
noise, at constant beta_up), so that the rate is the smallest of these exponents; with all terms present it is.

Source: derived here from the bound of `rate_bound`; it is the map behind the source's prescription.

Assumptions: those of `rate_bound`, each term isolated: what belongs to the others is zero or falls faster.

Why: see `rate_algebra` for the terms. The perturbations point along fixed directions, which attain b; along the
gradient they mostly average out.

Setting: the wells, without noise for the terms that have none; the largest five horizons, because the first ones are
not yet asymptotic. Descent starts at the common start, everything else in the minimum of F_T.

Controls: for each term, the same runs with the predictions of its schedules swapped.

Limits: not all exponents are reached at these horizons (a = 1/8 for the lower perturbation is not), and they were
left out beforehand. At a = 1/4 the inner noise is early too, and lies near the edge of the region. Where a
perturbation follows the gradient the term can be smaller than the map says.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from theory.claim import Budget, Claim, Curve, Evidence, Measure, Rule
from theory.claims.rate import MAML, OWN_WAYS, QUIET, SAME_WAY, START, WELLS, minimum
from theory.runner import Ascent, Power, Schedule, horizons, run
from theory.slopes import slope

_SMALL = MAML.but("", beta=Power(0.1, 0.5), eta=Power(0.3, 0.0))
_NOISY = replace(QUIET, xi=1.0)
_INNER = replace(QUIET, zeta=1.0)

Term = tuple[str, object, Ascent, dict[Schedule, float]]

TERMS: tuple[Term, ...] = (
    (
        "all together",
        WELLS,
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
        _NOISY,
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
        _INNER,
        "shared",
        {_SMALL.but(f"a = {a}", beta=Power(c, a)): 2 * a for a, c in ((0.125, 0.3), (0.25, 0.4), (0.5, 1.0))},
    ),
)


@cache
def measure(budget: Budget, seed: int) -> Evidence:
    """Slope of every schedule of every term, beside its exponent."""
    longest = min(budget.log2_horizon + 1, 14)  # an octave more than other claims: on short horizons no term dominates
    T = horizons(longest, longest - 4)
    items, curves = [], []
    for name, family, ascent, schedules in TERMS:
        start = START if name == "descent" else minimum(family, START, list(schedules), T)  # type: ignore[arg-type]
        is_noisy = family is not QUIET
        seeds = 4 * budget.seeds if is_noisy else 1
        measured = run(family, list(schedules), T=T, start=start, seeds=seeds, seed=seed, ascent=ascent)  # type: ignore[arg-type]
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
