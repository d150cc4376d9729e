"""At what training finds, Gaussian perturbations do not lower the risk.

Statement: F(x; P) <= E F(x + eps; P), eps ~ N(0, s^2 I), at the x that Sharp-MAML up finds.

Source: an assumption of the source's theorem, there with s = alpha.

Assumptions: the setting's tasks and training.

Why: near a minimum the mean of the Hessian's eigenvalues is positive, and the mean over a small Gaussian adds s^2/2
times their sum.

Setting: the data sets of `generalization_coverage`, reading A; quadrature with 20 x 20 nodes; s as in the theorem,
and s = alpha. The risk averages closed forms over 5 support sets a task, the same on both sides. A number is the
largest of F(x; P) / E F(x + eps; P) over the data sets.

Controls: points at distance 4 and 6 from the tasks' centre, where the risk is concave.

Limits: it is checked for this family, not proved; it is what the theorem needs, for its own s only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.pac_bayes import value, width
from theory.generalization.risk import Risk, gaussian_risk
from theory.generalization.setting import Setting, data_sets, trained

SETTING = Setting()


def risk(family: Welsch) -> Risk:
    """F(.; P) of these tasks, over 5 support sets of each."""
    generator = torch.Generator().manual_seed(0)
    supports = torch.stack([family.draw(generator, SETTING.samples) for _ in range(5)])
    return lambda x: family.population(x, supports, SETTING.step)


def deviations() -> dict[str, float]:
    """s of the theorem, and alpha."""
    number = SETTING.samples * SETTING.tasks
    return {"s": float(value(width, alpha=SETTING.radius, d=SETTING.dim, N=number)), "alpha": SETTING.radius}


def ratios(population: Risk, x: Tensor) -> dict[str, Tensor]:
    """F / E F at points, for both deviations."""
    plain = population(x)
    return {name: plain / gaussian_risk(population, x, s) for name, s in deviations().items()}


def measure(budget: Budget, seed: int) -> Evidence:
    """The largest ratio at trained parameters; the mean ratio against the deviation."""
    made = trained(SETTING, data_sets(budget), seed)
    x, few = made.x[: budget.instances], made.x[:4]
    found = ratios(risk(Welsch(made.family.centres[: len(x)], SETTING.sigma)), x)
    grid = [0.05 * k for k in range(1, 21)]
    population = risk(Welsch(made.family.centres[: len(few)], SETTING.sigma))
    curve = [float((gaussian_risk(population, few, s)).mean()) for s in grid]
    return Evidence(
        tuple(
            Item(f"deviation {name} = {s:.3g}, {len(x)} data sets", float(found[name].max()), 1.0)
            for name, s in deviations().items()
        ),
        (
            Curve("E F(x + eps; P), four data sets", grid, curve),
            Curve("F(x; P)", grid, [float(population(few).mean())] * len(grid), "predicted"),
        ),
    )


def far(budget: Budget, seed: int) -> Evidence:
    """Points far from the tasks."""
    family = SETTING.draw(torch.Generator().manual_seed(seed))
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    circle = torch.stack([angles.cos(), angles.sin()], -1)
    x = family.centres.mean(0) + torch.cat([4 * circle, 6 * circle])
    found = ratios(risk(family), x)
    return Evidence(tuple(Item(f"far, deviation {name}", float(of.max()), 1.0) for name, of in found.items()))


CLAIM = Claim(
    rule=Rule("every ratio is at most 1", below=math.inf, above=0.0),
    measure=measure,
    controls={"far from the tasks": far},
    evidence="illustration",
    axes=("s", "risk"),
    scale="linear",
)
