"""A network that learns few-shot tasks of images by the theorem's own algorithm, and the theorem's bound of it.

The network has one hidden layer of tanh. Images are pooled to 4 x 4 pixels and mapped to a few numbers by a random
projection, after which all directions have the same variance, so that the loss is about as curved in one as in another;
everything is smooth and in float64. The tasks are finite sets of images: the gradient of the full meta-loss is exact,
and comes from automatic differentiation of the meta-loss, never from the core. Derived here. Read next: `rate.py`, the
command; `local.py`, whose constants these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, log_softmax

from sharp_maml import (
    Batch,
    Dataset,
    Episode,
    Params,
    Protocol,
    episode,
    hessian,
    norm,
)
from synthetic import Constants, apart
from theory.networks.local import deviation, gradient, hessian_deviation, hessian_quotient, operator_norm, sample
from theory.rate.theorem import evaluate, rate, smoothness, variance_fresh
from theory.runner import Power, Schedule, run, traced, variants

SPLIT = "train"
PRESCRIBED = variants(Schedule("", eta=Power(10.0, 0.5)), alpha_up=Power(0.5, 0.5), alpha_low=Power(0.5, 0.0))
"""maml, up, low, both: beta_low = 0.5 / sqrt T, beta_up = 10 / sqrt T, alpha_up = 0.5 / sqrt T, alpha_low = 0.5."""
POINTS = (0.0, 0.1, 1.0)
"""Where constants are measured, in shares of a descent."""


@dataclass(frozen=True)
class Settings:
    """The tasks, the network and the runs.

    Attributes:
        tasks: M.
        ways: Classes of a task.
        pool: Support images of a class, and as many query images, from which minibatches are drawn.
        shots: Support images of a class in a minibatch.
        queries: Query images of a class in a minibatch.
        features: Numbers that an image is projected to.
        hidden: Width of the hidden layer.
        smallest: Logarithm to the base 2 of the smallest horizon.
        largest: Logarithm of the largest.
        seeds: Independent runs of every variant and horizon, each from a start of its own.
        samples: Minibatches of a task from which standard deviations are estimated; even.
        seed: Seed of everything that is drawn.
    """

    tasks: int = 4
    ways: int = 3
    pool: int = 15
    shots: int = 1
    queries: int = 2
    features: int = 16
    hidden: int = 6
    smallest: int = 10
    largest: int = 15
    seeds: int = 5
    samples: int = 16
    seed: int = 220603997

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise ValueError(f"pool must be >= 1, got {self.pool}")
        if self.seeds < 2:
            raise ValueError(f"seeds must be >= 2, of which an interval can be made, got {self.seeds}")
        if not 0 <= self.smallest < self.largest:
            raise ValueError(
                f"there must be two horizons, 0 <= smallest < largest, got {self.smallest}, {self.largest}"
            )


@dataclass(frozen=True, eq=False)
class Tasks:
    """Few-shot tasks for a network of one hidden layer, as a family of `synthetic.Family` whose constants are unknown.

    The parameters `x` are weights and biases of the hidden layer, then those of the output, in a row.

    Attributes:
        support: Support images in features, `M x ways x pool x features`.
        query: Query images, of the same shape.
        hidden: Width of the hidden layer.
        shots: Support images of a class in a minibatch.
        queries: Query images of a class in a minibatch.
    """

    support: Tensor
    query: Tensor
    hidden: int
    shots: int
    queries: int

    @classmethod
    def embedded(cls, dataset: Dataset, settings: Settings) -> Tasks:
        """The tasks of the episodes of some training images; the mean square of an image's features is 4."""
        protocol = Protocol(settings.ways, settings.pool, settings.pool)
        draw = partial(episode, dataset, SPLIT, protocol, seed=settings.seed, dtype=torch.float64)
        halves = [half.inputs for m in range(settings.tasks) for half in draw(index=m)]
        pooled = adaptive_avg_pool2d(torch.cat(halves), 4).flatten(1)
        matrix = torch.randn(
            pooled.shape[1],
            settings.features,
            generator=torch.Generator().manual_seed(settings.seed),
            dtype=torch.float64,
        )
        features = (
            torch.linalg.qr((pooled - pooled.mean(0)) @ matrix).Q * 2 * math.sqrt(len(pooled) / settings.features)
        )
        of_task = features.view(settings.tasks, 2, settings.ways, settings.pool, settings.features)
        return cls(of_task[:, 0], of_task[:, 1], settings.hidden, settings.shots, settings.queries)

    @property
    def tasks(self) -> int:
        """M."""
        return len(self.support)

    @property
    def ways(self) -> int:
        """Classes of a task."""
        return self.support.shape[1]

    @property
    def features(self) -> int:
        """Numbers that an image has."""
        return self.support.shape[3]

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return self.hidden * (self.features + 1) + self.ways * (self.hidden + 1)

    def start(self, generator: torch.Generator) -> Tensor:
        """A random x: normal weights with the deviation 1 / sqrt(inputs of the layer), biases of 0."""

        def layer(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
            weights = torch.randn(outputs * inputs, generator=generator, dtype=torch.float64) / math.sqrt(inputs)
            return weights, weights.new_zeros(outputs)

        return torch.cat([*layer(self.hidden, self.features), *layer(self.ways, self.hidden)])

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Cross-entropy, the mean over all images; inputs: `... x features`; targets: `... x ways`, one hot."""
        sizes = [self.hidden * self.features, self.hidden, self.ways * self.hidden, self.ways]
        first, bias, second, shift = torch.split(params["x"], sizes)
        activations = (batch.inputs @ first.view(self.hidden, -1).T + bias).tanh()
        logits = activations @ second.view(self.ways, -1).T + shift
        return -(batch.targets * log_softmax(logits, -1)).sum(-1).mean()

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """Mean cross-entropy of the query batch."""
        return self.loss(params, episode.query)

    def sample(self, generator: torch.Generator, n: int) -> Episode:
        """n minibatches of each task, as many images of every class, drawn with replacement: tensors `M x n x ...`."""

        def minibatches(pool: Tensor, count: int) -> Batch:
            tasks, ways, size, _ = pool.shape
            rows = torch.randint(size, (tasks, n, ways, count), generator=generator)
            of_task, of_class = torch.arange(tasks).view(-1, 1, 1, 1), torch.arange(ways).view(-1, 1)
            labels = torch.eye(ways, dtype=pool.dtype).repeat_interleave(count, 0).expand(tasks, n, -1, -1)
            return Batch(pool[of_task, of_class, rows].flatten(2, 3), labels)

        return Episode(minibatches(self.support, self.shots), minibatches(self.query, self.queries))

    def whole(self, m: int) -> Episode:
        """All images of a task, whose losses are the expected ones."""
        labels = torch.eye(self.ways, dtype=self.support.dtype).repeat_interleave(self.support.shape[2], 0)
        return Episode(*(Batch(pool[m].flatten(0, 1), labels) for pool in (self.support, self.query)))

    def meta_loss(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """F(x) of the expected losses, from `d` to 0-dimensional."""

        def of_task(support: Batch, query: Batch) -> Tensor:
            slope = torch.func.grad(lambda x: self.loss({"x": x}, support))(x)
            return self.loss({"x": x - beta * slope}, query)

        wholes = [self.whole(m) for m in range(self.tasks)]
        halves = (Batch(*map(torch.stack, zip(*of_tasks, strict=True))) for of_tasks in zip(*wholes, strict=True))
        losses: Tensor = torch.vmap(of_task)(*halves)
        return losses.mean()

    def meta_gradient(self, x: Tensor, beta: Tensor | float) -> Tensor:
        """grad F(x), from `... x d` to `... x d`; beta is a number or fits `...`."""
        rows = x.reshape(-1, x.shape[-1])
        betas = torch.as_tensor(beta, dtype=x.dtype).expand(x.shape[:-1]).reshape(-1)
        gradients: Tensor = _gradients(self, len(rows))(rows, betas)
        return gradients.view(x.shape)


@cache
def _gradients(tasks: Tasks, rows: int) -> Any:
    """grad F for so many parameters at once, traced."""
    points = torch.zeros(rows, tasks.dim, dtype=tasks.support.dtype)
    each = torch.vmap(torch.func.grad(tasks.meta_loss))
    return traced(lambda x, beta: each(x, beta), points, points[:, 0])


def starts(tasks: Tasks, settings: Settings) -> Tensor:
    """x_0 of every seed, `S x d`."""
    generator = torch.Generator().manual_seed(settings.seed + 1)
    return torch.stack([tasks.start(generator) for _ in range(settings.seeds)])


def path(tasks: Tasks, x: Tensor, *, beta: float, eta: float, steps: int) -> list[Tensor]:
    """Points of a descent of F from x, at `POINTS` of its steps of size eta."""
    found, marks = [], {round(share * steps) for share in POINTS}
    for t in range(steps + 1):
        if t in marks:
            found.append(x)
        x = x - eta * tasks.meta_gradient(x, beta)
    return found


def constants(tasks: Tasks, points: list[Tensor], *, beta: float, settings: Settings) -> Constants:
    """The theorem's constants, the largest found over tasks and points; see `theory/networks/local.py`.

    L0, L1, L2 and Lq are of the expected losses, L2 a quotient along the inner step; sH is a proxy.
    """
    drawn = apart(tasks.sample(torch.Generator().manual_seed(settings.seed + 2), settings.samples))
    largest: dict[str, float] = {}
    for x in points:
        for m in range(tasks.tasks):
            for name, value in _of_task(tasks, x, tasks.whole(m), drawn[m], beta).items():
                largest[name] = max(value, largest.get(name, 0.0))
    return Constants(**largest)


def _of_task(tasks: Tasks, x: Tensor, whole: Episode, drawn: Episode, beta: float) -> dict[str, float]:
    def losses(half: str, episodes: list[Episode]) -> list[Callable[[Params], Tensor]]:
        return [partial(tasks.loss, batch=getattr(one, half)) for one in episodes]

    params, samples = {"x": x}, [sample(drawn, i) for i in range(len(drawn.support.targets))]
    (support,), (query,) = losses("support", [whole]), losses("query", [whole])
    step = {"x": -beta * gradient(support, params)["x"]}
    adapted = {"x": x + step["x"]}
    return {
        "L0": float(norm(gradient(query, adapted))),
        "L1": operator_norm(hessian(support, params)),
        "L2": hessian_quotient(support, params, step, float(norm(step))),
        "Lq": operator_norm(hessian(query, adapted)),
        "sg": deviation([gradient(one, params) for one in losses("support", samples)]),
        "sH": hessian_deviation(losses("support", samples), params),
        "sq": deviation([gradient(one, adapted) for one in losses("query", samples)]),
    }


def bounds(tasks: Tasks, known: Constants, descent: float, T: int) -> dict[str, float | None]:
    """The theorem's bound of each variant at a horizon; None where the step is longer than 1/L_F."""
    found: dict[str, float | None] = {}
    for schedule in PRESCRIBED:
        values = {name: getattr(schedule, name).at(T) for name in ("beta", "eta", "alpha_up", "alpha_low")}
        is_allowed = values["eta"] * evaluate(smoothness, known, beta=values["beta"]) <= 1
        values |= {"Delta": descent, "M": tasks.tasks, "T": T}
        found[schedule.name] = evaluate(rate(variance_fresh), known, **values) if is_allowed else None
    return found


def measured(tasks: Tasks, T: int, settings: Settings) -> dict[str, Any]:
    """One horizon: the averages of every variant and seed, and its bounds with what they are made of.

    Constants are the largest along a noise-free descent from the first start, as long as a run: it takes the step of
    the smallest horizon, and so many of them that they sum to as much.
    """
    x, plain = starts(tasks, settings), PRESCRIBED[0]
    beta, eta = plain.beta.at(T), plain.eta.at(2**settings.smallest)
    every = x.expand(len(PRESCRIBED), 1, -1, -1)
    # `run` asks a family for no constants
    averages = run(tasks, PRESCRIBED, T=(T,), start=every, seeds=len(x), seed=settings.seed + T)  # type: ignore[arg-type]
    points = path(tasks, x[0], beta=beta, eta=eta, steps=round(plain.eta.at(T) * T / eta))
    known = constants(tasks, points, beta=beta, settings=settings)
    descent = float(torch.stack([tasks.meta_loss(one, beta) for one in x]).mean())
    return {
        "T": T,
        "averages": {one.name: values[0].tolist() for one, values in zip(PRESCRIBED, averages, strict=True)},
        "bounds": bounds(tasks, known, descent, T),
        "constants": asdict(known),
        "Delta": descent,
        "step": plain.eta.at(T) * evaluate(smoothness, known, beta=beta),
        "gradients": [float(tasks.meta_gradient(point, beta).norm()) for point in points],
    }
