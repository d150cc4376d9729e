"""sqrt(T) times the average tends to a known number.

Statement: under the prescribed schedules sqrt(T) (1/T) sum_{t<T} E |grad F(x_t)|^2 tends to [F_0(x_0) - F_0(x*)]/c2 +
(c2/2) tr(Hess F_0(x*) Sigma), for MAML and Sharp-MAML up, low and both alike; x* is the minimum that gradient descent
reaches from x_0, F_0 the meta-loss at beta_low = 0, Sigma the covariance of the averaged query gradient. The number is
at most the leading coefficient of the bound, Delta/c2 + c2 Lq sq^2/(2M), which no average exceeds in the limit.

Source: derived here; the source's O(1/sqrt T) names no constant.

Assumptions: those of `rate_bound`; and the runs stay in the basin of x*, which holds for the wells because the noise
of a step, beta_up sq/sqrt(M), is small against the distance of the wells.

Why: the upper side is proved, with the coefficient of the bound (`rate_algebra`): F_0(x*) >= inf F_0 and tr(Hess F_0
Sigma) <= Lq sq^2/M, so that the two numbers are equal on quadratics (`rate_sharp`). That the limit is this number on
other tasks is a heuristic. Telescoping F along the run, the descent eta sum |grad F|^2 pays for F(x_0) - F(x*) and for
the noise, whose cost a step is (eta^2/2) tr(Hess Sigma) near x*; divide by eta T with eta = c2/sqrt T.

Setting: the wells with shared samples, four times the budget's seeds, up to the largest horizon.

Controls: the update summed over the tasks, and a query noise 1.2 times as large, both held against the same number: a
check that looks at slopes only would see neither. They go half as far.

Limits: at finite T the average lies below the limit, as the figure shows; the region allows four per cent. The lower
side is no theorem.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synthetic import Wells
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.claims.rate import MAML, PRESCRIBED, START, WELLS, minimum
from theory.runner import OFF, Schedule, horizons, run
from theory.slopes import against_horizon, ratio

MORE_SEEDS = 4
"""Times the budget's: a limit is compared to four per cent."""
ENDS = (PRESCRIBED[0], PRESCRIBED[-1])
"""MAML and both."""


def limit(family: Wells) -> float:
    """[F_0(x_0) - F_0(x*)]/c2 + (c2/2) tr(Hess F_0(x*) Sigma), Sigma = sq^2/(M d) I."""
    c2 = MAML.eta.c
    still = MAML.but("beta_low = 0", beta=OFF)
    x = minimum(family, START, [still], [1])[0, 0]
    trace = float(torch.trace(torch.func.jacrev(lambda x: family.meta_gradient(x, 0.0))(x)))
    descent = float(family.meta_loss(START, 0.0) - family.meta_loss(x, 0.0))
    return descent / c2 + c2 / 2 * trace * family.constants.sq**2 / (family.tasks * family.dim)


def leading(family: Wells) -> float:
    """The leading coefficient of the bound, Delta/c2 + c2 Lq sq^2/(2M)."""
    c2, known = MAML.eta.c, family.constants
    descent = float(family.meta_loss(START, 0.0)) - family.lowest(0.0)
    return descent / c2 + c2 / 2 * known.Lq * known.sq**2 / family.tasks


def averages(
    budget: Budget,
    seed: int,
    schedules: tuple[Schedule, ...],
    T: tuple[int, ...],
    *,
    family: Wells = WELLS,
    update: Literal["mean", "sum"] = "mean",
) -> dict[str, NDArray[np.float64]]:
    """The averages of every schedule, `H x S`, by its name."""
    seeds = MORE_SEEDS * budget.seeds
    found = run(family, schedules, T=T, start=START, seeds=seeds, seed=seed, ascent="shared", update=update)
    return dict(zip((schedule.name for schedule in schedules), found, strict=True))


def items(measured: dict[str, NDArray[np.float64]], T: int) -> tuple[Item, ...]:
    """sqrt(T) x average at the last horizon, T, over the limit of the wells as they are."""
    predicted = np.array([limit(WELLS)])
    return tuple(ratio(f"{name}, T = {T}", values[-1] * T**0.5, predicted) for name, values in measured.items())


def measure(budget: Budget, seed: int) -> Evidence:
    """All variants, at the largest horizon."""
    T = horizons(budget.log2_horizon, budget.log2_horizon - 4)
    measured = averages(budget, seed, PRESCRIBED, T)
    curves = (
        *(against_horizon(name, T, of_variant, times=0.5) for name, of_variant in measured.items()),
        Curve("limit", T, [limit(WELLS)] * len(T), "predicted"),
        Curve("leading coefficient of the bound", T, [leading(WELLS)] * len(T), "predicted"),
    )
    return Evidence(items(measured, T[-1]), curves, latex=LATEX)


def summed(budget: Budget, seed: int) -> Evidence:
    """The update summed over the tasks, an octave less far."""
    T = horizons(budget.log2_horizon - 1)[-1:]
    return Evidence(items(averages(budget, seed, ENDS, T, update="sum"), *T))


def noisier(budget: Budget, seed: int) -> Evidence:
    """A query noise 1.2 times as large, an octave less far."""
    T = horizons(budget.log2_horizon - 1)[-1:]
    return Evidence(items(averages(budget, seed, ENDS, T, family=replace(WELLS, xi=1.2 * WELLS.xi)), *T))


LATEX = r"\frac{F_0(x_0)-F_0(x^*)}{c_2}+\frac{c_2}{2}\,\mathrm{tr}(\nabla^2F_0(x^*)\Sigma)"

CLAIM = Claim(
    rule=Rule("sqrt(T) x average over the limit lies in 1 +- 0.04", below=0.04, above=0.04),
    measure=measure,
    controls={"update summed over tasks": summed, "query noise x 1.2": noisier},
    evidence="statistical",
    axes=("T", r"$\sqrt{T}\cdot(1/T)\,\sum_t E|\nabla F(x_t)|^2$"),
)
