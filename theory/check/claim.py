"""What a claim is, how its evidence is decided, and how claims are found.

A claim is one file of `theory/<part>/claims/`. Its docstring is the text, under the headings below; the file binds
`CLAIM`. Every claim has controls, deliberately wrong settings that the same rule must turn round. Decisions are
three-way and taken on intervals: `supported` when the evidence excludes that the claim is false, `refuted` when it
excludes that it is true, else `inconclusive`. Read next: `runner.py`, then any claim.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, stdtr, stdtrit

from sharp_maml import clopper_pearson, holm

Outcome = Literal["supported", "refuted", "inconclusive"]
Kind = Literal["proved exactly", "certified", "statistical", "illustration"]

HEADINGS = ("Statement", "Source", "Assumptions", "Why", "Setting", "Controls", "Limits")
"""Every docstring of a claim has these, each at the beginning of a paragraph and followed by a colon."""

LEVEL = 1e-3
"""Nominal probability that any statistical decision of one run is wrong: Holm over all of them.

Nominal, because the p-values take the bootstrap's and the linearised standard errors as those of a t distribution;
`calibration.py` measures what comes of it. The p-values of counts are exact.
"""


@dataclass(frozen=True)
class Budget:
    """How much work a run may do.

    Attributes:
        name: `smoke`, `test` or `full`.
        log2_horizon: Logarithm of the largest horizon.
        seeds: Independent runs of a setting.
        instances: Random tasks of a cell, where stationary points are counted.
    """

    name: str
    log2_horizon: int
    seeds: int
    instances: int


class Sample(NamedTuple):
    """What a noisy number was estimated from, so that the estimate can be repeated (`calibration.py`).

    Attributes:
        values: Arrays whose last axis is over independent seeds or data sets; each has draws of its own.
        estimate: Makes the item of such arrays.
        is_exponent: Whether the number is an exponent, to which a factor size^c of the values adds c; else a factor of
            the values is a factor of the number.
        per_seed: Whether the budget's seeds say how many there are: more seeds then make a larger pool.
    """

    values: tuple[NDArray[np.float64], ...]
    estimate: Callable[..., Item]
    is_exponent: bool
    per_seed: bool = True


@dataclass(frozen=True)
class Item:
    """One number that a rule looks at, beside the one that was predicted.

    Attributes:
        label: What it is.
        measured: The number.
        predicted: What the claim's region is built around.
        error: Standard error; 0 for a number without one.
        n: Samples behind the standard error, or trials behind a count.
        within: A proved interval that holds the number.
        successes: Successes among n trials, where the number is their share.
        sample: What the number with its standard error was estimated from; in no record.
    """

    label: str
    measured: float
    predicted: float
    error: float = 0.0
    n: int = 1
    within: tuple[float, float] | None = None
    successes: int | None = None
    sample: Sample | None = field(default=None, repr=False, compare=False)

    @classmethod
    def share(cls, label: str, successes: int, n: int, predicted: float) -> Item:
        """A share of n trials."""
        return cls(label, successes / n, predicted, n=n, successes=successes)

    @property
    def is_noisy(self) -> bool:
        """Whether another seed would give another number: it has a standard error, or is a share of trials."""
        return self.error != 0 or self.successes is not None

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Student's or Clopper's and Pearson's at this level, or the proved one; the number twice without noise."""
        if self.within is not None:
            return self.within[0], self.within[1]
        if self.successes is not None:
            exact = clopper_pearson(self.successes, self.n, confidence=1 - level)
            return exact.low, exact.high
        half = float(-stdtrit(self.n - 1, level / 2)) * self.error if self.error else 0.0
        return self.measured - half, self.measured + half

    def tails(self, edge: float) -> tuple[float, float]:
        """Probability of a number at most, and of one at least, as large as the measured one if the truth is `edge`.

        Student's t with n - 1 degrees of freedom, or the binomial distribution of a count. No share lies beyond 0 or 1:
        an edge there, or beyond, is as far away as infinity.
        """
        if self.successes is None:
            t = (self.measured - edge) / self.error
            return float(stdtr(self.n - 1, t)), float(stdtr(self.n - 1, -t))
        if not 0 < edge < 1:
            return float(edge <= 0), float(edge >= 1)
        return float(bdtr(self.successes, self.n, edge)), float(bdtrc(self.successes - 1, self.n, edge))

    def to_dict(self) -> dict[str, Any]:
        """What a record keeps, from which `Item(**...)` makes the item."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "sample"}


@dataclass(frozen=True)
class Curve:
    """A line or points for the claim's figure; `low`, `high` is an interval around each point.

    role: `measured` (points and line), `points` (points without a line), `predicted` (dashed line) or `control` (faint
    points and line).
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    role: Literal["measured", "points", "predicted", "control"] = "measured"
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Evidence:
    """What a measurement brings: numbers for the rule, curves for the figure, LaTeX of the prediction."""

    items: tuple[Item, ...]
    curves: tuple[Curve, ...] = ()
    latex: str = ""


