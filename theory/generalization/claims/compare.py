"""A lemma: the minimiser of the maximum over the ball has the smaller upper bound, if its norm is not larger.

Statement: if x_up minimises the maximum over the ball, and |x_up| <= |x_maml|, the bound at x_up is at most that at
x_maml. This is true by construction, and says nothing about what training finds (`generalization_as_trained`).

Source: the source says that Sharp-MAML has a smaller upper bound, without a condition; the condition was derived
here.

Assumptions: those of `generalization_coverage`; the same alpha, delta and prior grid for both.

Why: every term of the bound is the same but the maximum, which x_up minimises, and the divergence, which grows with
|x|.

Setting: one parameter, where the maximum over the ball, an interval, and its minimiser are exact on a grid of 4001
points in [-8, 8]; twenty tasks, nine of them in a narrow basin and eleven in a broad one, where MAML chooses the
narrow one and Sharp-MAML the broad one; and random data sets with one basin. alpha = 1.5 and 0.5. x_maml minimises
F(.; D) on the grid. A number is the ratio of the two bounds. As the inequality cannot fail, what is tested is that
both are computed as the theorem says.

Controls: the same without the condition: x_up and x_maml as the core trains them, on data sets with one basin.

Limits: what training finds is not the minimiser; the difference of two upper bounds is not that of the risks. On one
landscape the condition picks the broad basin; how often a landscape has that is not asked.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from torch import Tensor

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.setting import Setting, data_sets, train

ONE_BASIN = Setting(dim=1, tasks=20, samples=25, radius=0.5)
GRID = torch.linspace(-8, 8, 4001, dtype=torch.float64)
Data = tuple[Tensor, Tensor]
Landscape = tuple[NDArray[np.float64], NDArray[np.float64]]


def two_basins(seed: int) -> tuple[Setting, Data]:
    """A narrow basin at -4 and a broad one between 0 and 4."""
    centres = torch.cat([torch.full((9,), -4.0), torch.linspace(0, 4, 11)])[:, None].double()
    family = Welsch(centres, 0.3)
    generator = torch.Generator().manual_seed(seed)
    setting = Setting(dim=1, tasks=20, samples=25, radius=1.5, sigma=0.3)
    return setting, (family.draw(generator, 25)[0], family.draw(generator, 25)[0])


def landscape(setting: Setting, data: Data) -> Landscape:
    """F(.; D) and its maximum over the ball, at the points of the grid."""
    support, query = data
    risk = Welsch.risk(Welsch.adapted(GRID[:, None, None], support, setting.step), query).mean(-1).numpy()
    points = 2 * round(setting.radius / float(GRID[1] - GRID[0])) + 1
    return risk, maximum_filter1d(risk, points, mode="nearest")


def bound(setting: Setting, maximum: float, x: float) -> float:
    """The theorem, reading A."""
    return setting.bound(maximum, abs(x)).total


def minimisers(setting: Setting, risk: NDArray[np.float64], maximum: NDArray[np.float64]) -> tuple[float, float, float]:
    """x_up, x_maml, and the ratio of their bounds, from a landscape."""
    up, maml = int(maximum.argmin()), int(risk.argmin())
    x_up, x_maml = float(GRID[up]), float(GRID[maml])
    return x_up, x_maml, bound(setting, maximum[up], x_up) / bound(setting, maximum[maml], x_maml)


@cache
def one_basin(repeats: int, seed: int) -> tuple[Data, list[Landscape]]:
    """Data sets with one basin, `repeats x M x n x 1` each, and their landscapes; kept."""
    generator = torch.Generator().manual_seed(seed)
    family = ONE_BASIN.draw(generator, repeats)
    support, query = (family.draw(generator, ONE_BASIN.samples) for _ in range(2))
    return (support, query), [landscape(ONE_BASIN, pair) for pair in zip(support, query, strict=True)]


def measure(budget: Budget, seed: int) -> Evidence:
    """Ratios where the condition holds; the landscape with two basins."""
    setting, data = two_basins(seed)
    risk, maximum = landscape(setting, data)
    x_up, x_maml, ratio = minimisers(setting, risk, maximum)
    found = [minimisers(ONE_BASIN, *of_set) for of_set in one_basin(data_sets(budget), seed)[1]]
    ratios = [of for up, maml, of in found if abs(up) <= abs(maml)]
    every = slice(None, None, 20)
    x = GRID[every].tolist()
    return Evidence(
        (
            Item("two basins: |x_up| / |x_maml|", abs(x_up) / abs(x_maml), 1.0),
            Item("two basins: ratio of the bounds", ratio, 1.0),
            Item(f"one basin: largest ratio of the bounds, {len(ratios)} data sets", max(ratios), 1.0),
        ),
        (
            Curve("F(x; D)", x, risk[every].tolist(), "predicted"),
            Curve("maximum over the ball", x, maximum[every].tolist(), "predicted"),
            Curve("x_maml", [x_maml], [float(risk.min())], "points"),
            Curve("x_up", [x_up], [float(maximum.min())], "points"),
        ),
    )


def as_trained(budget: Budget, seed: int) -> Evidence:
    """Ratios of what the core trains, without the condition."""
    (support, query), landscapes = one_basin(data_sets(budget), seed)
    x_up, x_maml = (train(ONE_BASIN, support, query, alpha_up=alpha)[:, 0] for alpha in (ONE_BASIN.radius, 0.0))
    ratios = []
    for i, (_, maximum) in enumerate(landscapes):
        bounds = [
            bound(ONE_BASIN, float(np.interp(float(x[i]), GRID.numpy(), maximum)), float(x[i])) for x in (x_up, x_maml)
        ]
        ratios.append(bounds[0] / bounds[1])
    return Evidence((Item(f"largest ratio, {len(ratios)} data sets", max(ratios), 1.0),))


CLAIM = Claim(
    rule=Rule("every ratio is at most 1", below=float("inf"), above=0.0),
    measure=measure,
    controls={"as trained, one basin": as_trained},
    evidence="illustration",
    axes=("x", "risk"),
    scale="linear",
)
