"""Many runs of Sharp-MAML at once: seeds x schedules x horizons through `vmap` of the core's `meta_gradient`.

A lane is one schedule at one horizon T. All lanes take their steps together, each for every seed, and stop counting at
their horizon. Seed s sees the same samples in every lane, and in another run whose perturbations are made otherwise, so
that they are compared pair by pair. The core is traced once for a number of lanes, which saves the overhead of the
transforms without changing an operation. Read next: `rate/exponents.py`, which reads rates off the averages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from operator import getitem
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

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
ENOUGH = 0.75
"""Finished lanes are dropped when no more than this share is left: tracing anew takes as long as dozens of steps."""


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
    # The longest lanes come first, so that those which are left are always the first ones.
    lanes = sorted(product(range(len(schedules)), range(len(T))), key=lambda lane: T[lane[1]], reverse=True)
    starts = start if start.dim() == 4 else start.expand(len(schedules), len(T), -1)[:, :, None]
    beta, eta, up, low = torch.tensor(
        [[getattr(schedules[c], name).at(T[h]) for c, h in lanes] for name in ("beta", "eta", "alpha_up", "alpha_low")],
        dtype=torch.float64,
    )
    eta = eta * (family.tasks if update == "sum" else 1)
    x = torch.stack([starts[c, h] for c, h in lanes]).expand(-1, seeds, -1).clone()
    sums = torch.zeros(x.shape[:2], dtype=torch.float64)
    # Two streams: whether and how the ascent draws must not move the samples of the updates.
    of_updates, of_ascents = (torch.Generator().manual_seed(one) for one in (seed, seed + 2**30))
    step = _step(family, ascent, perturbation, any_up=bool(up.any()), any_low=bool(low.any()))
    meta_gradients: Trace | None = None
    for done, horizon in pairwise((0, *sorted(set(T)))):
        active = sum(T[h] >= horizon for _, h in lanes)
        if active <= ENOUGH * len(x):
            x, beta, eta, up, low = (part[:active] for part in (x, beta, eta, up, low))
            meta_gradients = None
        for _ in range(done, horizon):
            makers = family.sample(of_ascents, seeds) if ascent == "fresh" else None
            arguments = (x, family.sample(of_updates, seeds), makers, beta, up, low)
            # A trace is for one number of lanes, and dropping some asks for another.
            if meta_gradients is None:
                meta_gradients = traced(step, *arguments)
            # Before the step, since the average begins at x_0. A finished lane goes on until it is dropped, uncounted.
            sums[:active] += family.meta_gradient(x[:active], beta[:active, None]).square().sum(-1)
            x = x - eta[:, None, None] * meta_gradients(*arguments)
    averages = {(c, h): total.numpy() / T[h] for (c, h), total in zip(lanes, sums, strict=True)}
    return np.stack([[averages[c, h] for h in range(len(T))] for c in range(len(schedules))])


def _step(family: Family, ascent: Ascent, perturbation: str, *, any_up: bool, any_low: bool):  # type: ignore[no-untyped-def]
    """The core's meta-gradient over lanes x seeds. A radius that no lane has is the number 0: no ascent is made."""
    # Fixed episodes are no argument of the `vmap`: all lanes and seeds share them, as constants of the trace.
    fixed = None if isinstance(ascent, str) else _stacked(ascent)

    def one(x: Tensor, episodes, makers, beta, up, low) -> Tensor:  # type: ignore[no-untyped-def]
        tasks_at_once = TasksAtOnce()
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


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes down every operation on tensors while it is the mode, below derivatives and `vmap`, as nodes of a graph.

    `make_fx` records the same and takes several times as long, mostly for what a compiler would want to know of each
    tensor. A tensor that no operation has made, and is no argument, is a constant.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.constants: dict[str, Tensor] = {}
        # with the tensors, lest others get their ids
        self.known: dict[int, tuple[Node, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation and note it down."""
        result = func(*args, **(kwargs or {}))
        self.note(self.graph.call_function(func, *tree_map_only(Tensor, self.node, (args, kwargs or {}))), result)
        return result

    def note(self, node: Node, result: Any) -> None:
        """The node is where a result comes from, and its items where those of a sequence do."""
        if isinstance(result, Tensor):
            node.meta["shape"], node.meta["dtype"] = list(result.shape), result.dtype
            self.known[id(result)] = node, result
        elif isinstance(result, list | tuple):
            for i, item in enumerate(result):
                self.note(self.graph.call_function(getitem, (node, i)), item)

    def node(self, tensor: Tensor) -> Node:
        """Where a tensor comes from."""
        if id(tensor) not in self.known:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self.note(self.graph.create_node("get_attr", name), tensor)
        return self.known[id(tensor)][0]


class Trace(NamedTuple):
    """A traced function; `module` has the tensors of its arguments one by one."""

    module: GraphModule

    def __call__(self, *arguments: Any) -> Tensor:
        """The result for arguments of the same structure and shapes."""
        result: Tensor = self.module.forward(*tree_flatten(arguments)[0])
        return result


def traced(function: Callable[..., Tensor], *arguments: Any) -> Trace:
    """The operations of a function of tensors, without those that change no number.

    Gone are what is computed twice, what nobody reads, views and powers that give back what they got, and the values of
    losses, of which a gradient needs only the shape: half of the operations and of the time. Those that are left are
    called by their names in `torch`, which is the same kernel with a third less around it on small tensors. Nothing may
    write into a tensor or draw a random number.

    Args:
        function: Calls nothing that depends on the values of tensors.
        arguments: Tensors, in whatever structure, or None.

    Returns:
        The trace.
    """
    recorder = Recorder()
    leaves, structure = tree_flatten(arguments)
    leaves = tree_map_only(Tensor, Tensor.detach, leaves)  # a tensor may be two arguments, which later calls tell apart
    for i, leaf in enumerate(leaves):
        recorder.note(recorder.graph.placeholder(f"argument_{i}"), leaf)
    with recorder:
        result = function(*tree_unflatten(leaves, structure))
    recorder.graph.output(recorder.node(result))
    return Trace(GraphModule(recorder.constants, thinned(recorder.graph)))


def thinned(graph: Graph) -> Graph:
    """A recorded graph without what `traced` leaves out; it is changed in place."""
    first: dict[str, Node] = {}
    for node in graph.nodes:
        of: Any = node.args[0] if node.args else None
        if node.target is aten.ones_like.default:
            # A gradient begins with ones of the shape of a loss; made from it, they leave the loss itself unread.
            shape, dtype = of.meta["shape"], of.meta["dtype"]
            node.target, node.args, node.kwargs = aten.ones.default, (shape,), {"dtype": dtype}
        elif node.target is aten.view.default and of.target is aten.view.default:
            node.args = (of.args[0], node.args[1])
        elif (
            node.target is aten.detach.default
            or (node.target is aten.permute.default and node.args[1] == sorted(node.args[1]))
            or (node.target is aten.pow.Tensor_Scalar and node.args[1] == 1)
        ):
            node.replace_all_uses_with(of)
        # Nothing writes or draws, so that equal operations on equal arguments are one. Nodes come in the order of the
        # calls, so that the arguments of both are already the first of their kind.
        same = first.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
        if same is not node:
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()
    for node in graph.nodes:  # the overload's own call does in Python what `torch`'s name does in C++
        if isinstance(node.target, type(aten.mul.Tensor)) and not node.kwargs:
            # Not every operation has its name in `torch`: some are methods, and what is neither stays as it is.
            name = node.target.overloadpacket.__name__
            node.target = getattr(torch, name, None) or getattr(torch.Tensor, name, node.target)
    return graph


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