@dataclass(frozen=True)
class Rule:
    """Each measured number lies in [predicted - below, predicted + above]; all must, for the claim to be supported.

    Attributes:
        text: The rule in words.
        below: Room below the prediction, >= 0; infinity for a bound from above.
        above: Room above it, >= 0.
        relative: Whether the two are fractions of the prediction.
    """

    text: str
    below: float
    above: float
    relative: bool = False

    def region(self, item: Item) -> tuple[float, float]:
        """Where the claim wants the number."""
        scale = abs(item.predicted) if self.relative else 1.0
        return item.predicted - self.below * scale, item.predicted + self.above * scale

    def position(self, item: Item, value: float) -> float:
        """Where a value lies: over the prediction for a bound from above, else in units of the room on its side of it.

        The edge of the region is at 1, or at -1 and 1.
        """
        low, high = self.region(item)
        if math.isinf(low):
            return value / item.predicted if item.predicted else 0.0 if value <= high else math.inf
        away = value - item.predicted
        side = high - item.predicted if away >= 0 else item.predicted - low
        return away / side if side else 0.0 if not away else math.copysign(math.inf, away)

    def outside(self, item: Item) -> float:
        """How far outside its region a number lies, negative inside.

        In units of the region's half-width, or of its edge for a bound from above.
        """
        low, high = self.region(item)
        beyond = max(low - item.measured, item.measured - high)
        unit = abs(high) if math.isinf(low) else (high - low) / 2
        return beyond / unit if unit else math.copysign(math.inf, beyond) if beyond else 0.0

    def p_values(self, evidence: Evidence) -> tuple[float, float]:
        """p-value against "some number lies outside its region", and against "every number lies inside".

        The first is the largest over the items (an intersection-union test), the second the smallest times their
        number. An item's tails are those at the edges (`Item.tails`); 0 or 1 without noise, or with a proved interval.
        """
        outside, inside = zip(*(self._p_values(item) for item in evidence.items), strict=True)
        return max(outside), min(1.0, min(inside) * len(inside))

    def _p_values(self, item: Item) -> tuple[float, float]:
        low, high = self.region(item)
        if not item.is_noisy:
            left, right = item.interval()
            return float(not low <= left <= right <= high), float(left <= high and low <= right)
        at_most_low, at_least_low = item.tails(low)
        at_most_high, at_least_high = item.tails(high)
        return max(at_least_low, at_most_high), min(1.0, 2 * min(at_most_low, at_least_high))


Measure = Callable[[Budget, int], Evidence]
"""(budget, seed) -> evidence."""


@dataclass(frozen=True)
class Claim:
    """A claim, its controls and the rule that decides both, all fixed before anything is measured.

    Attributes:
        rule: Decides the claim and every control.
        measure: Brings the evidence.
        controls: Deliberately wrong settings, by a name that says what is wrong; each must come out the other way.
        evidence: What kind of evidence it is.
        expected: `refuted` for a claim of the source that is false as worded.
        literal: Whether the source claims it in these words; False where it is restated or derived here.
        axes: Labels of the figure's x and y axis.
        scale: Scale of both axes.
        shares: Name of the runs that it reads together with other claims, which one process then measures.
        id: Folder and file: `rate_bound` is `theory/rate/claims/bound.py`.
        text: Paragraphs of the file's docstring by heading.
    """

    rule: Rule
    measure: Measure
    controls: Mapping[str, Measure]
    evidence: Kind
    expected: Literal["supported", "refuted"] = "supported"
    literal: bool = False
    axes: tuple[str, str] = ("", "")
    scale: Literal["linear", "log"] = "log"
    shares: str = ""
    id: str = ""
    text: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module that binds it."""
        return "theory." + self.id.replace("_", ".claims.", 1)

    @property
    def other(self) -> Outcome:
        """What every control must come out as."""
        return "refuted" if self.expected == "supported" else "supported"


class Unit(NamedTuple):
    """A piece of work: a claim (control is empty), or one of its controls."""

    id: str
    control: str

    def __str__(self) -> str:
        return f"{self.id}: {self.control or 'claim'}"


@dataclass(frozen=True)
class Verdict:
    """A decided claim.

    Attributes:
        claim: The claim.
        outcomes: Outcome by control; the empty name is the claim itself.
        evidence: Evidence, likewise.
        seconds: Time of each, likewise.
        origin: What measured it: commit, versions, device, budget, base seed.
    """

    claim: Claim
    outcomes: Mapping[str, Outcome]
    evidence: Mapping[str, Evidence]
    seconds: Mapping[str, float]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Outcome of the claim itself."""
        return self.outcomes[""]

    @property
    def passed(self) -> bool:
        """Whether the claim came out as expected and every control the other way."""
        return self.outcome == self.claim.expected and self.turned == len(self.claim.controls)

    @property
    def turned(self) -> int:
        """How many controls came out the other way."""
        return sum(outcome == self.claim.other for name, outcome in self.outcomes.items() if name)

    @property
    def alarm(self) -> bool:
        """Whether the claim or a control was decided, and the wrong way."""
        wrong = {name: self.claim.expected if name else self.claim.other for name in self.outcomes}
        return any(outcome == wrong[name] for name, outcome in self.outcomes.items())

    @property
    def furthest(self) -> float:
        """How near to the edge of its region, which is 1, the claim's furthest number is."""
        return max(abs(self.claim.rule.position(item, item.measured)) for item in self.evidence[""].items)


