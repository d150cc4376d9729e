"""Tasks on which the generalization bound is nearly violated, with the exact distribution of F(x; D) over data sets.

Each needs some term of the bound: parameters that fit labels which are pure chance, an inner step that moves all
losses of a task together, or one that fits its own samples. Read next: `claims/terms.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from theory.generalization.pac_bayes import Reading

Array = NDArray[np.float64]
ROUNDING = 1e-9
"""Two sides of a bound that are closer than this are not told apart."""
SLOPE = 0.99
"""Slope of `loss` away from 0, below its Lipschitz constant, which is 1."""
ZONE = 1e-6
"""Half-width of the zone around 0 in which `loss` depends on the sample."""


@dataclass(frozen=True, eq=False)
class Instance:
    """Tasks, an x, and what the bound compares there.

    Attributes:
        risk: F(x; P), which is E F(x + eps; P) at most.
        empirical: The values of F(x; D).
        probability: Probability of each of them.
        ball: max over |eps| <= alpha of F(x + eps; D) for each, from below.
        slack: How much larger it may be.
        norm: |x|.
        dim: d.
        radius: alpha.
        samples: n.
        tasks: M.
        reading: Whose samples are independent.
        step: beta_low; 0 where there is no inner step.
        lipschitz: L0.
    """

    risk: float
    empirical: Array
    probability: Array
    ball: Array
    slack: float = 0.0
    norm: float = 0.0
    dim: int = 1
    radius: float = 1.0
    samples: int = 2
    tasks: int = 2
    reading: Reading = "A"
    step: float = 0.0
    lipschitz: float = 1.0

    def violated(self, beyond: float, empirical: Array | None = None) -> tuple[float, float]:
        """An interval that holds the probability that the risk exceeds a bound.

        Args:
            beyond: What the bound adds to the maximum over the ball.
            empirical: What it has in place of that maximum.

        Returns:
            Lower and upper end, which differ where a value of the bound is nearly the risk. A bound that is no number
            is exceeded.
        """
        bound = (self.ball if empirical is None else empirical) + beyond
        return (
            float(self.probability[~(bound + self.slack + ROUNDING >= self.risk)].sum()),
            float(self.probability[~(bound - ROUNDING >= self.risk)].sum()),
        )


def coin(samples: int, tasks: int, chance: float) -> Instance:
    """Losses 0 or 1, and 1 with a given chance, whatever x is."""
    number = samples * tasks
    values, probability = _shares(number, chance)
    return Instance(chance, values, probability, values, samples=samples, tasks=tasks)


def labels(tasks: int, *, wide: bool) -> Instance:
    """A coordinate a task, three labels +-1 of pure chance; the loss of a label is 1 where x_m has the other sign.

    x_m = w times the majority of its labels, so that 0 or 1 of them is wrong. F(x; P) = 1/2 for every x without a zero.

    Args:
        tasks: M, which is d.
        wide: w = 1.01 alpha, so that the ball changes no sign; else w = alpha / (2 sqrt d), and it changes all.
    """
    wrong, probability = _shares(tasks, 0.75)
    values = wrong / 3
    width = 1.01 if wide else 0.5 / math.sqrt(tasks)
    return Instance(
        0.5,
        values,
        probability,
        values if wide else 1 - values,
        norm=width * math.sqrt(tasks),
        dim=tasks,
        samples=3,
        tasks=tasks,
    )


def own_samples(tasks: int, reading: Reading) -> Instance:
    """Losses 1/2 + z x clipped to [0, 1], z = +-1 of equal chance; two samples per task, both support and query; x = 0.

    The inner step lowers the loss on its own samples by beta_low where they agree. F(x; P) = 1/2 for every x. Random
    tasks are all alike.
    """
    step, radius = 0.25, 1e-6
    agree, probability = _shares(tasks, 0.5)
    values = 0.5 - step * agree
    return Instance(
        0.5, values, probability, values, slack=radius, radius=radius, tasks=tasks, reading=reading, step=step
    )


def new_tasks(samples: int, tasks: int) -> Instance:
    """Random tasks all losses of which are 0, or 1, with equal chance."""
    values, probability = _shares(tasks, 0.5)
    return Instance(0.5, values, probability, values, samples=samples, tasks=tasks, reading="random tasks, A")


def inner_noise(factor: int, samples: int, tasks: int, reading: Reading) -> Instance:
    """The tasks of `loss`, z = +-1 of equal chance, at x = 0: a local minimum of F(.; D) and of F(.; P).

    F(0; D) is the mean over tasks of 1/2 - b mean(z), clipped to [0, 1]: the losses of a task move together.

    Args:
        factor: b, at least 1: beta_low times the slopes of both levels.
        samples: n, even, at most 5000 b: no nonzero mean of z then leaves the adapted parameter near 0.
        tasks: M.
        reading: "A" or "B": away from 0 the loss does not depend on the sample.
    """
    if samples % 2 or not 0 < samples <= 5000 * factor:
        raise ValueError(f"samples must be even, positive and at most {5000 * factor}, got {samples}")
    step = inner_step(factor)
    radius = ZONE / 10
    probability = sum_of(inner_risks(factor, samples), tasks)
    values = np.arange(len(probability)) / (len(probability) - 1)
    return Instance(
        0.5,
        values,
        probability,
        values,
        slack=SLOPE * step * radius**2,
        radius=radius,
        samples=samples,
        tasks=tasks,
        reading=reading,
        step=step,
    )


def inner_step(factor: float) -> float:
    """beta_low for which b = beta_low (1 - r/beta_low - r^2) 0.99 is a given number, r the half-width of the zone."""
    return (factor / SLOPE + ZONE) / (1 - ZONE**2)


def loss(x: Tensor, z: Tensor, step: float) -> Tensor:
    """A loss in [0, 1], 1-Lipschitz in x, whose gradient at 0 is noise and whose inner step from near 0 forgets x.

    For |x| <= r it is 1/2 + g z x + x^2 / (2 beta_low) - x^3 / 3, g = 1 - r/beta_low - r^2: the adapted parameter is
    beta_low (x^2 - g mean(z)). From |x| = 201 r on, at the latest, it is 1/2 + 0.99 x, clipped to [0, 1]; between, the
    1-Lipschitz function nearest to that.
    """
    slope = 1 - ZONE / step - ZONE**2

    def inside(x: Tensor) -> Tensor:
        return 0.5 + slope * z * x + x**2 / (2 * step) - x**3 / 3

    edge, away = inside(x.clamp(-ZONE, ZONE)), x.abs() - ZONE
    outside = torch.minimum(torch.maximum(0.5 + SLOPE * x, edge - away), edge + away)
    return torch.where(away <= 0, inside(x), outside).clamp(0, 1)


def inner_risks(factor: int, samples: int) -> Array:
    """Probabilities of the values 0, 1/(2 n), ..., 1 of 1/2 - b mean(z), clipped, for n signs z of equal chance."""
    positive = np.arange(samples + 1)
    place = np.clip(samples - 2 * factor * (2 * positive - samples), 0, 2 * samples)
    found = np.zeros(2 * samples + 1)
    np.add.at(found, place, binom.pmf(positive, samples, 0.5))
    return found


def sum_of(probability: Array, number: int) -> Array:
    """The distribution of a sum of independent numbers, each 0, 1, ... with given probabilities; correct to 1e-14."""
    length = number * (len(probability) - 1) + 1
    size = 1 << (length - 1).bit_length()
    found = np.fft.irfft(np.fft.rfft(probability, size) ** number, size)[:length]
    return np.maximum(found, 0.0)


def _shares(number: int, chance: float) -> tuple[Array, Array]:
    """k / N and its probability, k ~ Binomial(N, chance)."""
    count = np.arange(number + 1)
    return count / number, np.asarray(binom.pmf(count, number, chance))
