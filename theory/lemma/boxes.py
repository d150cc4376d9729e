"""Boxes of float64 that hold exactly one zero of the gradient, and how often it turns along the boundary.

Branch and prune: a box is dropped when the gradient, or Krawczyk's operator on the box inflated by a tenth, excludes
a zero; it holds exactly one when the operator maps the inflated box into its interior; otherwise it is cut. What is
left at the smallest width is undetermined, and never counted. Boxes of all problems go through together, because numpy
costs the same for one box as for a thousand. Read next: `balls.py`, which decides what was found here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.lemma.field import Field, Fields, Pair, Problem, Triple
from theory.lemma.intervals import Array, Interval

GRID = 16
"""Boxes per side that the search begins with."""
SMALLEST = 1e-9
"""Width at which a box is given up as undetermined."""
MOST = 100_000
"""Boxes at a time: beyond, the instances that have the most are given up."""
INFLATION = 0.1


def search(fields: Fields, problems: Sequence[Problem]) -> tuple[list[list[Array]], list[list[str]]]:
    """Boxes with exactly one zero each, by problem, `2 x 3` (coordinate; ends, about where); and what is left open."""
    found: list[list[Array]] = [[] for _ in problems]
    reasons: list[list[str]] = [[] for _ in problems]
    low, high, who = grid(problems)
    while len(low):
        # One instance that cannot be decided must not take the memory of all others.
        if len(low) > MOST:
            most = int(np.bincount(who).argmax())
            reasons[most].append(f"more than {MOST} boxes at a time")
            keep = who != most
            low, high, who = low[keep], high[keep], who[keep]
            continue
        # Inflated, so that a zero on the common side of two boxes is in the interior of both, and either can prove it:
        # it is found twice, and `balls.distinct` sees it.
        wide = low - INFLATION * (high - low), high + INFLATION * (high - low)
        tested = krawczyk_test(fields.of(who), *wide)
        image_low, image_high = tested.image
        # Zeros of the inflated box are in the image: where that misses the box, a neighbour has them.
        keep = tested.may_hold & ((image_low <= high) & (image_high >= low)).all(1)
        one = keep & tested.is_mapped_inside
        for i in np.flatnonzero(one):
            # The image is narrower than the box, so that its middle is where Newton's method begins.
            found[who[i]].append(np.stack([wide[0][i], wide[1][i], (image_low[i] + image_high[i]) / 2], -1))
        rest = keep & ~one
        # A zero in the box lies in the image of the inflated box, too.
        low, high, who = np.maximum(low, image_low)[rest], np.minimum(high, image_high)[rest], who[rest]
        small = (high - low).max(1) < SMALLEST
        for i in np.flatnonzero(small):
            reasons[who[i]].append(f"a box around ({low[i, 0]:.6g}, {low[i, 1]:.6g})")
        low, high, who = cut(low[~small], high[~small], who[~small])
    return found, reasons


def grid(problems: Sequence[Problem]) -> tuple[Array, Array, NDArray[np.intp]]:
    """The boxes that the search begins with: lower and upper corners, `boxes x 2`, and whose each is."""
    edges = np.linspace(-1, 1, GRID + 1)
    sides = np.array([problem.half for problem in problems])[:, None, None]
    low, high = (
        (sides * np.stack(np.meshgrid(ends, ends, indexing="ij"), -1).reshape(-1, 2)).reshape(-1, 2)
        for ends in (edges[:-1], edges[1:])
    )
    return low, high, np.repeat(np.arange(len(problems)), GRID**2)


def cut(low: Array, high: Array, who: NDArray[np.intp]) -> tuple[Array, Array, NDArray[np.intp]]:
    """Each box in two, across its longer side."""
    axis = (high - low).argmax(1)
    row = np.arange(len(low))
    middle = low[row, axis] / 2 + high[row, axis] / 2
    left, right = high.copy(), low.copy()
    left[row, axis] = right[row, axis] = middle
    return np.concatenate([low, right]), np.concatenate([left, high]), np.concatenate([who, who])


class Tested(NamedTuple):
    """What Krawczyk's operator says of boxes.

    Attributes:
        may_hold: Which of them neither the gradient nor its mean value form shows to hold no zero, `boxes`.
        is_mapped_inside: Which are mapped into their own interior, so that they hold exactly one.
        image: Lower and upper corner of the image, `boxes x 2` each, where every zero of the box lies.
    """

    may_hold: NDArray[np.bool_]
    is_mapped_inside: NDArray[np.bool_]
    image: tuple[Array, Array]


def krawczyk_test(field: Field[Interval], low: Array, high: Array) -> Tested:
    """Krawczyk's test of boxes with given corners, `boxes x 2`."""
    x = _box(low, high)
    centre = _centre(x)
    wide, hessian = field.with_hessian(x, centre)
    at = field.gradient(centre)
    narrow = _mean_value(x, centre, at, hessian)
    # Two tests, each of which may exclude a zero: the gradient as it is, and its mean value form.
    may_hold = wide[0].holds(0.0) & wide[1].holds(0.0) & narrow[0].holds(0.0) & narrow[1].holds(0.0)
    image = krawczyk(x, centre, at, hessian)
    return Tested(
        may_hold,
        image[0].inside(x[0]) & image[1].inside(x[1]),
        (np.stack([side.low for side in image], 1), np.stack([side.high for side in image], 1)),
    )


