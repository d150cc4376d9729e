"""What the rate's claims share: tasks, schedules, drawn instances and the averages measured on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharp_maml import Episode
from synthetic import Family, LogCosh, Opposed, Wells
from theory.check.claim import Budget
from theory.runner import OFF, Ascent, Power, Schedule, horizons, run, variants


def _tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


START = _tensor(2.5, -2.0)
"""x_0 of the wells, about three units from the minimum."""

WELLS = Wells(
    support_centres=_tensor([0.0, 0.5], [0.0, 0.5], [1.5, -1.0]),
    query_centres=_tensor([0.3, 0.0], [0.3, 0.0], [1.0, 2.0]),
    zeta=0.3,
    sA=0.2,
    xi=1.0,
)
"""Three tasks, two of them alike, so that nothing is symmetric."""

_angle = 0.6
ROTATED = Wells(
    **{
        **WELLS.__dict__,
        "rotation": _tensor([math.cos(_angle), -math.sin(_angle)], [math.sin(_angle), math.cos(_angle)]),
    }
)
"""`WELLS` with coordinates that depend on each other."""

QUIET = Wells(WELLS.support_centres, WELLS.query_centres)
"""`WELLS` without noise."""

PRESCRIBED = variants(Schedule("prescribed"), alpha_up=Power(1.0, 0.5), alpha_low=Power(0.5, 0.0))
"""maml, up, low, both: beta_low = 0.5 / sqrt T, beta_up = 2 / sqrt T, alpha_up = 1 / sqrt T, alpha_low = 0.5."""

MAML = PRESCRIBED[0]
SGD = MAML.but("SGD on the query losses", beta=OFF)
SLOW = MAML.but("T^(-1/4)", beta=Power(0.3, 0.25), alpha_up=Power(0.3, 0.25), alpha_low=Power(0.5, 0.0))

ON_DRAWN = (*PRESCRIBED, SGD, SLOW)
"""What is run on drawn instances."""


def apart(seed: int) -> torch.Generator:
    """Where instances come from: not the numbers that are the noise of this base seed or of one near it."""
    return torch.Generator().manual_seed(seed + 2**31)


def regression(seed: int) -> LogCosh:
    """Three regression tasks in three dimensions with real minibatches of two, drawn by the base seed."""
    return LogCosh.planted(apart(seed), tasks=3, dim=3, samples=20, batch=2, spread=2.0)


REGRESSION_START = torch.full((3,), 3.0, dtype=torch.float64)


def directions(*rows: Sequence[float]) -> list[Episode]:
    """Ascent episodes of wells that make every perturbation of task m point along row m."""
    return [WELLS.pointing(_tensor(*row)) for row in rows]


def same_way(dim: int, tasks: int) -> list[Episode]:
    """All perturbations point along (1, ..., 1), whatever the gradients are."""
    return directions(*[(1.0,) * dim] * tasks)


SAME_WAY = same_way(2, 3)

OTHER_WAY = directions(*[(-1.0, -1.0)] * 3)
"""All perturbations point the opposite way."""

OWN_WAYS = directions((1.0, -1.0), (1.0, -1.0), (-1.0, 0.5))
"""The lower perturbation of each task points along a direction of its own."""


STEEP = Opposed(_tensor(1.0, -1.0), _tensor(0.0, 10.0), growth=3.0, centre=2.0)
"""Two tasks whose query gradients grow without bound and cancel in F."""

KINKED = Opposed(_tensor(1.0, -1.0), _tensor(0.0, 10.0), K=3.0, kinked=True)
"""Two tasks with support losses whose Hessian jumps, and bounded query gradients."""

SMOOTH = Opposed(_tensor(1.0, -1.0), _tensor(0.0, 10.0), K=3.0, centre=2.0)
"""Two tasks with neither."""


def minimum(family: Family, start: Tensor, schedules: Sequence[Schedule], T: Sequence[int]) -> Tensor:
    """The minimiser of F_T that gradient descent reaches from `start`, for every schedule and horizon.

    It is `C x H x d`, or `C x H x S x d` for a family of S instances.
    """
    each = family.meta_loss(start, 0.0).shape
    beta = torch.tensor([[schedule.beta.at(t) for t in T] for schedule in schedules], dtype=torch.float64)
    x = start.expand(*beta.shape, *each, -1).clone()
    beta = beta.view(*beta.shape, *[1] * len(each))
    for _ in range(4000):
        gradient = family.meta_gradient(x, beta)
        if gradient.abs().max() < 1e-13:
            break
        x = x - 0.2 * gradient
    return x


class Reading(NamedTuple):
    """One way to read the algorithm: whose samples make the perturbations, mean or sum, detached or not.

    With `instances`, the family has so many side by side, each is run once, and `stream` is added to the base seed.
    """

    family: Family
    start: Tensor
    schedules: tuple[Schedule, ...] = PRESCRIBED
    ascent: Ascent = "fresh"
    perturbation: Literal["reused", "differentiated"] = "reused"
    update: Literal["mean", "sum"] = "mean"
    octaves_less: int = 0
    instances: int = 0
    stream: int = 0

    def horizons(self, budget: Budget) -> tuple[int, ...]:
        """T = 64, ..., to the budget's largest or some octaves below, each of which is half of the work."""
        return horizons(budget.log2_horizon - self.octaves_less)

    @property
    def step_factor(self) -> int:
        """What the update multiplies beta_up by."""
        return self.family.tasks if self.update == "sum" else 1


