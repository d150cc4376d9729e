"""Certified counts in the plane: every zero of the gradient of ERM or MAML in a region, or what could not be decided.

The gradient and its Hessian are formulas that run in two arithmetics (`field.py`): on intervals of float64, where a
search looks at many boxes of many problems at a time (`boxes.py`), and on rigorous balls, which decide in the end
(`balls.py`). A count is certified by the sum of the indices, which topology prescribes: a zero that both engines lost
would be missing there. Read next: `claims/torus.py`, `tanh.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flint import ctx

from theory.lemma.balls import BITS, Kind, distinct
from theory.lemma.boxes import search, winding
from theory.lemma.field import Fields, Problem, field


class Zero(NamedTuple):
    """A stationary point: the only one in the box [low, high], and its kind."""

    low: tuple[float, float]
    high: tuple[float, float]
    kind: Kind

    @property
    def value(self) -> tuple[float, float]:
        """The middle of the box."""
        return (self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2


@dataclass(frozen=True)
class Count:
    """What was found.

    Attributes:
        zeros: The stationary points, each once.
        undetermined: Reasons why more could not be said; empty where nothing is left open.
        winding: The sum of the indices that the region must have; None where it could not be found.
    """

    zeros: tuple[Zero, ...]
    undetermined: tuple[str, ...]
    winding: int | None

    def number(self, kind: Kind | None = None) -> int:
        """How many points, or how many of a kind."""
        return sum(kind in (None, zero.kind) for zero in self.zeros)

    @property
    def index_sum(self) -> int:
        """#minima - #saddles + #maxima."""
        return self.number() - 2 * self.number("saddle")

    @property
    def certified(self) -> bool:
        """Nothing is undetermined, and the indices add up."""
        return not self.undetermined and self.index_sum == self.winding


def stationary(problems: Sequence[Problem]) -> list[Count]:
    """All stationary points of each function in its region.

    Args:
        problems: Problems of one family, with the same numbers of tasks and samples: boxes are worked on together.

    Returns:
        A count per problem.

    Raises:
        ValueError: The problems differ in kind.
    """
    if len({(type(p.family), *map(len, p.family.data), p.reach is None) for p in problems}) > 1:
        raise ValueError(
            "problems that are worked on together must have the same family and numbers of tasks and samples"
        )
    if not problems:
        return []
    counts = []
    # The precision of balls is global to the process, so that the caller's is put back.
    with ctx.workprec(BITS):
        exact = [field(problem) for problem in problems]
        together = Fields(exact)
        for i, (problem, boxes, left) in enumerate(zip(problems, *search(together, problems), strict=True)):
            balls, reasons = distinct(problem, exact[i], boxes)
            turns = winding(together, i, problem)
            zeros = tuple(
                Zero(
                    (float(x.lower()), float(y.lower())),
                    (float(x.upper()), float(y.upper())),
                    kind,
                )
                for (x, y), kind in balls
            )
            unwound = ["the winding number"] if turns is None else []
            counts.append(Count(zeros, (*left, *reasons, *unwound), turns))
    return counts
