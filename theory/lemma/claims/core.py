"""The package's meta-gradient vanishes at the counted points, and MAML runs into the counted minima.

Statement: at every stationary point that was counted, `meta_gradient` in float64 is zero up to rounding; gradient
descent with it, from random starts, ends in a counted minimum of MAML every time.

Source: derived here; it ties the exact counts to the code that trains networks.

Assumptions: none for the points. The runs take full batches, no perturbation, and a step below 1/L_F.

Why: the counts are of the zeros of the function whose gradient the core computes. Descent from almost every start
ends in a minimum.

Setting: C0, C1, C2, C5, C8 and random robust regressions with one and two tasks, beta_low L1 = 1/2, 9/10, 2. Rounding
is taken as 2^-50 (1 + beta h)^2 (1 + h)(1 + |x|), h the largest |l_m''| at x and T_m(x). Runs: starts uniform within
one of the outermost points, 4000 steps; an end is in a minimum within 1e-5.

Controls: the points of ERM in place of those of MAML; the points moved by 2^-20; the minima of ERM in place of those
of MAML.

Limits: runs need nondegenerate minima to end in time.
"""

from __future__ import annotations

from fractions import Fraction as Q
from functools import cache

import torch
from torch import Tensor

from sharp_maml import meta_gradient
from synthetic import Rational
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import Point, inner_steps
from theory.lemma.setting import Instance, counted, counted_case, robust
from theory.runner import traced

NAMED = ("C0", "C1", "C2", "C5", "C8")
RATIOS = (Q(1, 2), Q(9, 10), Q(2))
ROUNDING = 2.0**-50
MOVE = Q(1, 2**20)
STEPS, STARTS, NEAR = 4000, 64, 1e-5
L0, L2 = 0.4, 2.5
"""Bounds of |rho'| (below 0.65) and of |rho'''| (below 4.7), in units of L1 = 2; weight decay has h |T| more."""


@cache
def cases(budget: Budget, seed: int) -> dict[str, list[Instance]]:
    """Named cases, and random ones by number of tasks."""
    n = max(2, budget.instances // 4)
    return {
        **{name: [counted_case(name)] for name in NAMED},
        **{
            f"M = {tasks}": [
                counted(family, RATIOS[i % len(RATIOS)] / family.L1)
                for i, family in enumerate(robust(n, seed, tasks=tasks))
            ]
            for tasks in (1, 2)
        },
    }


def size(case: Instance, x: Q) -> float:
    """|grad F(x)| by the core, over what rounding can make of zero."""
    family, beta = case.family, case.beta
    at = torch.tensor([float(x)], dtype=torch.float64)
    found = meta_gradient(family.loss, {"x": at}, family.episodes, beta_low=float(beta)).grad["x"].abs().item()
    bends = [abs(task.slope.derivative().at(y)) for task in inner_steps(family, beta) for y in (x, task.inner.at(x))]
    h = float(max(bends))
    return found / (ROUNDING * (1 + float(beta) * h) ** 2 * (1 + h) * (1 + abs(float(x))))


def largest(budget: Budget, seed: int, points: str, *, move: Q = Q(0)) -> tuple[Item, ...]:
    """The largest size over the points of a cell, where 1 is rounding."""
    items = []
    for label, of_cell in cases(budget, seed).items():
        sizes = [size(case, middle(point) + move) for case in of_cell for point in getattr(case, points)]
        items.append(Item(f"{label}: |grad F| / rounding, {len(sizes)} points", max(sizes), 1))
    return tuple(items)


def middle(point: Point) -> Q:
    """The middle of an enclosure."""
    return (point.low + point.high) / 2


@cache
def ends(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Where runs of MAML on a named case begin and end."""
    case = counted_case(name)
    outermost = [point.value for point in (case.maml[0], case.maml[-1])]
    generator = torch.Generator().manual_seed(seed)
    low, high = outermost[0] - 1, outermost[1] + 1
    start = low + (high - low) * torch.rand((STARTS, 1), generator=generator, dtype=torch.float64)
    family, beta = case.family, float(case.beta)
    assert isinstance(family, Rational)
    bound = float(family.L1)
    decay = float(family.decay)
    bounded = bound - decay
    steepest = L0 * bounded + decay * max(abs(low), abs(high))
    smoothness = (1 + beta * bound) ** 2 * bound + beta * (L2 * bounded) * steepest
    episodes = family.episodes

    def step(x: Tensor) -> Tensor:
        return meta_gradient(family.loss, {"x": x}, episodes, beta_low=beta).grad["x"]

    gradient = traced(torch.vmap(step), start)
    x = start
    for _ in range(STEPS):
        x = x - gradient(x) / smoothness
    return start[:, 0], x[:, 0]


def outside(seed: int, points: str) -> tuple[Item, ...]:
    """Runs that do not end near a minimum among the points."""
    items = []
    for name in NAMED:
        minima = torch.tensor([point.value for point in getattr(counted_case(name), points) if point.kind == "minimum"])
        _, end = ends(name, seed)
        away = (end[:, None] - minima).abs().min(1).values > NEAR
        items.append(Item(f"{name}: runs that end elsewhere, of {STARTS}", int(away.sum()), 0))
    return tuple(items)


def measure(budget: Budget, seed: int) -> Evidence:
    """Sizes at the points of MAML, and ends of the runs against their starts."""
    curves = []
    for name in NAMED:
        start, end = ends(name, seed)
        order = start.argsort()
        curves.append(Curve(name, start[order].tolist(), end[order].tolist(), "points"))
    return Evidence((*largest(budget, seed, "maml"), *outside(seed, "maml")), tuple(curves))


def erm_points(budget: Budget, seed: int) -> Evidence:
    """Sizes at the points of ERM."""
    return Evidence(largest(budget, seed, "erm"))


def moved_points(budget: Budget, seed: int) -> Evidence:
    """Sizes at the points of MAML, moved."""
    return Evidence(largest(budget, seed, "maml", move=MOVE))


def erm_minima(budget: Budget, seed: int) -> Evidence:
    """Runs that do not end near a minimum of ERM."""
    return Evidence(outside(seed, "erm"))


CLAIM = Claim(
    rule=Rule("sizes at most 1, no run elsewhere", below=float("inf"), above=0.0),
    measure=measure,
    controls={"points of ERM": erm_points, "points moved": moved_points, "minima of ERM": erm_minima},
    evidence="certified",
    axes=("start", "end of the run"),
    scale="linear",
)