@cache
def readings(seed: int) -> dict[str, Reading]:
    """The readings that the claims go through on named tasks, by name."""
    smaller = tuple(schedule.but(schedule.name, eta=Power(1.0, 0.5)) for schedule in PRESCRIBED)
    return {
        "fresh samples": Reading(WELLS, START),
        "fresh samples, rotated": Reading(ROTATED, START, octaves_less=2),
        "shared minibatches": Reading(regression(seed), REGRESSION_START, ascent="shared", octaves_less=1),
        "sum over tasks": Reading(WELLS, START, schedules=smaller, update="sum", octaves_less=1),
        "differentiated perturbation": Reading(
            WELLS, START, ascent="shared", perturbation="differentiated", octaves_less=1
        ),
    }


SIZES = ((2, 50), (20, 5), (100, 2))
"""d and M of the drawn instances."""

FAR_OUT = 2.0
"""Every coordinate of x_0 of the drawn instances."""

DRAWN = tuple(f"drawn, d = {dim}, M = {tasks}" for dim, tasks in SIZES)
"""Names of their readings."""


@cache
def drawn(budget: Budget, seed: int) -> dict[str, Reading]:
    """The drawn instances, those of one size side by side, by a name that says it."""
    generator, found = apart(seed), {}
    number = budget.seeds // len(SIZES) + 1
    for i, (name, (dim, tasks)) in enumerate(zip(DRAWN, SIZES, strict=True), 1):
        found[name] = Reading(
            instances(generator, number, dim=dim, tasks=tasks),
            torch.full((dim,), FAR_OUT, dtype=torch.float64),
            grown(ON_DRAWN, dim),
            octaves_less=2,
            instances=number,
            stream=i * 2**24,
        )
    return found


def instances(generator: torch.Generator, number: int, *, dim: int, tasks: int) -> Wells:
    """Random wells side by side: centres, and normal or heavy-tailed noise by turns, as the part's text has it."""

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64) - 0.5

    support, query = uniform(2, tasks, number, dim) + uniform(number, dim)
    growth = dim / WELLS.dim
    return replace(
        WELLS,
        support_centres=support,
        query_centres=query,
        zeta=math.sqrt(growth) * WELLS.zeta,
        xi=math.sqrt(growth * tasks / WELLS.tasks) * WELLS.xi,
        heavy=torch.arange(number) % 2 == 1,
    )


def grown(schedules: Sequence[Schedule], dim: int) -> tuple[Schedule, ...]:
    """The schedules with radii for wells in d dimensions."""
    growth = math.sqrt(dim / WELLS.dim)
    return tuple(
        one.but(one.name, alpha_up=one.alpha_up.times(growth), alpha_low=one.alpha_low.times(growth))
        for one in schedules
    )


def measured(reading: Reading, budget: Budget, seed: int) -> NDArray[np.float64]:
    """(1/T) sum |grad F(x_t)|^2 of every schedule of a reading: `C x H x S`."""
    return run(
        reading.family,
        reading.schedules,
        T=reading.horizons(budget),
        start=reading.start,
        seeds=reading.instances or budget.seeds,
        seed=seed + reading.stream,
        ascent=reading.ascent,
        perturbation=reading.perturbation,
        update=reading.update,
    )


@cache
def averages(name: str, budget: Budget, seed: int) -> NDArray[np.float64]:
    """The averages of the reading of this name; kept."""
    return measured((readings(seed) | drawn(budget, seed))[name], budget, seed)


@cache
def lowest(family: Family, beta: float) -> Tensor | float:
    """What the family certifies to be at most inf F; kept."""
    return family.lowest(beta)


def leading(family: Family, start: Tensor) -> NDArray[np.float64]:
    """The leading coefficient of the bound, Delta/c2 + c2 Lq sq^2/(2M) with Delta of F_0, of each instance."""
    c2, known = MAML.eta.c, family.constants
    descent = family.meta_loss(start, 0.0) - lowest(family, 0.0)
    coefficients: NDArray[np.float64] = (descent / c2 + c2 / 2 * known.Lq * known.sq**2 / family.tasks).numpy()
    return coefficients


@cache
def weights(budget: Budget, seed: int) -> NDArray[np.float64]:
    """One over the leading coefficient of its own bound, for each drawn instance."""
    return 1 / np.concatenate([leading(one.family, one.start) for one in drawn(budget, seed).values()])


@cache
def on_instances(
    budget: Budget, seed: int, *, one_way: bool = False
) -> tuple[tuple[int, ...], dict[str, NDArray[np.float64]]]:
    """Horizons, and the averages on all drawn instances, weighed, `H x instances`, by the name of the schedule.

    The schedules are `ON_DRAWN`; with all perturbations in the same direction `both` and SLOW.
    """
    readings = drawn(budget, seed)
    found = [averages(name, budget, seed) for name in DRAWN]
    schedules = ON_DRAWN
    if one_way:
        schedules = (PRESCRIBED[-1], SLOW)
        found = [
            measured(one._replace(schedules=grown(schedules, len(one.start)), ascent=same_way(*size)), budget, seed)
            for one, size in zip(readings.values(), SIZES, strict=True)
        ]
    weighed = np.concatenate(found, -1) * weights(budget, seed)
    return readings[DRAWN[0]].horizons(budget), dict(zip((one.name for one in schedules), weighed, strict=True))
