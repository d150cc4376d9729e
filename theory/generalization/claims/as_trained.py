"""Whose upper bound is smaller, as trained.

Statement: "Sharp-MAML has smaller generalization error upper bound than MAML", read as: on more than half of the data
sets the bound at what Sharp-MAML up ends in is smaller than the bound at what MAML ends in, from the same start.

Source: the source text, on the generalization of Sharp-MAML.

Assumptions: those of `generalization_coverage`; the same alpha, delta and prior grid for both.

Why: it is false. Training neither minimises the maximum over the ball nor looks at the norm. In one basin up with a
constant radius ends beside the minimum, the farther the larger alpha is, and has the larger maximum; with a radius
that decays to 0 it ends where MAML does. It ends elsewhere only if the ascent leaves the basin, and then the bound
can be smaller or larger. When the minimiser does have the smaller bound is `generalization_compare`.

Setting: one parameter, M = 20, n = 25, 60 steps of the core with beta_up = 1. One basin (centres drawn once, sigma =
1); nine tasks in a narrow basin at -4 or at -2 and eleven in a broad one between 0 and 4 (sigma = 0.3). Starts -4, -2
and 2; alpha = 1/2, 3/2 and 3, the radius of training and of the bound, constant, or falling linearly to 0 during
training; and the alpha with the smallest bound, chosen for each of the two with delta shared out. Reading A. The
maximum over the ball is taken over 97 points of it. A number is a share of data sets, decided on the tails of the
binomial distribution at one half; its label has the median of the bound of up over that of MAML, and the median of the
latter. The bound of up counts as smaller, or larger, in a cell if the cell's Clopper-Pearson interval excludes one
half, at the level of all claims shared out over the cells.

Controls: up with a radius that carries it out of the narrow basin, where the bound of up is smaller; the minimiser of
the maximum over the ball in place of what up ends in, for starts in the narrow basin.

Limits: one cell is enough to refute it, so that the landscapes are named and not drawn; the finding is how many cells
there are of each kind. One parameter, three landscapes, one step size. The radius of the first control was chosen on
data sets of another seed. Two upper bounds are compared, not two risks; above 1, as most are at alpha = 3, they say
nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from scipy.ndimage import maximum_filter1d
from torch import Tensor

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.setting import DELTA, RATE, STEPS, Setting
from theory.runner import traced

SETTING = Setting(dim=1)
STARTS = (-4.0, -2.0, 2.0)
RADII = (0.5, 1.5, 3.0)
DECAYS = (False, True)
BALL = 97
GRID = torch.linspace(-8, 8, 513, dtype=torch.float64)


def basins() -> dict[str, Welsch]:
    """The three sets of tasks."""
    broad = torch.linspace(0, 4, 11, dtype=torch.float64)
    return {
        "one basin": SETTING.draw(torch.Generator().manual_seed(SETTING.tasks)),
        **{
            f"narrow at {at:g}": Welsch(torch.cat([torch.full((9,), at, dtype=torch.float64), broad])[:, None], 0.3)
            for at in (-4.0, -2.0)
        },
    }


class Data(NamedTuple):
    """Support and query sets, `R x M x n x 1` each."""

    support: Tensor
    query: Tensor

    def risk(self, x: Tensor) -> Tensor:
        """F(x; D) of every data set at points of its own, from `R x K` to `R x K`."""
        adapted = Welsch.adapted(x[:, :, None, None], self.support[:, None], SETTING.step)
        return Welsch.risk(adapted, self.query[:, None]).mean(-1)


@cache
def drawn(budget: Budget, seed: int) -> dict[str, Data]:
    """Data sets of each set of tasks."""
    generator = torch.Generator().manual_seed(seed)
    repeats = min(3 * budget.instances // 4, 200)
    return {
        name: Data(*(family.draw(generator, SETTING.samples, repeats) for _ in range(2)))
        for name, family in basins().items()
    }


def lanes(sharp: bool) -> list[tuple[float, float, bool]]:
    """Start, radius, and whether it decays, of every training."""
    if not sharp:
        return [(start, 0.0, False) for start in STARTS]
    return [(start, radius, decays) for start in STARTS for radius in RADII for decays in DECAYS]


@cache
def trained(budget: Budget, seed: int, sharp: bool) -> dict[str, Tensor]:
    """What the core ends in on each set of tasks, `lanes x R`: Sharp-MAML up, or MAML."""

    def one(x: Tensor, support: Tensor, query: Tensor, radius: Tensor) -> Tensor:
        return SETTING.gradient(x, support, query, radius if sharp else 0.0)

    starts, radii, decays = (torch.tensor(column, dtype=torch.float64) for column in zip(*lanes(sharp), strict=True))
    over_data = torch.vmap(one, in_dims=(0, 0, 0, None))
    over_lanes = torch.vmap(over_data, in_dims=(0, None, None, 0))
    gradient, found = None, {}
    for name, data in drawn(budget, seed).items():
        x = starts[:, None, None].repeat(1, len(data.support), 1)
        for step in range(STEPS):
            arguments = (x, *data, radii * (1 - decays * step / STEPS))
            gradient = gradient or traced(over_lanes, *arguments)
            x = x - RATE * gradient(*arguments)
        found[name] = x[..., 0]
    return found


def bounds(data: Data, x: Tensor, radius: float) -> Tensor:
    """The theorem at one point a data set, with all of delta and with its share where the radius is chosen: `2 x R`."""
    eps = torch.linspace(-radius, radius, BALL, dtype=torch.float64)
    maximum = data.risk(x[:, None] + eps).amax(1)
    setting, points = replace(SETTING, radius=radius), list(zip(maximum.tolist(), x.abs().tolist(), strict=True))
    return torch.tensor(
        [
            [setting.bound(highest, norm, delta=delta).total for highest, norm in points]
            for delta in (DELTA, DELTA / len(RADII))
        ],
        dtype=torch.float64,
    )


def share(label: str, up: Tensor, maml: Tensor) -> Item:
    """The share of data sets on which the bound of up is smaller."""
    medians = f"median ratio {float((up / maml).median()):.4f}, of {float(maml.median()):.2f}"
    return Item.share(f"{label} ({medians})", int((up < maml).sum()), len(up), 1.0)


@cache
def shares(budget: Budget, seed: int) -> dict[tuple[str, float, float | None, bool], Item]:
    """By tasks, start, radius (None where it is chosen) and whether it decays."""
    found: dict[tuple[str, float, float | None, bool], Item] = {}
    for name, data in drawn(budget, seed).items():
        up, maml = (trained(budget, seed, sharp)[name] for sharp in (True, False))
        at = dict(zip(lanes(True), up, strict=True))
        for start, x in zip(STARTS, maml, strict=True):
            of_maml = torch.stack([bounds(data, x, radius) for radius in RADII])
            for decays in DECAYS:
                of_up = torch.stack([bounds(data, at[start, radius, decays], radius) for radius in RADII])
                label = f"{name}, start {start:g}, {'decaying' if decays else 'constant'} radius"
                for radius, up_there, maml_there in zip(RADII, of_up, of_maml, strict=True):
                    found[name, start, radius, decays] = share(f"{label} {radius:g}", up_there[0], maml_there[0])
                chosen = (of[:, 1].amin(0) for of in (of_up, of_maml))
                found[name, start, None, decays] = share(f"{label}, chosen", *chosen)
    return found


def measure(budget: Budget, seed: int) -> Evidence:
    """Shares of every cell; their means over the starts."""
    found = shares(budget, seed)
    curves = []
    for name in basins():
        for decays in DECAYS:
            y = [sum(found[name, start, radius, decays].measured for start in STARTS) / len(STARTS) for radius in RADII]
            kind = "decaying" if decays else "constant"
            curves.append(Curve(f"{name}, {kind} radius", RADII, y, "points" if decays else "measured"))
    return Evidence(tuple(found.values()), (*curves, Curve("half", RADII, [0.5] * len(RADII), "predicted")))


def out_of_the_basin(budget: Budget, seed: int) -> Evidence:
    """The start in the narrow basin at -4, with the radius that reaches the broad one."""
    found = shares(budget, seed)
    return Evidence(tuple(found["narrow at -4", -4.0, 3.0, decays] for decays in DECAYS))


def minimiser(budget: Budget, seed: int) -> Evidence:
    """The minimiser of the maximum over the ball against MAML, both starts in a narrow basin."""
    items = []
    for name, start in (("narrow at -4", -4.0), ("narrow at -2", -2.0)):
        data, radius = drawn(budget, seed)[name], 1.5
        width = 2 * round(radius / float(GRID[1] - GRID[0])) + 1
        maximum = maximum_filter1d(data.risk(GRID.expand(len(data.support), -1)).numpy(), width, mode="nearest")
        x = GRID[maximum.argmin(1)]
        maml = trained(budget, seed, False)[name][STARTS.index(start)]
        items.append(share(f"{name}, radius {radius:g}", bounds(data, x, radius)[0], bounds(data, maml, radius)[0]))
    return Evidence(tuple(items))


CLAIM = Claim(
    rule=Rule("every share is above one half", below=0.5, above=0.0),
    measure=measure,
    controls={"a radius that leaves the narrow basin": out_of_the_basin, "the minimiser in place of up": minimiser},
    evidence="statistical",
    expected="refuted",
    literal=True,
    axes=("alpha", "share of data sets with a smaller bound for up, mean over starts"),
    scale="linear",
)
