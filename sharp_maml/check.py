"""The laws that every method keeps, tried on anyone's: `check_method`, as scikit-learn's `check_estimator` does.

Read next: `laws.py`, which has them.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from sharp_maml.base import Episode, Method, Params
from sharp_maml.laws import LAWS, NEEDED, Law
from sharp_maml.subject import NotApplicableError, Subject, cast

_COLUMNS = (12, 14, 9, 9, 50)


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
    subject = Subject(make, settings, cast(params, torch.float64), cast(list(episodes), torch.float64))
    laws: list[Law] = []
    for name, law in LAWS.items():
        needed = next((each.name for each in laws if each.name in NEEDED and each.verdict == "failed"), None)
        try:
            if needed:
                raise NotApplicableError(f"the law `{needed}` is broken, which this one needs")
            found = law(subject)
        except NotApplicableError as reason:
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
