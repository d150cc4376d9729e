"""Stationarity rate: what the source says, what it does not say, and what the claims below share.

**The source says**: with step sizes and radii beta_low, beta_up, alpha_up = O(1/sqrt T) and alpha_low = O(1), "with
some proper constants", the iterates of Sharp-MAML up, low and both satisfy (1/T) sum_t E |grad F(x_t)|^2 = O(1/sqrt
T); so "Sharp-MAML matches the convergence rate of MAML". It assumes that F is Lipschitz and smooth, and that
gradients and Hessians are estimated without bias and with bounded variance.

**What was checked**: the statement with every constant in it (`rate_bound`), derived here because the source gives it
informally; that it cannot be improved (`rate_sharp`); its pieces (`rate_pieces`), its expansion (`rate_algebra`), its
slope (`rate_slope`), the limit behind it (`rate_constant`), the comparison with MAML (`rate_matches_maml`), and its
descent part for every smooth function (`rate_worst_case`). The source leaves open whose samples make the perturbations,
whether the update sums or averages over tasks, and whether the gradient flows through the perturbation; the claims go
through these readings.

**What the theorem does not say.** It never uses that the perturbation is an ascent direction: any vector in the ball
has the same rate (`rate_no_ascent_needed`). With beta_low -> 0 as prescribed the objective becomes that of plain
training on the query losses (`rate_erm_limit`). The prescribed exponents are sufficient, not necessary: T^(-1/4) does
for beta_low and alpha_up (`rate_quarter`, `rate_phase`). It says nothing about which stationary point is reached, how
flat it is, or how well it generalizes.

**What each variant needs.** "F Lipschitz and smooth" is enough for up and not for low. What is lost without an
assumption, where the support samples have no noise (`rate_assumptions`, `rate_separation`):

| variant | F smooth, bounded below | L0, Lq of the single tasks | L2 of the support losses |
|---|---|---|---|
| MAML | the rate | nothing | nothing |
| up | the rate | nothing | nothing |
| low, both | the rate | the rate | a bias that shrinks with alpha_low; not the rate, nor the leading constant |

L1 bounds I - beta H for all of them. Noise in the support samples asks Lq for the bias and L0 for the variance of every
variant (`rate_pieces`). `rate_bound` assumes all, because its number for L_F is made of them.

**Settings** were chosen on seeds 0 to 9, so that beta_up <= 1/L_F at the smallest horizon, the start lies outside the
minimum that the runs end in, and noise and perturbations are visible; recorded runs take other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharp_maml import Episode
from synthetic import Family, LogCosh, Opposed, Wells
from theory.claim import Budget
from theory.runner import Ascent, Power, Schedule, horizons, run, variants


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
"""The same wells with coordinates that depend on each other."""

QUIET = Wells(WELLS.support_centres, WELLS.query_centres)
"""The same wells without noise."""

PRESCRIBED = variants(Schedule("prescribed"), alpha_up=Power(1.0, 0.5), alpha_low=Power(0.5, 0.0))
"""maml, up, low, both: beta_low = 0.5 / sqrt T, beta_up = 2 / sqrt T, alpha_up = 1 / sqrt T, alpha_low = 0.5."""

MAML = PRESCRIBED[0]


@cache
def regression() -> LogCosh:
    """Three regression tasks in three dimensions with real minibatches of two."""
    generator = torch.Generator().manual_seed(0)
    return LogCosh.planted(generator, tasks=3, dim=3, samples=20, batch=2, spread=2.0)


REGRESSION_START = torch.full((3,), 3.0, dtype=torch.float64)


def directions(*rows: Sequence[float]) -> list[Episode]:
    """Ascent episodes of the wells that make every perturbation of task m point along row m."""
    return [WELLS.pointing(_tensor(*row)) for row in rows]


SAME_WAY = directions(*[(1.0, 1.0)] * 3)
"""All perturbations point along (1, 1), whatever the gradients are."""

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
    """The minimiser of F_T that gradient descent reaches from `start`, for every schedule and horizon, `C x H x d`."""
    beta = torch.tensor([[schedule.beta.at(t) for t in T] for schedule in schedules], dtype=torch.float64)
    x = start.expand(*beta.shape, -1).clone()
    for _ in range(4000):
        x = x - 0.2 * family.meta_gradient(x, beta)
    return x


class Reading(NamedTuple):
    """One way to read the algorithm: whose samples make the perturbations, mean or sum, detached or not."""

    family: Family
    start: Tensor
    schedules: tuple[Schedule, ...] = PRESCRIBED
    ascent: Ascent = "fresh"
    perturbation: Literal["reused", "differentiated"] = "reused"
    update: Literal["mean", "sum"] = "mean"
    octaves_less: int = 0

    def horizons(self, budget: Budget) -> tuple[int, ...]:
        """T = 64, ..., to the budget's largest or an octave below, which is half of the work."""
        return horizons(budget.log2_horizon - self.octaves_less)

    @property
    def step_factor(self) -> int:
        """What the update multiplies beta_up by."""
        return self.family.tasks if self.update == "sum" else 1


@cache
def readings() -> dict[str, Reading]:
    """The readings that the claims go through, by name."""
    smaller = tuple(schedule.but(schedule.name, eta=Power(1.0, 0.5)) for schedule in PRESCRIBED)
    return {
        "fresh samples": Reading(WELLS, START),
        "fresh samples, rotated": Reading(ROTATED, START, octaves_less=1),
        "shared minibatches": Reading(regression(), REGRESSION_START, ascent="shared"),
        "sum over tasks": Reading(WELLS, START, schedules=smaller, update="sum", octaves_less=1),
        "differentiated perturbation": Reading(
            WELLS, START, ascent="shared", perturbation="differentiated", octaves_less=1
        ),
    }


def measured(reading: Reading, budget: Budget, seed: int) -> NDArray[np.float64]:
    """(1/T) sum |grad F(x_t)|^2 of every schedule of a reading: `C x H x S`."""
    return run(
        reading.family,
        reading.schedules,
        T=reading.horizons(budget),
        start=reading.start,
        seeds=budget.seeds,
        seed=seed,
        ascent=reading.ascent,
        perturbation=reading.perturbation,
        update=reading.update,
    )


@cache
def averages(name: str, budget: Budget, seed: int) -> NDArray[np.float64]:
    """The same of the reading of this name; kept."""
    return measured(readings()[name], budget, seed)
