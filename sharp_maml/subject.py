"""A method under test: what makes it, where it is tried, and the function whose gradient it must give.

Read next: `laws.py`, which asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from sharp_maml.base import PLAIN, Direction, Episode, MetaGradient, Method, Params, Pullback
from sharp_maml.tree import add_scaled

Tree = TypeVar("Tree")


class NotApplicableError(Exception):
    """Why a law says nothing of a method."""


@dataclass(frozen=True)
class Subject:
    """A method under test: what makes it, its keywords with their defaults, and where it is tried, in float64."""

    make: Callable[..., Method]
    settings: Mapping[str, Any]
    params: Params
    episodes: list[Episode]

    def made(self, **changes: Any) -> Method:
        """The method with other settings; a direction that counts its calls needs them one after the other."""
        absent = [name for name in changes if name not in self.settings]
        if absent:
            raise NotApplicableError(f"the method is made without a keyword {', '.join(absent)}")
        in_order = {"execution": PLAIN} if "direction" in changes and "execution" in self.settings else {}
        return self.make(**in_order | changes)

    def gradient(
        self, method: Method, params: Params | None = None, episodes: Sequence[Episode] | None = None
    ) -> MetaGradient:
        """The method's, from copies and in copies, so that it cannot change what is compared."""
        given = (self.params if params is None else params, self.episodes if episodes is None else list(episodes))
        return copied(method.gradient(*copied(given)))

    def elsewhere(self) -> Params:
        """Other parameters, for a call in between."""
        return {name: 1.25 * value for name, value in self.params.items()}


def claimed(subject: Subject) -> tuple[MetaGradient, Params, Callable[[Params], Tensor]]:
    """What a method claims to give.

    Args:
        subject: The method.

    Returns:
        Its gradient, the point where that is taken, and the function whose gradient it must be there.

    Raises:
        NotApplicableError: The method does not show what it holds constant.
    """
    settings = subject.settings
    low, up, first_order = (settings.get(name) for name in ("alpha_low", "alpha_up", "first_order"))
    if not (low or up or first_order):
        method = subject.made()
        result = subject.gradient(method)
        if result.loss != result.loss_ascent:
            raise NotApplicableError("the gradient is taken above the point of the loss: give what makes the method")
        return result, subject.params, lambda x: subject.gradient(method, x).loss

    made: list[Params] = []
    perturbation = settings.get("perturbation", "reused")
    result = subject.gradient(subject.made(direction=_recording(settings.get("direction"), made)))
    point, held = subject.params, made
    if up:  # the direction of the upper ascent comes after those of the pass below, and before those of the pass above
        below = len(made) - 1 if perturbation == "reused" else (len(made) - 1) // 2
        point = add_scaled(point, made[below], up)
        held = made[:below] if perturbation == "reused" else made[below + 1 :]
    if first_order:
        return result, point, _moved_query_loss(subject, point, held)
    if perturbation == "differentiated":
        flowing = subject.made(alpha_up=0.0)
        return result, point, lambda x: subject.gradient(flowing, x).loss
    return result, point, lambda x: subject.gradient(subject.made(alpha_up=0.0, direction=_replaying(held)), x).loss


def _moved_query_loss(subject: Subject, point: Params, held: list[Params]) -> Callable[[Params], Tensor]:
    """x -> mean over episodes of q(theta'_m + x - point): what first-order MAML has the gradient of."""
    each = len(held) // len(subject.episodes)
    adapted = []
    for index, episode in enumerate(subject.episodes):
        given = _replaying(held[index * each : (index + 1) * each])
        method = subject.made(direction=given, test_steps=subject.settings.get("steps"), perturb_at_test=True)
        adapted.append(copied(method.adapt(copied(point), copied(episode.support))))
    query = subject.made(steps=0, alpha_low=0.0, alpha_up=0.0)

    def function(x: Params) -> Tensor:
        moved = [add_scaled(add_scaled(end, x, 1.0), point, -1.0) for end in adapted]
        pairs = zip(moved, subject.episodes, strict=True)
        return torch.stack([subject.gradient(query, end, [episode]).loss for end, episode in pairs]).mean()

    return function


def _recording(direction: Direction | None, made: list[Params]) -> Direction:
    """The direction; what it gives goes into the list too."""
    if direction is None:
        raise NotApplicableError("the method is made without a keyword direction")

    def recorded(params: Params, grad: Params) -> tuple[Params, Pullback]:
        unit, pullback = direction(params, grad)
        made.append(copied(unit))
        return unit, pullback

    return recorded


def _replaying(made: Sequence[Params]) -> Direction:
    """Gives again what a direction gave, one after the other: a constant."""
    units = iter(made)

    def nothing(w: Params) -> tuple[Params, Params]:
        return {}, {name: torch.zeros_like(value) for name, value in w.items()}

    return lambda params, grad: (next(units), nothing)


def copied(tree: Tree) -> Tree:
    """The tree with copies of its tensors, without their graphs."""
    found: Tree = tree_map_only(Tensor, lambda value: value.detach().clone(), tree)
    return found


def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """The tree with its numbers of floating point in another precision."""

    def converted(value: object) -> object:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    found: Tree = tree_map(converted, tree)
    return found
