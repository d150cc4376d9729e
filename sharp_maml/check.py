"""The laws that every method keeps, tried on anyone's: `check_method`, as scikit-learn's `check_estimator` does.

A law says what must be equal, and is judged by one rule: two ways to a number may differ in half of its digits, because
rounding begins in the last one and an ascent or a steep loss may magnify it. Nothing of the core but the types and the
arithmetic on parameters is used. Read next: `meta.py`, whose laws these are.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from sharp_maml.base import PLAIN, Direction, Episode, Execution, MetaGradient, Method, Params, Pullback
from sharp_maml.tree import add_scaled, dot, mean, norm

Verdict = Literal["passed", "failed", "inconclusive", "not applicable"]
Tree = TypeVar("Tree")

DIRECTIONS = 3
"""Along how many directions the gradient is held against differences; the first is its own."""
_COLUMNS = (12, 14, 9, 9, 50)


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


class MethodCheck(NamedTuple):
    """What came of every law; printed, a table.

    laws: One after the other, in the order in which they were tried.
    """

    laws: tuple[Law, ...]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("law", "result", "measured", "tolerance", "what was compared, or why not")]
        for law in self.laws:
            numbers = ("" if value is None else f"{value:.1e}" for value in (law.measured, law.tolerance))
            rows.append((law.name, law.verdict, *numbers, law.why))
        lines = []
        for *cells, last in rows:
            for number, text in enumerate(textwrap.wrap(last, _COLUMNS[-1])):
                line = [*(cells if number == 0 else [""] * len(cells)), text]
                lines.append(" ".join(f"{cell:{width}}" for cell, width in zip(line, _COLUMNS, strict=True)).rstrip())
        return "\n".join(lines)


class MethodError(AssertionError):
    """A method breaks a law. The message names each such law with its numbers; `check` has them all."""

    def __init__(self, check: MethodCheck) -> None:
        self.check = check
        broken = [law for law in check.laws if law.verdict == "failed"]
        numbers = (
            "" if law.measured is None else f" (measured {law.measured:.2e}, allowed {law.tolerance:.2e})"
            for law in broken
        )
        said = "; ".join(f"{law.name}: {law.why}{text}" for law, text in zip(broken, numbers, strict=True))
        super().__init__(f"the method breaks {len(broken)} of {len(check.laws)} laws. {said}\n\n{check}")


def check_method(method: Method | Callable[..., Method], params: Params, episodes: Sequence[Episode]) -> MethodCheck:
    """Put a method through the laws of the core: one call for a network, an ascent or an algorithm of your own.

    - structure: the gradient has the names and shapes of the parameters; it and the losses are finite and detached.
    - state: the same call gives the same numbers, also with another call in between. The laws that compare two calls
      need it. (Dropout that draws anew in every pass breaks it.)
    - aliasing: no input is changed, and what was returned shares no memory with inputs or with later results.
    - dtype: float32 gives float32 and float64 float64, on the device of the parameters.
    - order: the order of the episodes does not matter.
    - processes: N processes with an episode each compute what one does with N episodes.
    - zero radius: with radii that are tensors of 0, so that the ascents are computed, the result is MAML's.
    - gradient: <grad, d> is the slope along d of the function whose gradient it is, by central differences

          (f(x + h d) - f(x - h d)) / 2h,   h = eps^(1/3), where truncation h^2 meets rounding eps / h.

    Without a radius f is the method's own loss at x = theta. Otherwise f holds what the variant holds constant:
    x = theta + alpha_up u is the point that the upper ascent reached; lower directions are given again as they were,
    unless the gradient flows through them; and with `first_order` f(x') is the mean query loss at the adapted
    parameters moved by x' - x. Where a method is made already, f is its own loss.

    All but `dtype` are computed in float64, to which parameters and episodes are converted. A difference is believed
    where steps of h and h / 2 have the slope and the bend of a smooth function; across a kink of a ReLU or a
    max-pooling they do not, also with a quarter of the step, and the direction is left out. With none left the law is
    inconclusive, which is no failure.

    Args:
        method: What makes the method: a function whose keywords have defaults, such as
            `functools.partial(sharp_maml_method, logits, beta_low=0.1, alpha_up=0.01)`. Laws change some of these
            keywords, by the names that `sharp_maml_method` has, and are not applicable without; a setting that is no
            keyword is taken to be the default there. Or the method itself, made already.
        params: Parameters to try it at, away from special points such as zeros.
        episodes: Two episodes or more.

    Returns:
        What came of each law.

    Raises:
        MethodError: A law is broken.
        ValueError: There are fewer than two episodes, or `method` needs more than its defaults to make one.
    """
    if len(episodes) < 2:
        raise ValueError(f"episodes must be at least 2, so that their order can be changed; got {len(episodes)}")
    make = _maker(method)
    every = inspect.signature(make).parameters.values()
    settings = {each.name: each.default for each in every if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    without = [name for name, default in settings.items() if default is inspect.Parameter.empty]
    if without:
        raise ValueError(
            f"method must be a Method, or make one without arguments; this one needs {', '.join(without)}: give it "
            "with functools.partial"
        )
    subject = _Subject(make, settings, _cast(params, torch.float64), _cast(list(episodes), torch.float64))
    laws: list[Law] = []
    for name, law in _LAWS.items():
        needed = next((each.name for each in laws if each.name in _NEEDED and each.verdict == "failed"), None)
        try:
            if needed:
                raise _NotApplicableError(f"the law `{needed}` is broken, which this one needs")
            found = law(subject)
        except _NotApplicableError as reason:
            found = Law(name, "not applicable", None, None, str(reason))
        except Exception as error:  # whatever the method raises is its own
            found = Law(name, "failed", None, None, f"{type(error).__name__}: {error}")
        laws.append(found._replace(name=name))
    check = MethodCheck(tuple(laws))
    if any(law.verdict == "failed" for law in laws):
        raise MethodError(check)
    return check


def _maker(method: Method | Callable[..., Method]) -> Callable[..., Method]:
    """What makes the method; of one that is made already, what returns it."""
    if not isinstance(method, Method):
        return method
    finished = method
    return lambda: finished


class _NotApplicableError(Exception):
    """Why a law says nothing of a method."""


@dataclass(frozen=True)
class _Subject:
    """A method under test: what makes it, its keywords with their defaults, and where it is tried, in float64."""

    make: Callable[..., Method]
    settings: Mapping[str, Any]
    params: Params
    episodes: list[Episode]

    def made(self, **changes: Any) -> Method:
        """The method with other settings; a direction that counts its calls needs them one after the other."""
        absent = [name for name in changes if name not in self.settings]
        if absent:
            raise _NotApplicableError(f"the method is made without a keyword {', '.join(absent)}")
        in_order = {"execution": PLAIN} if "direction" in changes and "execution" in self.settings else {}
        return self.make(**in_order | changes)

    def gradient(
        self, method: Method, params: Params | None = None, episodes: Sequence[Episode] | None = None
    ) -> MetaGradient:
        """The method's, from copies and in copies, so that it cannot change what is compared."""
        given = (self.params if params is None else params, self.episodes if episodes is None else list(episodes))
        return _copied(method.gradient(*_copied(given)))

    def elsewhere(self) -> Params:
        """Other parameters, for a call in between."""
        return {name: 1.25 * value for name, value in self.params.items()}


def _structure(subject: _Subject) -> Law:
    result = subject.made().gradient(_copied(subject.params), _copied(subject.episodes))
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


def _state(subject: _Subject) -> Law:
    method = subject.made()

    def call() -> tuple[MetaGradient, Tensor]:
        predicted: Tensor = _copied(method.predict(_copied(subject.params), _copied(subject.episodes[0])))
        return subject.gradient(method), predicted

    first, predicted = call()
    subject.gradient(method, subject.elsewhere(), subject.episodes[::-1])
    again, predicted_again = call()
    measured = max(_difference(again, first), _relative({"": predicted_again}, {"": predicted}))
    tolerance = 0.0 if predicted.device.type == "cpu" else _half_of_the_digits(first)
    return _compared(measured, tolerance, "two calls with another between; on a CPU bit for bit")


def _aliasing(subject: _Subject) -> Law:
    method, inputs = subject.made(), _copied((subject.params, subject.episodes))
    result = method.gradient(*inputs)
    kept = _copied(result)
    method.gradient(_copied(subject.elsewhere()), _copied(subject.episodes))
    wrong = []
    if not _same(result, kept):
        wrong.append("a later call changes what an earlier one returned")
    if _memory(result) & _memory(inputs):
        wrong.append("what is returned shares memory with what was given")
    if not _same(inputs, (subject.params, subject.episodes)):
        wrong.append("gradient changes what it was given")
    inputs = _copied((subject.params, subject.episodes))
    method.predict(inputs[0], inputs[1][0])
    if not _same(inputs, (subject.params, subject.episodes)):
        wrong.append("adapt or logits changes what it was given")
    return Law("", "failed" if wrong else "passed", None, None, "; ".join(wrong) or "inputs, results, their memory")


def _dtype(subject: _Subject) -> Law:
    device = next(iter(subject.params.values())).device
    wrong = set()
    for dtype in (torch.float32, torch.float64):
        result = subject.gradient(subject.made(), _cast(subject.params, dtype), _cast(subject.episodes, dtype))
        for value in tree_leaves(result):
            if value.dtype != dtype:
                wrong.add(f"{value.dtype} is returned for {dtype}")
            if value.device != device:
                wrong.add(f"a result is on {value.device}, the parameters on {device}")
    return Law("", "failed" if wrong else "passed", None, None, "; ".join(sorted(wrong)) or "float32 and float64")


def _order(subject: _Subject) -> Law:
    changes, told = _without_drawn_ascent(subject)
    method = subject.made(**changes)
    forward = subject.gradient(method)
    turned = [subject.gradient(method, None, each) for each in (subject.episodes[::-1], _rotated(subject.episodes))]
    measured = max(_difference(each, forward) for each in turned)
    return _compared(measured, _half_of_the_digits(forward), f"episodes reversed and rotated{told}")


def _processes(subject: _Subject) -> Law:
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


def _zero_radius(subject: _Subject) -> Law:
    zero = next(iter(subject.params.values())).new_zeros(())
    plain = subject.gradient(subject.made(alpha_low=0.0, alpha_up=0.0))
    computed = subject.gradient(subject.made(alpha_low=zero, alpha_up=zero))
    why = "radii of 0 as tensors, so that the ascents are computed, against none"
    return _compared(_difference(computed, plain), _half_of_the_digits(plain), why)


def _gradient(subject: _Subject) -> Law:
    result, point, function = _claim(subject)
    tolerance = _half_of_the_digits(result)
    grad = _cast(result.grad, torch.float64)
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


_LAWS: dict[str, Callable[[_Subject], Law]] = {
    "structure": _structure,
    "state": _state,
    "aliasing": _aliasing,
    "dtype": _dtype,
    "order": _order,
    "processes": _processes,
    "zero radius": _zero_radius,
    "gradient": _gradient,
}
_NEEDED = ("structure", "state")


def _claim(subject: _Subject) -> tuple[MetaGradient, Params, Callable[[Params], Tensor]]:
    """The gradient, the point where it is taken, and the function whose gradient it must be there."""
    settings = subject.settings
    low, up, first_order = (settings.get(name) for name in ("alpha_low", "alpha_up", "first_order"))
    if not (low or up or first_order):
        method = subject.made()
        result = subject.gradient(method)
        if result.loss != result.loss_ascent:
            raise _NotApplicableError("the gradient is taken above the point of the loss: give what makes the method")
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


def _moved_query_loss(subject: _Subject, point: Params, held: list[Params]) -> Callable[[Params], Tensor]:
    """x -> mean over episodes of q(theta'_m + x - point): what first-order MAML has the gradient of."""
    each = len(held) // len(subject.episodes)
    adapted = []
    for index, episode in enumerate(subject.episodes):
        given = _replaying(held[index * each : (index + 1) * each])
        method = subject.made(direction=given, test_steps=subject.settings.get("steps"), perturb_at_test=True)
        adapted.append(_copied(method.adapt(_copied(point), _copied(episode.support))))
    query = subject.made(steps=0, alpha_low=0.0, alpha_up=0.0)

    def function(x: Params) -> Tensor:
        moved = [add_scaled(add_scaled(end, x, 1.0), point, -1.0) for end in adapted]
        pairs = zip(moved, subject.episodes, strict=True)
        return torch.stack([subject.gradient(query, end, [episode]).loss for end, episode in pairs]).mean()

    return function


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


def _recording(direction: Direction | None, made: list[Params]) -> Direction:
    """The direction; what it gives goes into the list too."""
    if direction is None:
        raise _NotApplicableError("the method is made without a keyword direction")

    def recorded(params: Params, grad: Params) -> tuple[Params, Pullback]:
        unit, pullback = direction(params, grad)
        made.append(_copied(unit))
        return unit, pullback

    return recorded


def _replaying(made: Sequence[Params]) -> Direction:
    """Gives again what a direction gave, one after the other: a constant."""
    units = iter(made)

    def nothing(w: Params) -> tuple[Params, Params]:
        return {}, {name: torch.zeros_like(value) for name, value in w.items()}

    return lambda params, grad: (next(units), nothing)


class _ExchangeError(Exception):
    """A process waits for the others, with this tree."""

    def __init__(self, tree: Params) -> None:
        super().__init__("a mean over processes is taken")
        self.tree = tree


def _without_drawn_ascent(subject: _Subject) -> tuple[dict[str, Any], str]:
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
    one, other = _cast(one, torch.float64), _cast(other, torch.float64)
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


def _copied(tree: Tree) -> Tree:
    copied: Tree = tree_map_only(Tensor, lambda value: value.detach().clone(), tree)
    return copied


def _cast(tree: Tree, dtype: torch.dtype) -> Tree:
    def converted(value: object) -> object:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    cast: Tree = tree_map(converted, tree)
    return cast
