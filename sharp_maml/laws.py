"""The laws that every method keeps, each a function of a method under test.

A law says what must be equal, and is judged by one rule: two ways to a number may differ in half of its digits, because
rounding begins in the last one and an ascent or a steep loss may magnify it. Nothing of the core but the types and the
arithmetic on parameters is used. Read next: `meta.py`, whose laws these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sharp_maml.base import Episode, Execution, MetaGradient, Params
from sharp_maml.subject import Subject, cast, claimed, copied
from sharp_maml.tree import add_scaled, dot, mean, norm

Verdict = Literal["passed", "failed", "inconclusive", "not applicable"]

DIRECTIONS = 3
"""Along how many directions the gradient is held against differences; the first is its own."""


class Law(NamedTuple):
    """What came of one law.

    name: The law.
    verdict: What came of it.
    measured: The largest relative difference, where the law compares numbers.
    tolerance: What that may be.
    why: What was compared, or why nothing was, or what is wrong.
    """

    name: str
    verdict: Verdict
    measured: float | None
    tolerance: float | None
    why: str


def _structure(subject: Subject) -> Law:
    result = subject.made().gradient(copied(subject.params), copied(subject.episodes))
    shapes = {name: tuple(value.shape) for name, value in subject.params.items()}
    found = {name: tuple(value.shape) for name, value in result.grad.items()}
    losses = {"loss": result.loss, "loss_ascent": result.loss_ascent}
    wrong = [f"grad of {name} has shape {found.get(name)}" for name in shapes if found.get(name) != shapes[name]]
    wrong += [f"{name} is no parameter" for name in found if name not in shapes]
    wrong += [f"{name} has {value.ndim} dimensions" for name, value in losses.items() if value.ndim]
    for name, value in {**result.grad, **losses}.items():
        wrong += [f"{name} is not finite"] if not torch.isfinite(value).all() else []
    wrong += ["a graph is kept"] if any(value.requires_grad for value in tree_leaves(result)) else []
    return Law("", "failed" if wrong else "passed", None, None, "; ".join(wrong) or "names, shapes, finite, detached")


def _state(subject: Subject) -> Law:
    method = subject.made()

    def call() -> tuple[MetaGradient, Tensor]:
        predicted: Tensor = copied(method.predict(copied(subject.params), copied(subject.episodes[0])))
        return subject.gradient(method), predicted

    first, predicted = call()
    subject.gradient(method, subject.elsewhere(), subject.episodes[::-1])
    again, predicted_again = call()
    measured = max(_difference(again, first), _relative({"": predicted_again}, {"": predicted}))
    tolerance = 0.0 if predicted.device.type == "cpu" else _half_of_the_digits(first)
    return _compared(measured, tolerance, "two calls with another between; on a CPU bit for bit")


def _aliasing(subject: Subject) -> Law:
    method, inputs = subject.made(), copied((subject.params, subject.episodes))
    result = method.gradient(*inputs)
    kept = copied(result)
    method.gradient(copied(subject.elsewhere()), copied(subject.episodes))
    wrong = []
    if not _same(result, kept):
        wrong.append("a later call changes what an earlier one returned")
    if _memory(result) & _memory(inputs):
        wrong.append("what is returned shares memory with what was given")
    if not _same(inputs, (subject.params, subject.episodes)):
        wrong.append("gradient changes what it was given")
    inputs = copied((subject.params, subject.episodes))
    method.predict(inputs[0], inputs[1][0])
    if not _same(inputs, (subject.params, subject.episodes)):
        wrong.append("adapt or logits changes what it was given")
    return Law("", "failed" if wrong else "passed", None, None, "; ".join(wrong) or "inputs, results, their memory")


def _dtype(subject: Subject) -> Law:
    device = next(iter(subject.params.values())).device
    wrong = set()
    for dtype in (torch.float32, torch.float64):
        result = subject.gradient(subject.made(), cast(subject.params, dtype), cast(subject.episodes, dtype))
        for value in tree_leaves(result):
            if value.dtype != dtype:
                wrong.add(f"{value.dtype} is returned for {dtype}")
            if value.device != device:
                wrong.add(f"a result is on {value.device}, the parameters on {device}")
    return Law("", "failed" if wrong else "passed", None, None, "; ".join(sorted(wrong)) or "float32 and float64")


def _order(subject: Subject) -> Law:
    changes, told = _without_drawn_ascent(subject)
    method = subject.made(**changes)
    forward = subject.gradient(method)
    turned = [subject.gradient(method, None, each) for each in (subject.episodes[::-1], _rotated(subject.episodes))]
    measured = max(_difference(each, forward) for each in turned)
    return _compared(measured, _half_of_the_digits(forward), f"episodes reversed and rotated{told}")


def _processes(subject: Subject) -> Law:
    """Each rank is run anew up to the first exchange whose mean is not known; then that mean is."""
    changes, told = _without_drawn_ascent(subject)
    whole, means = subject.gradient(subject.made(**changes)), list[Params]()
    while True:
        trees: list[Params] = []
        for each in subject.episodes:
            known = iter(means)

            def exchange(tree: Params, known: Iterator[Params] = known) -> Params:
                given = next(known, None)
                if given is None:
                    raise _ExchangeError(tree)
                return given

            try:
                shared = subject.gradient(subject.made(execution=Execution(exchange), **changes), None, [each])
            except _ExchangeError as reached:
                trees.append(reached.tree)
        if not trees:
            why = f"{len(subject.episodes)} processes with an episode each against one{told}"
            return _compared(_difference(shared, whole), _half_of_the_digits(whole), why)
        if len(trees) < len(subject.episodes):
            return Law("", "failed", None, None, "processes exchange a different number of means")
        means.append(mean(trees))


def _zero_radius(subject: Subject) -> Law:
    zero = next(iter(subject.params.values())).new_zeros(())
    plain = subject.gradient(subject.made(alpha_low=0.0, alpha_up=0.0))
    computed = subject.gradient(subject.made(alpha_low=zero, alpha_up=zero))
    why = "radii of 0 as tensors, so that the ascents are computed, against none"
    return _compared(_difference(computed, plain), _half_of_the_digits(plain), why)


def _gradient(subject: Subject) -> Law:
    result, point, function = claimed(subject)
    tolerance = _half_of_the_digits(result)
    grad = cast(result.grad, torch.float64)
    value = function(point)
    scale = float(norm(grad)) + abs(float(value))
    generator = torch.Generator().manual_seed(0)
    errors = []
    for number in range(DIRECTIONS):
        along = {name: torch.randn(value.shape, generator=generator).to(value) for name, value in grad.items()}
        along = grad if number == 0 and float(norm(grad)) > 0 else along
        length = norm(along)
        along = {name: value / length for name, value in along.items()}
        slope = _slope(function, point, value, along, tolerance * scale)
        if slope is not None:
            errors.append(abs(slope - float(dot(grad, along))) / scale)
    if not errors:
        why = "differences at two steps disagree along every direction: a kink or a jump is within reach"
        return Law("", "inconclusive", None, tolerance, why)
    found = _compared(max(errors), tolerance, f"central differences along {len(errors)} of {DIRECTIONS} directions")
    if found.verdict == "failed" and not subject.settings:
        return found._replace(why=f"{found.why} of its own loss; if it holds constants, give what makes the method")
    return found


LAWS: dict[str, Callable[[Subject], Law]] = {
    "structure": _structure,
    "state": _state,
    "aliasing": _aliasing,
    "dtype": _dtype,
    "order": _order,
    "processes": _processes,
    "zero radius": _zero_radius,
    "gradient": _gradient,
}
"""The laws by name, in the order in which they are tried."""
NEEDED = ("structure", "state")
"""Laws that all others after them need."""


def _slope(
    function: Callable[[Params], Tensor], point: Params, value: Tensor, along: Params, allowed: float
) -> float | None:
    """The slope by the central difference; None where two steps do not agree on slope and bend within `allowed`."""
    middle = float(value)
    step: float = torch.finfo(value.dtype).eps ** (1 / 3)

    def at(h: float) -> float:
        return float(function(add_scaled(point, along, h)))

    for h in (step, step / 4):
        wide, narrow = (at(h), at(-h)), (at(h / 2), at(-h / 2))
        slopes = (wide[0] - wide[1]) / (2 * h), (narrow[0] - narrow[1]) / h
        bends = (sum(wide) - 2 * middle) / h, 2 * (sum(narrow) - 2 * middle) / (h / 2)
        if max(abs(slopes[0] - slopes[1]), abs(bends[0] - bends[1])) <= allowed:
            return slopes[1]
    return None


class _ExchangeError(Exception):
    """A process waits for the others, with this tree."""

    def __init__(self, tree: Params) -> None:
        super().__init__("a mean over processes is taken")
        self.tree = tree


def _without_drawn_ascent(subject: Subject) -> tuple[dict[str, Any], str]:
    """Settings without an upper ascent whose direction another last digit of the gradient turns; and what to say."""
    direction, up = (subject.settings.get(name) for name in ("direction", "alpha_up"))
    if direction is None or not up:
        return {}, ""
    grad = subject.gradient(subject.made(alpha_up=0.0)).grad
    nearly = {name: value * (1 + 2**-40) for name, value in grad.items()}
    turned = _relative(direction(subject.params, nearly)[0], direction(subject.params, grad)[0])
    if turned <= 2**-20:
        return {}, ""
    return {"alpha_up": 0.0}, "; without the upper ascent, which a last digit of the gradient turns"


def _compared(measured: float, tolerance: float, why: str) -> Law:
    return Law("", "passed" if measured <= tolerance else "failed", measured, tolerance, why)


def _half_of_the_digits(result: MetaGradient) -> float:
    """The square root of the rounding of the coarsest number in it."""
    return float(max(torch.finfo(value.dtype).eps for value in tree_leaves(result)) ** 0.5)


def _difference(one: MetaGradient, other: MetaGradient) -> float:
    """The largest relative difference of gradient and losses."""
    losses = ({"loss": each.loss, "loss_ascent": each.loss_ascent} for each in (one, other))
    return max(_relative(one.grad, other.grad), _relative(*losses))


def _relative(one: Params, other: Params) -> float:
    """|one - other| / |other|, and the difference itself where the other is zero; NaN is more than any tolerance."""
    one, other = cast(one, torch.float64), cast(other, torch.float64)
    length = float(norm(other))
    found = float(norm(add_scaled(one, other, -1.0))) / (length or 1.0)
    return found if found == found else float("inf")


def _same(one: object, other: object) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(not isinstance(a, Tensor) or torch.equal(a, b) for a, b in pairs)


def _memory(tree: object) -> set[int]:
    """Where the numbers of a tree lie; without 0, where those of empty tensors do."""
    return {value.untyped_storage().data_ptr() for value in tree_leaves(tree) if isinstance(value, Tensor)} - {0}


def _rotated(episodes: Sequence[Episode]) -> list[Episode]:
    return [*episodes[1:], episodes[0]]
