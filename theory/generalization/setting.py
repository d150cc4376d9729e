"""What the generalization claims share: families, data sets, training on them by the core, and coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sharp_maml import Execution, meta_gradient
from synthetic import Welsch
from theory.check.claim import Budget, Item
from theory.generalization.pac_bayes import Bound, Reading, theorem
from theory.runner import TasksAtOnce, traced

STEPS, RATE = 60, 1.0
DELTA = 0.05
DIRECTIONS = 48
"""Points at which a maximum over a ball is looked for."""
SUPPORTS, NEW_TASKS = 20, 200
"""Support sets over which the risk of a task is averaged, and tasks over which that of a new one is."""


def data_sets(budget: Budget) -> int:
    """How many data sets a share or a mean is over."""
    return min(6 * budget.instances, 600)


@dataclass(frozen=True)
class Setting:
    """A family, the sizes of its samples, and what is trained on them.

    Attributes:
        tasks: M.
        samples: n, of a support set and of a query set.
        radius: alpha, of the bound and of training.
        step: beta_low.
        reused: Whether the support set is the query set.
        fresh_tasks: Whether the risk is that of a new task, not of the tasks of the data set.
        tau: Standard deviation of a coordinate of a task's centre.
        sigma: Standard deviation of a coordinate of a sample around it.
        dim: d.
    """

    tasks: int = 20
    samples: int = 25
    radius: float = 0.5
    step: float = 0.5
    reused: bool = False
    fresh_tasks: bool = False
    tau: float = 1.0
    sigma: float = 1.0
    dim: int = 2

    def draw(self, generator: torch.Generator, *each: int) -> Welsch:
        """Random tasks, or, for each of R data sets, random tasks of its own."""
        return Welsch.drawn(generator, *each, tasks=self.tasks, dim=self.dim, tau=self.tau, sigma=self.sigma)

    @property
    def sphere(self) -> Tensor:
        """Points of the sphere |eps| = alpha, `48 x d`: evenly on a circle, at random in more dimensions."""
        if self.dim == 2:
            angles = torch.arange(DIRECTIONS, dtype=torch.float64) * (2 * math.pi / DIRECTIONS)
            return self.radius * torch.stack([angles.cos(), angles.sin()], -1)
        points = torch.randn((DIRECTIONS, self.dim), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self.radius * normalize(points, dim=-1)

    def bound(self, maximum: float, norm: float, *, delta: float = DELTA, reading: Reading = "A") -> Bound:
        """The theorem at a point of a given norm, from the maximum over the ball there."""
        return theorem(
            maximum,
            norm,
            dim=self.dim,
            radius=self.radius,
            samples=self.samples,
            tasks=self.tasks,
            confidence=1 - delta,
            reading=reading,
            step=self.step,
            lipschitz=Welsch.L0,
        )

    def gradient(self, x: Tensor, support: Tensor, query: Tensor, alpha_up: float | Tensor) -> Tensor:
        """The core's meta-gradient on one data set: Sharp-MAML up, or MAML for the number 0."""
        tasks_at_once = TasksAtOnce()
        return meta_gradient(
            Welsch.loss,
            {"x": x},
            tasks_at_once.parts(Welsch.episodes(support, query)),
            beta_low=self.step,
            alpha_up=alpha_up,
            execution=Execution(map_episodes=tasks_at_once),
        ).grad["x"]


@dataclass(frozen=True, eq=False)
class Trained:
    """R data sets and what the core made of them.

    Attributes:
        family: The tasks of each data set.
        support: Samples of the support sets, `R x M x n x d`.
        query: Samples of the query sets, likewise.
        x: Trained parameters, `R x d`.
        population: F(x; P), `R`.
    """

    setting: Setting
    family: Welsch
    support: Tensor
    query: Tensor
    x: Tensor
    population: Tensor

    def empirical(self, x: Tensor) -> Tensor:
        """F(x; D) of every data set at points of its own, from `R x d` to `R`."""
        adapted = Welsch.adapted(x[:, None], self.support, self.setting.step)
        return Welsch.risk(adapted, self.query).mean(-1)

    @property
    def ball_maximum(self) -> Tensor:
        """The largest of F(x + eps; D) at eps = 0 and at 48 points of the sphere |eps| = alpha: at most the maximum."""
        sphere = self.setting.sphere
        return torch.stack([self.empirical(self.x + eps) for eps in (torch.zeros_like(sphere[0]), *sphere)]).amax(0)


def train(setting: Setting, support: Tensor, query: Tensor, *, alpha_up: float) -> Tensor:
    """Sharp-MAML up by the core, from the same start on every data set: `R x d`."""
    x = torch.full((len(support), setting.dim), 0.5, dtype=torch.float64)
    gradient = traced(torch.vmap(partial(setting.gradient, alpha_up=alpha_up)), x, support, query)
    for _ in range(STEPS):
        x = x - RATE * gradient(x, support, query)
    return x


@cache
def trained(setting: Setting, repeats: int, seed: int) -> Trained:
    """Data sets, each with tasks of its own, training and the risk; kept.

    The risk averages closed forms over 20 support sets of each task, or over 200 new tasks with one each.
    """
    generator = torch.Generator().manual_seed(seed)
    family = setting.draw(generator, repeats)
    support, query = (family.draw(generator, setting.samples) for _ in range(2))
    if setting.reused:
        query = support
    x = train(setting, support, query, alpha_up=setting.radius)
    population = torch.zeros(repeats, dtype=torch.float64)
    for _ in range(SUPPORTS):
        new = replace(setting, tasks=NEW_TASKS // SUPPORTS)
        judge = new.draw(generator, repeats) if setting.fresh_tasks else family
        population += judge.population(x, judge.draw(generator, setting.samples)[None], setting.step) / SUPPORTS
    return Trained(setting, family, support, query, x, population)


def coverage(label: str, held: Tensor) -> Item:
    """The share of data sets for which a bound holds, beside 1 - delta."""
    return Item.share(f"{label}, {len(held)} data sets", int(held.sum()), len(held), 1 - DELTA)
