"""Many runs of Sharp-MAML at once: seeds x schedules x horizons through `vmap` of the core's `meta_gradient`.

A lane is one schedule at one horizon T. All lanes take their steps together, each for every seed, and stop counting at
their horizon. Seed s sees the same samples in every lane, and in another run whose perturbations are made otherwise, so
that they are compared pair by pair. The core is traced once for a number of lanes, which saves the overhead of the
transforms without changing an operation. Read next: `rate/exponents.py`, which reads rates off the averages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from sharp_maml import Batch, Episode, Execution, meta_gradient
from synthetic import Family

Ascent = Literal["shared", "fresh"] | Sequence[Episode]
"""Whose samples make the perturbations: those of the update, samples of their own, or these episodes at every step."""


class Power(NamedTuple):
    """c T^-exponent."""

    c: float
    exponent: float

    def at(self, T: int) -> float:
        """The value at horizon T."""
        return float(self.c * T**-self.exponent)

    def times(self, factor: float) -> Power:
        """The power multiplied by a number."""
        return Power(factor * self.c, self.exponent)


aten = torch.ops.aten
OFF = Power(0.0, 0.0)
_INNER, _OUTER = Power(0.5, 0.5), Power(2.0, 0.5)
SHRINK = 2
"""Finished lanes are dropped when no more than one in so many is left: tracing anew takes up to a second."""


@dataclass(frozen=True)
class Schedule:
    """Step sizes and radii as powers of the horizon T.

    The defaults are the source's: beta_low, beta_up, alpha_up = O(1 / sqrt T), alpha_low = O(1); radii 0 are MAML.

    Attributes:
        name: Name in tables and figures.
        beta: beta_low.
        eta: beta_up.
        alpha_up: Upper radius.
        alpha_low: Lower radius.
    """

    name: str
    beta: Power = _INNER
    eta: Power = _OUTER
    alpha_up: Power = OFF
    alpha_low: Power = OFF

    def but(self, name: str, **changes: Power) -> Schedule:
        """This schedule with another name and some powers changed."""
        return replace(self, name=name, **changes)


def variants(base: Schedule, *, alpha_up: Power, alpha_low: Power) -> tuple[Schedule, ...]:
    """MAML and Sharp-MAML up, low, both: the same steps with each choice of radii."""
    radii = {"maml": (OFF, OFF), "up": (alpha_up, OFF), "low": (OFF, alpha_low), "both": (alpha_up, alpha_low)}
    return tuple(base.but(name, alpha_up=up, alpha_low=low) for name, (up, low) in radii.items())


def horizons(largest: int, smallest: int = 6) -> tuple[int, ...]:
    """2^smallest, ..., 2^largest."""
    return tuple(2**k for k in range(smallest, largest + 1))


def run(
    family: Family,
    schedules: Sequence[Schedule],
    *,
    T: Sequence[int],
    start: Tensor,
    seeds: int,
    seed: int,
    ascent: Ascent = "fresh",
    perturbation: Literal["reused", "recomputed", "differentiated"] = "reused",
    update: Literal["mean", "sum"] = "mean",
) -> NDArray[np.float64]:
    """The averages (1/T) sum_{t<T} |grad F(x_t)|^2 of x_{t+1} = x_t - eta g_t, g_t from the core.

    F depends on T through beta. grad F is the family's own closed form, never the core's.

    Args:
        family: The tasks.
        schedules: Step sizes and radii, C of them.
        T: Horizons, H of them.
        start: x_0, `d`; or one per schedule and horizon, `C x H x d`; or per seed, too, `C x H x S x d`.
        seeds: Number S of independent runs of each lane.
        seed: Seed of all of them.
        ascent: Whose samples make the perturbations.
        perturbation: See `meta_gradient`.
        update: `sum` multiplies eta by the number of tasks, as the source's box has it.

    Returns:
        `C x H x S`.
    """
    # longest first, so that the lanes that go on are always the first ones
    lanes = sorted(
        ((c, h) for c in range(len(schedules)) for h in range(len(T))), key=lambda lane: T[lane[1]], reverse=True
    )
    starts = start if start.dim() == 4 else start.expand(len(schedules), len(T), -1)[:, :, None]

    def column(name: str) -> Tensor:
        values = [getattr(schedules[c], name).at(T[h]) for c, h in lanes]
        return torch.tensor(values, dtype=torch.float64)

    beta, eta, up, low = (column(name) for name in ("beta", "eta", "alpha_up", "alpha_low"))
    if update == "sum":
        eta = eta * family.tasks
    x = torch.stack([starts[c, h] for c, h in lanes]).expand(-1, seeds, -1).clone()
    sums = torch.zeros(x.shape[:2], dtype=torch.float64)
    # two streams: whether and how the ascent draws must not move the samples of the updates
    of_updates, of_ascents = (torch.Generator().manual_seed(one) for one in (seed, seed + 2**30))
    step = _step(family, ascent, perturbation, any_up=bool(up.any()), any_low=bool(low.any()))
    meta_gradients, done = None, 0
    for horizon in sorted(set(T)):
        active = sum(T[h] >= horizon for _, h in lanes)
        if active * SHRINK <= len(x):
            x, meta_gradients = x[:active], None
        n = len(x)
        for _ in range(done, horizon):
            makers = _stacked(family.draw(of_ascents, seeds)) if ascent == "fresh" else None
            arguments = (x, _stacked(family.draw(of_updates, seeds)), makers, beta[:n], up[:n], low[:n])
            # a trace is for one number of lanes, and dropping some asks for another
            if meta_gradients is None:
                meta_gradients = traced(step, *arguments)
            # before the step, since the average begins at x_0; finished lanes still step, but count no more
            sums[:active] += family.meta_gradient(x[:active], beta[:active, None]).square().sum(-1)
            x = x - eta[:n, None, None] * meta_gradients(*arguments)
        done = horizon
    averages = np.empty((len(schedules), len(T), seeds))
    for (c, h), total in zip(lanes, sums, strict=True):
        averages[c, h] = total.numpy() / T[h]
    return averages


def _step(family: Family, ascent: Ascent, perturbation: str, *, any_up: bool, any_low: bool):  # type: ignore[no-untyped-def]
    """The core's meta-gradient over lanes x seeds. A radius that no lane has is the number 0: no ascent is made."""
    fixed = None if isinstance(ascent, str) else _stacked(ascent)

    def one(x: Tensor, episodes, makers, beta, up, low) -> Tensor:  # type: ignore[no-untyped-def]
        tasks_at_once = TasksAtOnce()
        # fixed episodes are no argument of the `vmap`: all lanes and seeds share them
        makers = makers or fixed
        return meta_gradient(
            family.loss,
            {"x": x},
            tasks_at_once.parts(episodes),
            beta_low=beta,
            alpha_low=low if any_low else 0.0,
            alpha_up=up if any_up else 0.0,
            query_loss=family.query_loss,
            perturbation=perturbation,  # type: ignore[arg-type]
            ascent_episodes=makers and tasks_at_once.parts(makers),
            execution=Execution(map_episodes=tasks_at_once),
        ).grad["x"]

    # tasks inside, then seeds, then lanes
    over_seeds = torch.vmap(one, in_dims=(0, 1, 1 if ascent == "fresh" else None, None, None, None))
    return torch.vmap(over_seeds, in_dims=(0, None, None, 0, 0, 0))


