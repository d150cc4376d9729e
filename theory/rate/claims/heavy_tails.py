"""The rate needs the variance of the query gradient, and no other: with fewer moments it is slower, not gone.

Statement: with noise of Student's t distribution the log-log slope of (1/T) sum_{t<T} E |grad F(x_t)|^2 under the
prescribed schedules is -1/2 where that of the query gradient has 2.5 degrees of freedom, though that of the support
gradient has 1.5, whose variance is infinite; with nu = 1.5 for the query gradient it is -(nu - 1)/2 = -1/4. Both for
MAML and for Sharp-MAML both, whose perturbations are made of such samples.

Source: derived here; the source assumes bounded variances of gradients and Hessians, all of them.

Assumptions: F and every query loss are Lipschitz and smooth, as the source has it for F; the noise of the query
gradient has moments of every order below nu, in (1, 2), or a variance; that of the support gradient has a mean norm.

Why: a gradient that is bounded and Lipschitz is Hoelder continuous with every exponent p - 1 in (0, 1], so that the
noise costs a step at most C eta^p E |noise|^p, p < nu, instead of a multiple of eta^2. Over eta this is O(T^(-(p -
1)/2)), beside Delta/(eta T). That it is no less is a property of the tasks: jumps out of a well, about T eta^nu of
them, cost a descent each, hence Delta eta^(nu - 1) on average. Noise zeta of the support gradient moves the point of
the query gradient by beta |zeta|: its bias is at most a multiple of beta E |zeta|, and so is its variance, because the
query gradient is bounded: O(1/sqrt T) with the mean alone. A normalised ascent goes a fixed length whatever its sample
is. So the perturbations stay in their balls, where the theorem takes any vector: they make nothing worse. Nor do they
repair anything: what moves x is the noise of the update, which they do not touch.

Setting: one task of the wells of `rate_slope` with other noise, one sample for update and perturbations. The scale of
the noise is its standard deviation in the limit of many degrees of freedom, 0.3 for support losses. With a variance
that of query losses is 0.3, the start distant, seeds four times the budget's, T = 64, ..., two octaves less than
elsewhere. Without, averages are of rare jumps, and a descent would hide them: 0.1, from the minimum of F_T, thirty-two
times the seeds, an octave more.

Controls: -1/2 with 1.5 degrees of freedom, as if the theorem did not need the variance of the query gradient; and -(nu
- 1)/2 = -3/4 with 2.5, as if more moments went on helping.

Limits: slopes at finite T, and a region that reaches half-way from -1/4 to -1/2. Periodic wells forgive a jump, since
the next well is as good; where a loss grows like a square the average is infinite as soon as the variance is. Updates
that are clipped or normalised, the literature's answer to such noise, are not in the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharp_maml import Batch, Episode
from synthetic import Wells
from theory.check.claim import Budget, Claim, Evidence, Item, Measure, Rule
from theory.rate.exponents import against_horizon, slope
from theory.rate.setting import PRESCRIBED, START, WELLS, minimum
from theory.runner import horizons, run


class Noise(NamedTuple):
    """Noise of the query losses, and the runs that show what comes of it.

    Attributes:
        freedom: Degrees of freedom.
        scale: Standard deviation in the limit of many degrees of freedom.
        more_seeds: Times the budget's.
        octaves_less: Below the budget's largest horizon.
    """

    freedom: float
    scale: float
    more_seeds: int
    octaves_less: int


FINITE, INFINITE = Noise(2.5, 0.3, 4, 2), Noise(1.5, 0.1, 32, 1)
"""With and without a variance."""
ENDS = (PRESCRIBED[0], PRESCRIBED[-1])
"""MAML and both."""


@dataclass(frozen=True, eq=False)
class StudentWells(Wells):
    """Wells in the plane whose linear terms have Student's t distribution; without constants of its noise.

    The length R of a vector with nu degrees of freedom has the closed distribution P(R > r) = (1 + r^2/nu)^(-nu/2) in
    two dimensions, of a variable with unit covariance in the limit of large nu.

    Attributes:
        support_freedom: Degrees of freedom of a support loss's linear term.
        query_freedom: Degrees of freedom of a query loss's.
    """

    support_freedom: float = 1.5
    query_freedom: float = 2.5

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n samples of the episode of each task: tensors `M x n x ...`."""
        support, query = super().sample(generator, n)
        uniform = torch.rand((self.tasks, 2, n), generator=generator, dtype=torch.float64)
        of_support, of_query = uniform.unbind(1)
        return Episode(
            _with_length(support, self.zeta * _lengths(of_support, self.support_freedom)),
            _with_length(query, self.xi * _lengths(of_query, self.query_freedom)),
        )


def _lengths(uniform: Tensor, nu: float) -> Tensor:
    """R / sqrt 2, so that the mean of its square tends to 1 for large nu: the quantile at 1 - u."""
    return (nu / 2 * (uniform ** (-2 / nu) - 1)).sqrt()


def _with_length(batch: Batch, lengths: Tensor) -> Batch:
    """The samples of a loss with the length of their linear term changed."""
    centre, slope = batch.inputs.unbind(-2)
    slope = slope * (lengths / slope.norm(dim=-1))[..., None]
    return Batch(torch.stack([centre, slope], -2), batch.targets)


@cache
def averages(noise: Noise, budget: Budget, seed: int) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Horizons, and the averages of MAML and both, `2 x H x S`."""
    tasks = WELLS.support_centres[:1], WELLS.query_centres[:1]
    family = StudentWells(*tasks, zeta=0.3, xi=noise.scale, query_freedom=noise.freedom)
    T = horizons(budget.log2_horizon - noise.octaves_less)
    start = START if noise is FINITE else minimum(family, START, ENDS, T)[:, :, None]
    seeds = noise.more_seeds * budget.seeds
    return T, run(family, ENDS, T=T, start=start, seeds=seeds, seed=seed, ascent="shared")


def items(noise: Noise, predicted: float, budget: Budget, seed: int) -> tuple[Item, ...]:
    """The slopes of both ends."""
    T, values = averages(noise, budget, seed)
    return tuple(
        slope(f"{noise.freedom} degrees, {schedule.name}", T, of_variant, predicted=predicted)
        for schedule, of_variant in zip(ENDS, values, strict=True)
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Query noise with and without a variance."""
    curves = []
    for noise in (FINITE, INFINITE):
        T, values = averages(noise, budget, seed)
        curves += [
            against_horizon(f"{schedule.name}, {noise.freedom} degrees", T, of_variant)
            for schedule, of_variant in zip(ENDS, values, strict=True)
        ]
    found = items(FINITE, -1 / 2, budget, seed) + items(INFINITE, -(INFINITE.freedom - 1) / 2, budget, seed)
    return Evidence(found, tuple(curves), latex=r"-\frac{\min\{\nu,2\}-1}{2}")


def wrong(noise: Noise, predicted: float) -> Measure:
    """The claim's slopes beside a wrong one."""
    return lambda budget, seed: Evidence(items(noise, predicted, budget, seed))


CLAIM = Claim(
    rule=Rule("every slope lies within 1/8 of the predicted one", below=0.125, above=0.125),
    measure=measure,
    controls={
        "-1/2 without a variance": wrong(INFINITE, -1 / 2),
        "-(nu - 1)/2 with a variance": wrong(FINITE, -(FINITE.freedom - 1) / 2),
    },
    evidence="statistical",
    axes=("T", r"$(1/T)\,\sum_t E|\nabla F(x_t)|^2$"),
)