def krawczyk(
    x: Pair[Interval], centre: Pair[Interval], at: Pair[Interval], hessian: Triple[Interval]
) -> Pair[Interval]:
    """c - Y G(c) + (I - Y H)(x - c), Y about the inverse of the Hessian's middle; Y = 0 where that is singular."""
    a, b, d = (entry.middle for entry in hessian)
    determinant = a * d - b * b
    good = np.abs(determinant) > 1e-300
    # Any Y is right, and a poor one proves less: with Y = 0 the image is the box, which decides nothing.
    scale = np.where(good, 1 / np.where(good, determinant, 1.0), 0.0)
    y = tuple(Interval.point(entry * scale) for entry in (d, -b, a))
    away = (x[0] - centre[0], x[1] - centre[1])
    residue = (
        1.0 - (y[0] * hessian[0] + y[1] * hessian[1]),
        0.0 - (y[0] * hessian[1] + y[1] * hessian[2]),
        0.0 - (y[1] * hessian[0] + y[2] * hessian[1]),
        1.0 - (y[1] * hessian[1] + y[2] * hessian[2]),
    )
    return (
        centre[0] - (y[0] * at[0] + y[1] * at[1]) + residue[0] * away[0] + residue[1] * away[1],
        centre[1] - (y[1] * at[0] + y[2] * at[1]) + residue[2] * away[0] + residue[3] * away[1],
    )


def winding(fields: Fields, index: int, problem: Problem) -> int | None:
    """How often the gradient turns along the boundary of the square, counterclockwise; 0 on the torus.

    The boundary is cut into segments on each of which an enclosure of the gradient excludes zero, so that it turns by
    less than half a circle there, and the turns between the ends add up. None where a segment cannot be decided.
    """
    if problem.reach is None:
        return 0
    half = problem.half
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    starts = np.concatenate([np.linspace(corners[i], corners[(i + 1) % 4], 65)[:-1] for i in range(4)])
    stops = np.roll(starts, -1, axis=0)
    field = fields.of(np.array([index]))  # numbers of one entry, which numpy spreads over the segments
    total = 0.0
    while len(starts):
        x = _box(np.minimum(starts, stops), np.maximum(starts, stops))
        centre = _centre(x)
        wide, hessian = field.with_hessian(x, centre)
        narrow = _mean_value(x, centre, field.gradient(centre), hessian)
        # The two enclosures meet where the gradient is, so that a zero must lie in both. Where one component excludes 0
        # the gradient stays in a half-plane, and turns by less than half a circle.
        is_open = wide[0].intersection(narrow[0]).holds(0.0) & wide[1].intersection(narrow[1]).holds(0.0)
        angles = []
        for points in (starts[~is_open], stops[~is_open]):
            g = field.gradient(_box(points, points))
            angles.append(np.arctan2(g[1].middle, g[0].middle))
        turn = angles[1] - angles[0]
        # The ends allow many angles, of which one is less than half a circle.
        total += float((turn - 2 * math.pi * np.round(turn / (2 * math.pi))).sum())
        starts, stops = starts[is_open], stops[is_open]
        if len(starts) and np.abs(stops - starts).max() < SMALLEST:
            return None
        middles = starts / 2 + stops / 2
        starts, stops = np.concatenate([starts, middles]), np.concatenate([middles, stops])
    return round(total / (2 * math.pi))


def _box(low: Array, high: Array) -> Pair[Interval]:
    return Interval(low[:, 0], high[:, 0]), Interval(low[:, 1], high[:, 1])


def _centre(x: Pair[Interval]) -> Pair[Interval]:
    return Interval.point(x[0].middle), Interval.point(x[1].middle)


def _mean_value(
    x: Pair[Interval], centre: Pair[Interval], at: Pair[Interval], hessian: Triple[Interval]
) -> Pair[Interval]:
    """G(c) + H(x) (x - c), which encloses the gradient over a box."""
    away = (x[0] - centre[0], x[1] - centre[1])
    return (
        at[0] + hessian[0] * away[0] + hessian[1] * away[1],
        at[1] + hessian[1] * away[0] + hessian[2] * away[1],
    )