def decide(
    claims: Mapping[str, Claim], evidence: Mapping[Unit, Evidence], seconds: Mapping[Unit, float]
) -> list[Verdict]:
    """Decide every unit at once: Holm at `LEVEL` over the two p-values of each statistical one.

    Args:
        claims: Claims by id.
        evidence: Evidence of each claim and all its controls.
        seconds: Time of each.

    Returns:
        A verdict for each claim of which there is evidence, in the order of the claims.
    """
    p_values = {unit: claims[unit.id].rule.p_values(brought) for unit, brought in evidence.items()}
    noisy = [unit for unit, brought in evidence.items() if any(item.is_noisy for item in brought.items)]
    flat = holm([p for unit in noisy for p in p_values[unit]], LEVEL)
    rejected = {unit: (flat[2 * i], flat[2 * i + 1]) for i, unit in enumerate(noisy)}

    def outcome(unit: Unit) -> Outcome:
        outside, inside = rejected.get(unit, (p_values[unit][0] == 0, p_values[unit][1] == 0))
        return "supported" if outside else "refuted" if inside else "inconclusive"

    every = {name: [Unit(name, control) for control in ("", *claim.controls)] for name, claim in claims.items()}
    return [
        Verdict(
            claims[name],
            {unit.control: outcome(unit) for unit in units},
            {unit.control: evidence[unit] for unit in units},
            {unit.control: seconds[unit] for unit in units},
        )
        for name, units in every.items()
        if units[0] in evidence
    ]


@cache
def registry() -> dict[str, Claim]:
    """The claims of every part, `theory/<part>/claims/`, by id.

    Raises:
        ValueError: A docstring lacks a heading.
    """
    modules = pkgutil.walk_packages(importlib.import_module("theory").__path__, "theory.")
    claims = (load(importlib.import_module(module.name)) for module in modules if ".claims." in module.name)
    return {claim.id: claim for claim in claims}


def load(module: ModuleType) -> Claim:
    """The claim of a module, with its id and text.

    Args:
        module: A module `theory.<part>.claims.<name>` that binds `CLAIM`.

    Returns:
        The claim.

    Raises:
        ValueError: The docstring lacks a heading, or the claim has no control.
    """
    claim: Claim = module.CLAIM
    text = paragraphs(module.__doc__ or "")
    missing = [heading for heading in HEADINGS if not text.get(heading)]
    if missing:
        raise ValueError(
            f"the docstring of {module.__name__} lacks {', '.join(missing)}: it needs {', '.join(HEADINGS)}"
        )
    if not claim.controls:
        raise ValueError(f"{module.__name__} has no control: a check that cannot fail shows nothing")
    _, part, _, name = module.__name__.split(".")
    return Claim(**{**claim.__dict__, "id": f"{part}_{name}", "text": text})


def paragraphs(doc: str) -> dict[str, str]:
    """Paragraphs of a docstring that begin with one of the headings, up to the next one, by heading."""
    parts = re.split(rf"^({'|'.join(HEADINGS)}):", doc, flags=re.MULTILINE)
    return {heading: body.strip() for heading, body in zip(parts[1::2], parts[2::2], strict=True)}
