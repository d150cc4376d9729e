"""What the lemma's claims share: named and random tasks, their counts, and ways to count wrongly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction as Q
from functools import cache
from typing import NamedTuple

from synthetic import ExactFamily, PolynomialRegression, Rational
from theory.check.claim import Curve, Item
from theory.lemma.line import Point, erm, erm_slope, inner_steps, maml, maml_slope, stationary_points
from theory.lemma.roots import real_roots

EXACT = 0.5
"""Room of a rule about whole numbers on both sides: any other number is outside."""


class Case(NamedTuple):
    """Tasks and a step size, with the numbers of stationary points that the text claims of ERM and of MAML."""

    family: ExactFamily
    beta: Q
    erm: int
    maml: int


CASES = {
    "C0": Case(Rational([[(1, Q(5, 8))], [(1, Q(-5, 8))]]), Q(1, 8), 3, 1),
    "C1": Case(Rational([[(2, Q(13, 8))], [(2, 0)]]), Q(3, 16), 3, 1),
    "C2": Case(Rational([[(1, Q(5, 8))], [(2, Q(5, 2))]]), Q(1, 8), 3, 1),
    "C3": Case(PolynomialRegression([[(1, 1, -2), (-1, 1, 2)], [(1, 0, 1), (1, 1, 3)]]), Q(1, 2), 3, 1),
    "C4": Case(PolynomialRegression([[(1, 0, 1)], [(2, 0, 0)]]), Q(1, 16), 1, 1),
    "C5": Case(Rational([[(Q(3, 2), Q(13, 8))], [(2, Q(-3, 4))], [(2, Q(1, 2))]]), Q(5, 32), 1, 3),
    "C7": Case(Rational([[(Q(-8, 9), 0)]], decay=1), Q(1), 3, 3),
    "C8": Case(Rational([[(2, 4)]], decay=1), Q(1, 4), 1, 3),
}
"""Tasks by name: up to C5 two or three, with one target each but in C3 (quartics) and C4 (parabolas); then one, with
weight decay. C6 is an exponential function and is in `counterexamples.py`."""


class Instance(NamedTuple):
    """Tasks and a step size, with the stationary points of ERM and of MAML."""

    family: ExactFamily
    beta: Q
    erm: tuple[Point, ...]
    maml: tuple[Point, ...]


def counted(family: ExactFamily, beta: Q) -> Instance:
    """Count both."""
    return Instance(family, beta, erm_points(family), stationary_points(maml_slope(family, beta)))


@cache
def erm_points(family: ExactFamily) -> tuple[Point, ...]:
    """The stationary points of ERM; kept, because the same tasks are counted with many steps."""
    return stationary_points(erm_slope(family))


@cache
def counted_case(name: str) -> Instance:
    """One of the named cases, counted; kept."""
    return counted(CASES[name].family, CASES[name].beta)


def robust(n: int, seed: int, *, tasks: int, samples: int = 1) -> Iterator[Rational]:
    """n random robust regressions; the i-th is the same whatever n is."""
    for i in range(n):
        yield Rational.random(random.Random(f"{seed} {tasks} {samples} {i}"), tasks=tasks, samples=samples)


def polynomials(n: int, seed: int, *, tasks: int) -> Iterator[PolynomialRegression]:
    """n random polynomial regressions with two samples per task; the i-th is the same whatever n is."""
    for i in range(n):
        yield PolynomialRegression.random(random.Random(f"{seed} {tasks} polynomial {i}"), tasks=tasks)


def own_minima(case: Instance) -> int:
    """How many minima of MAML on one task are certainly no copies: l' is not 0 at T of them, and T turns there."""
    (task,) = inner_steps(case.family, case.beta)
    copies = real_roots(task.slope(task.inner).numerator)
    return sum(
        point.kind == "minimum" and not any(point.low <= high and low <= point.high for low, high in copies)
        for point in case.maml
    )


def violations(label: str, holds: Callable[[Instance], bool], instances: list[Instance]) -> Item:
    """How many instances do not have a property, 0 predicted."""
    return failures(label, [not holds(instance) for instance in instances])


def failures(label: str, fails: Sequence[bool]) -> Item:
    """In how many cases something fails, 0 predicted."""
    return Item(f"{label}, {len(fails)} cases", sum(fails), 0)


def lost(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points without the last."""
    return tuple(points[:-1])


def doubled(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with the last one twice."""
    return (*points, *points[-1:])


def mislabelled(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with the last one called a minimum if it is a maximum, and a maximum otherwise."""
    return (*points[:-1], *(p._replace(kind="minimum" if p.kind == "maximum" else "maximum") for p in points[-1:]))


MISTAKES = {"one point lost": lost, "one point twice": doubled, "one point mislabelled": mislabelled}
"""Ways to count wrongly, which a check of counts must notice."""


def landscape(name: str, family: ExactFamily, beta: Q, *, reach: Q = Q(3, 5), shift: float = 0.0) -> tuple[Curve, ...]:
    """ERM and MAML as far as `reach` beyond their stationary points, which are marked; for the figures."""
    found = counted(family, beta)
    ends = [end for point in (*found.erm, *found.maml) for end in (point.low, point.high)]
    low, high = min(ends) - reach, max(ends) + reach
    x = [low + (high - low) * i / 240 for i in range(241)]
    curves = []
    for label, loss, points in (("ERM", erm(family), found.erm), ("MAML", maml(family, beta), found.maml)):
        label = f"{name} {label}".strip()
        y = [float(loss.at(at)) + shift for at in x]
        curves.append(Curve(label, [float(at) for at in x], y, "predicted"))
        for kind in ("minimum", "maximum", "flat"):
            of_kind = [point for point in points if point.kind == kind]
            if of_kind:
                y = [float(loss.at((point.low + point.high) / 2)) + shift for point in of_kind]
                curves.append(Curve(f"{label}: {kind}", [point.value for point in of_kind], y, "points"))
    return tuple(curves)


def landscape_of(name: str, shift: float = 0.0) -> tuple[Curve, ...]:
    """The landscape of a named case."""
    return landscape(name, CASES[name].family, CASES[name].beta, shift=shift)