def _stacked(episodes: Sequence[Episode]) -> Episode:
    """Episodes of several tasks as one, whose tensors have the tasks as their first dimension."""
    halves = zip(*episodes, strict=True)
    return Episode(*(Batch(*map(torch.stack, zip(*of_tasks, strict=True))) for of_tasks in halves))


def traced(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """What `make_fx` records of a function of tensors, without what changes no number.

    Gone are what is computed twice, what nobody reads, views and powers that give back what they got, and the values of
    losses, of which a gradient needs only the shape: half of the operations and of the time. Those that are left are
    called by their names in `torch`, which is the same kernel with a third less around it on small tensors. Nothing may
    write into a tensor or draw a random number.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):  # one for all that make_fx notes down
        module = make_fx(function)(*arguments)
    first: dict[str, Node] = {}
    for node in module.graph.nodes:
        of: Any = node.args[0] if node.args else None
        # a gradient begins with ones of the shape of a loss; made from the shape, they leave the loss itself unread
        if node.target is aten.ones_like.default:
            shape, dtype, *_ = of.meta["tensor_meta"]
            node.target, node.args, node.kwargs = aten.ones.default, (list(shape),), {"dtype": dtype}
        elif node.target is aten.view.default and of.target is aten.view.default:
            node.args = (of.args[0], node.args[1])
        elif (
            node.target is aten.detach.default
            or (node.target is aten.permute.default and node.args[1] == sorted(node.args[1]))
            or (node.target is aten.pow.Tensor_Scalar and node.args[1] == 1)
        ):
            node.replace_all_uses_with(of)
        # nothing writes or draws, so that equal operations on equal arguments are one
        same = first.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
        if same is not node:
            node.replace_all_uses_with(same)
    module.graph.eliminate_dead_code()
    for node in module.graph.nodes:
        if isinstance(node.target, type(aten.mul.Tensor)) and not node.kwargs:
            # not every operation has its name in `torch`: some are methods, and what is neither stays as it is
            name = node.target.overloadpacket.__name__
            node.target = getattr(torch, name, None) or getattr(torch.Tensor, name, node.target)
    module.recompile()
    return module


class TasksAtOnce:
    """A `map_episodes` for one meta-gradient: one `vmap` over the tasks, fewer operations and the same numbers.

    The tasks' tensors are stacked: those of `parts` are before, and those that the map itself has given stay so.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], tuple[Sequence[object], Tensor]] = {}  # the parts, lest others get their ids

    def parts(self, stacked: Episode) -> list[Episode]:
        """What stands for the episode of each task in what the map goes over.

        Args:
            stacked: The episodes of M tasks, which are the first dimension of its tensors.

        Returns:
            M episodes, of placeholders: only the function that is mapped sees tensors.
        """
        leaves, structure = tree_flatten(stacked)
        every = [[object() for _ in range(len(leaf))] for leaf in leaves]  # to go over it would take it apart
        for parts, leaf in zip(every, leaves, strict=True):
            self.known[tuple(map(id, parts))] = parts, leaf
        return [tree_unflatten(list(parts), structure) for parts in zip(*every, strict=True)]

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`map(function, items)`."""
        flat, (structure, *_) = zip(*(tree_flatten(item) for item in items), strict=True)
        stacked = [None if leaves[0] is None else self._stack(leaves) for leaves in zip(*flat, strict=True)]
        of_one = torch.vmap(
            lambda *leaves: function(tree_unflatten(list(leaves), structure)),
            in_dims=tuple(None if leaf is None else 0 for leaf in stacked),
        )
        results, structure = tree_flatten(of_one(*stacked))
        return [tree_unflatten(list(parts), structure) for parts in zip(*map(self._unbind, results), strict=True)]

    def _stack(self, parts: Sequence[Any]) -> Tensor:
        ids = tuple(map(id, parts))
        return self.known[ids][1] if ids in self.known else torch.stack(list(parts))

    def _unbind(self, whole: Tensor) -> Sequence[Tensor]:
        parts = whole.unbind()
        self.known[tuple(map(id, parts))] = parts, whole
        return parts
