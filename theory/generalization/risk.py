"""Risk around a parameter: its Gaussian mean and its maximum over a ball, with what is certain of each.

A risk is a function from points, `... x d`, to values, `...`, in [0, 1]. Read next: `claims/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sharp_maml import Estimate

Risk = Callable[[Tensor], Tensor]
NODES = 20
POINTS = 128
"""Points at a time of a quadrature over few points, where a call costs more than what it computes."""
LEVEL = 1e-4
"""Probability that an interval of Monte Carlo misses."""


class Enclosure(NamedTuple):
    """An interval that holds a number, and where its lower end is taken."""

    low: float
    high: float
    argument: Tensor


def gaussian_risk(risk: Risk, x: Tensor, deviation: float) -> Tensor:
    """E F(x + eps), eps ~ N(0, s^2 I), by Gauss-Hermite quadrature with 20 nodes a coordinate.

    For a smooth risk whose derivatives do not grow, as those of the synthetic families, the error is that of rounding;
    a test compares numbers of nodes.

    Args:
        risk: F.
        x: Points, `... x d` with d <= 2.
        deviation: s, at least 0.

    Returns:
        The means, `...`.

    Raises:
        ValueError: d > 2, where `sampled_risk` serves, or s < 0.
    """
    dim = x.shape[-1]
    if dim > 2 or deviation < 0:
        raise ValueError(f"quadrature is for d <= 2 and s >= 0, got d = {dim} and s = {deviation}: use sampled_risk")
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(NODES))
    weights = weights / weights.sum()
    offsets = torch.cartesian_prod(*[nodes] * dim).view(-1, dim)
    products = torch.cartesian_prod(*[weights] * dim).view(-1, dim).prod(-1)
    total = torch.zeros(x.shape[:-1], dtype=x.dtype)
    together = max(1, POINTS // total.numel())
    parts = zip(offsets.split(together), products.split(together), strict=True)  # type: ignore[no-untyped-call]
    for some, of_some in parts:
        values = risk(x + deviation * some.view(-1, *[1] * total.dim(), dim))
        for product, value in zip(of_some, values, strict=True):
            total = total + product * value
    return total


def sampled_risk(risk: Risk, x: Tensor, deviation: float, *, samples: int, generator: torch.Generator) -> Estimate:
    """The mean risk around x by Monte Carlo, in any dimension, with Hoeffding's interval for losses in [0, 1].

    Args:
        risk: F.
        x: A point, `d`.
        deviation: s, at least 0.
        samples: Number of perturbations, at least 1.
        generator: Where they come from.

    Returns:
        The mean, and an interval that misses with probability 1e-4 at most.

    Raises:
        ValueError: A number is out of range, or a risk is outside [0, 1].
    """
    if samples < 1 or deviation < 0:
        raise ValueError(f"samples must be >= 1 and the deviation >= 0, got {samples} and {deviation}")
    values = risk(x + deviation * torch.randn((samples, len(x)), generator=generator, dtype=x.dtype))
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"a risk must be in [0, 1], got values from {float(values.min())} to {float(values.max())}")
    mean, half = float(values.mean()), math.sqrt(math.log(2 / LEVEL) / (2 * samples))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), samples)


def ball_maximum(risk: Risk, x: Tensor, radius: float, *, smoothness: float, tolerance: float) -> Enclosure:
    """max over |eps| <= alpha of F(x + eps), enclosed by branch and bound with Taylor's remainder.

    On a square with half a diagonal h around y, F <= F(y) + |grad F(y)| h + L_F h^2 / 2. Squares that miss the ball or
    whose bound is below a value met in the ball are dropped, the others cut in four, until the bound is close.

    Args:
        risk: F, differentiable, with an L_F-Lipschitz gradient.
        x: A point, `d` with d <= 2.
        radius: alpha, positive.
        smoothness: L_F.
        tolerance: Largest width of the enclosure, positive.

    Returns:
        The interval, and where its lower end is attained.

    Raises:
        ValueError: d > 2, where `ascent_maximum` gives a lower end, or the radius or the tolerance is not positive.
    """
    dim = len(x)
    if dim > 2 or not radius > 0 or not tolerance > 0:
        raise ValueError(
            f"a certified maximum is for d <= 2, a positive radius and tolerance, got d = {dim}, radius {radius}, "
            f"tolerance {tolerance}"
        )
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=x.dtype)] * dim).view(-1, dim)
    half, offsets = radius, torch.zeros((1, dim), dtype=x.dtype)
    low, argument = float(risk(x)), x
    while True:
        reach = half * math.sqrt(dim)
        offsets = offsets[offsets.norm(dim=-1) <= radius + reach]
        at = (x + offsets).requires_grad_()
        values = risk(at)
        (slopes,) = torch.autograd.grad(values.sum(), at)
        values = values.detach()
        upper = values + slopes.norm(dim=-1) * reach + smoothness * reach**2 / 2
        inside = x + offsets * (radius / offsets.norm(dim=-1, keepdim=True).clamp(min=radius))
        met = risk(inside)
        if float(met.max()) > low:
            low, argument = float(met.max()), inside[met.argmax()]
        if float(upper.max()) - low <= tolerance:
            return Enclosure(low, max(low, float(upper.max())), argument)
        half /= 2
        offsets = (offsets[upper > low][:, None] + half * corners).reshape(-1, dim)


def ascent_maximum(
    risk: Risk, x: Tensor, radius: float, *, start: Tensor, smoothness: float, steps: int = 100
) -> tuple[float, Tensor]:
    """A lower bound of the same maximum, in any dimension: projected gradient ascent from one point.

    Args:
        risk: F, differentiable.
        x: Centre of the ball, `d`.
        radius: alpha, positive.
        start: Where to start, `d`; moved into the ball.
        smoothness: L_F; steps are 1 / L_F times the gradient.
        steps: Number of steps.

    Returns:
        The largest value met, and where.
    """

    def project(y: Tensor) -> Tensor:
        return x + (y - x) * min(1.0, radius / max(float((y - x).norm()), 1e-300))

    y = project(start)
    best, argument = -math.inf, y
    for _ in range(steps + 1):
        y = y.detach().requires_grad_()
        value = risk(y)
        if value.item() > best:
            best, argument = value.item(), y.detach()
        (slope,) = torch.autograd.grad(value, y)
        y = project(y.detach() + slope / smoothness)
    return best, argument
