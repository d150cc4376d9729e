"""Certified counts in the plane: every zero of the gradient of ERM or MAML in a region, or what could not be decided.

A task's loss is a sum of functions of one linear form each plus a ridge, l(x) = sum_j phi_j(<a_j, x>) + lambda |x|^2,
so that gradient, Hessian and third derivative are sums of phi', phi'', phi''' times powers of a_j. With T(x) = x -
beta grad l(x), J = I - beta H(x), the gradient of MAML is the mean of J grad l(T), and its Hessian the mean of J H(T)
J - beta D^3 l(x)[grad l(T)]; the code takes sums over the tasks, with the same zeros and signs. These formulas run
on intervals of float64, many boxes of many instances at a time, and on rigorous balls (Arb), which decide in the end.

Branch and prune: a box is dropped when the gradient, or Krawczyk's operator on the box inflated by a tenth, excludes
a zero; it holds exactly one when the operator maps the inflated box into its interior; otherwise it is cut. What is
left at the smallest width is undetermined, and never counted. Read next: `claims/torus.py`, `tanh.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from flint import arb, ctx, fmpq
from numpy.typing import NDArray

from synthetic import FREQUENCIES, Exact, Tanh, Torus
from theory.lemma.intervals import Array, Interval

Kind = Literal["minimum", "saddle", "maximum"]
Pair = tuple[Any, Any]
BITS = 128
GRID = 16
"""Boxes per side that the search begins with."""
SMALLEST = 1e-9
"""Width at which a box is given up as undetermined."""
MOST = 100_000
"""Boxes at a time: beyond, the instances that have the most are given up."""
INFLATION = 0.1


@dataclass(frozen=True, eq=False)
class Problem:
    """One function whose stationary points are looked for.

    Attributes:
        family: The tasks.
        beta: beta_low, exact; 0 is ERM.
        reach: Half the side of the square that is searched; None is the whole torus.
    """

    family: Torus | Tanh
    beta: Exact
    reach: Exact | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.beta, int | Fraction) or self.beta < 0:
            raise ValueError(f"beta must be an integer or a Fraction >= 0, got {self.beta!r}")
        if isinstance(self.family, Torus) != (self.reach is None):
            raise ValueError("a torus is searched as a whole, any other family in a square: give its reach")

    @property
    def half(self) -> float:
        """Half the side of the search square; on the torus, a little more than pi."""
        return 3.2 if self.reach is None else float(self.reach)


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
    # the precision of balls is global to the process, so that the caller's is put back
    before, ctx.prec = ctx.prec, BITS
    try:
        exact = [Function(problem, arb_number) for problem in problems]
        together = Many([function.coefficients for function in exact], problems)
        found, reasons = search(together, problems)
        return [
            finish(problem, function, found[i], reasons[i], winding(together, i, problem))
            for i, (problem, function) in enumerate(zip(problems, exact, strict=True))
        ]
    finally:
        ctx.prec = before


def arb_number(value: Exact) -> arb:
    """A ball that holds an exact number."""
    value = Fraction(value)
    return arb(fmpq(value.numerator, value.denominator))


class Function:
    """Gradient and Hessian of one problem in one arithmetic; `coefficients` are what the arithmetic needs to know."""

    def __init__(self, problem: Problem, number: Callable[[Exact], Any]) -> None:
        family = problem.family
        self.trigonometric = isinstance(family, Torus)
        if isinstance(family, Torus):
            pairs = family.amplitudes(number, lambda a: a.cos(), lambda a: a.sin())
            tasks = [
                [(number(k[0]), number(k[1]), a, b) for k, (a, b) in zip(FREQUENCIES, task, strict=True)]
                for task in pairs
            ]
            ridge = number(0)
        else:
            tasks = [
                [(number(t), number(1), number(y), number(Fraction(1, len(task)))) for t, y in task]
                for task in family.data
            ]
            ridge = number(family.ridge)
        self.coefficients: tuple[Any, Any, list[list[tuple[Any, ...]]]] = (number(problem.beta), ridge, tasks)

    def at(self, x: Pair) -> tuple[Pair, tuple[Any, Any, Any]]:
        """Gradient, and the Hessian's entries 11, 12 and 22."""
        return evaluate(self.coefficients, x, trigonometric=self.trigonometric)


class Many:
    """Gradient and Hessian on boxes of many problems at a time, in intervals."""

    def __init__(self, coefficients: Sequence[Any], problems: Sequence[Problem]) -> None:
        self.trigonometric = isinstance(problems[0].family, Torus)
        beta, ridge, tasks = ([one[part] for one in coefficients] for part in range(3))
        # the balls are rounded outwards to floats here, once
        self.beta, self.ridge = _gathered(beta), _gathered(ridge)
        self.tasks = [
            [tuple(_gathered([of[m][j][c] for of in tasks]) for c in range(4)) for j in range(len(tasks[0][m]))]
            for m in range(len(tasks[0]))
        ]
        self.first_order = not any(float(p.beta) for p in problems)

    def at(self, x: Pair, who: NDArray[np.intp], centre: Pair | None = None) -> tuple[Pair, tuple[Any, Any, Any]]:
        """Gradient and Hessian on boxes; `who` says of which problem each is."""

        def own(value: Interval) -> Interval:
            return Interval(value.low[who], value.high[who])

        tasks = [[tuple(map(own, term)) for term in task] for task in self.tasks]
        coefficients = (own(self.beta), own(self.ridge), tasks)
        return evaluate(coefficients, x, trigonometric=self.trigonometric, centre=centre)


def evaluate(
    coefficients: tuple[Any, Any, list[list[tuple[Any, ...]]]],
    x: Pair,
    *,
    trigonometric: bool,
    centre: Pair | None = None,
) -> tuple[Pair, tuple[Any, Any, Any]]:
    """M times the gradient and the Hessian of F, in any arithmetic.

    Args:
        coefficients: beta, ridge, and the terms of each task.
        x: A point or a box.
        trigonometric: Which phi_j.
        centre: A point of the box, to enclose the inner step by its mean value form.

    Returns:
        Gradient, and the Hessian's entries 11, 12 and 22.
    """
    beta, ridge, tasks = coefficients
    phi = _waves if trigonometric else _neurons
    gradient: list[Any] = [0.0, 0.0]
    hessian: list[Any] = [0.0, 0.0, 0.0]
    for terms in tasks:
        g, h, third = _derivatives(terms, ridge, x, phi, third=True)
        inner = (x[0] - beta * g[0], x[1] - beta * g[1])
        j = (1.0 - beta * h[0], -(beta * h[1]), 1.0 - beta * h[2])
        # both enclose T on the box: the mean value form is the narrower one on small boxes, the plain one on large
        if centre is not None:
            at, _, _ = _derivatives(terms, ridge, centre, phi, third=False)
            away = (x[0] - centre[0], x[1] - centre[1])
            inner = (
                inner[0].meet(centre[0] - beta * at[0] + j[0] * away[0] + j[1] * away[1]),
                inner[1].meet(centre[1] - beta * at[1] + j[1] * away[0] + j[2] * away[1]),
            )
        v, w, _ = _derivatives(terms, ridge, inner, phi, third=False)
        gradient[0] = j[0] * v[0] + j[1] * v[1] + gradient[0]
        gradient[1] = j[1] * v[0] + j[2] * v[1] + gradient[1]
        # J H(T) J, and the third derivative in the direction v
        left = (
            w[0] * j[0] + w[1] * j[1],
            w[0] * j[1] + w[1] * j[2],
            w[1] * j[0] + w[2] * j[1],
            w[1] * j[1] + w[2] * j[2],
        )
        bend = third(v)
        hessian[0] = j[0] * left[0] + j[1] * left[2] - beta * bend[0] + hessian[0]
        hessian[1] = j[0] * left[1] + j[1] * left[3] - beta * bend[1] + hessian[1]
        hessian[2] = j[1] * left[1] + j[2] * left[3] - beta * bend[2] + hessian[2]
    return (gradient[0], gradient[1]), (hessian[0], hessian[1], hessian[2])


def _derivatives(
    terms: Sequence[tuple[Any, ...]], ridge: Any, x: Pair, phi: Callable[..., Any], *, third: bool
) -> tuple[Pair, tuple[Any, Any, Any], Callable[[Pair], tuple[Any, Any, Any]]]:
    """Gradient and Hessian of a task's loss, and its third derivative as a function of a direction."""
    g: list[Any] = [2.0 * ridge * x[0], 2.0 * ridge * x[1]]
    h: list[Any] = [2.0 * ridge, 0.0 * ridge, 2.0 * ridge]
    thirds = []
    for a, b, *rest in terms:
        one, two, three = phi(a * x[0] + b * x[1], *rest)
        g[0], g[1] = g[0] + one * a, g[1] + one * b
        h[0], h[1], h[2] = h[0] + two * (a * a), h[1] + two * (a * b), h[2] + two * (b * b)
        if third:
            thirds.append((a, b, three))

    def along(v: Pair) -> tuple[Any, Any, Any]:
        total: list[Any] = [0.0, 0.0, 0.0]
        for a, b, three in thirds:
            size = three * (a * v[0] + b * v[1])
            total = [size * (a * a) + total[0], size * (a * b) + total[1], size * (b * b) + total[2]]
        return total[0], total[1], total[2]

    return (g[0], g[1]), (h[0], h[1], h[2]), along


def _waves(s: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """First to third derivative of a cos s + b sin s."""
    cos, sin = s.cos(), s.sin()
    value, slope = a * cos + b * sin, b * cos - a * sin
    return slope, -value, -slope


def _neurons(s: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """First to third derivative of weight (tanh s - y)^2, as polynomials of u = tanh s."""
    u = s.tanh()
    # a product of intervals does not know that its factors are one number, and may be negative
    square = u.square() if isinstance(u, Interval) else u * u
    rest = (1.0 - square) * weight
    return (
        2.0 * (u - y) * rest,
        rest * (2.0 - 6.0 * square + 4.0 * (u * y)),
        rest * (4.0 * y - 16.0 * u - 12.0 * (y * square) + 24.0 * (u * square)),
    )


def search(function: Many, problems: Sequence[Problem]) -> tuple[list[list[Array]], list[list[str]]]:
    """Boxes with exactly one zero each, by problem, `2 x 3` (coordinate; ends, about where); and what is left open."""
    found: list[list[Array]] = [[] for _ in problems]
    reasons: list[list[str]] = [[] for _ in problems]
    sides = np.array([problem.half for problem in problems])
    edges = np.linspace(-1, 1, GRID + 1)
    corner = np.stack(np.meshgrid(edges[:-1], edges[:-1], indexing="ij"), -1).reshape(-1, 2)
    upper = np.stack(np.meshgrid(edges[1:], edges[1:], indexing="ij"), -1).reshape(-1, 2)
    low = (sides[:, None, None] * corner).reshape(-1, 2)
    high = (sides[:, None, None] * upper).reshape(-1, 2)
    who = np.repeat(np.arange(len(problems)), len(corner))
    while len(low):
        # one instance that cannot be decided must not take the memory of all others
        if len(low) > MOST:
            most = int(np.bincount(who).argmax())
            reasons[most].append(f"more than {MOST} boxes at a time")
            keep = who != most
            low, high, who = low[keep], high[keep], who[keep]
            continue
        # inflated, both neighbours of a common side have its zeros inside: these are found twice, and `finish` sees it
        inflated = low - INFLATION * (high - low), high + INFLATION * (high - low)
        keep, one, image_low, image_high = test(function, low, high, inflated, who)
        for i in np.flatnonzero(one):
            # the image is narrower than the box, so that its middle is where Newton's method begins
            found[who[i]].append(np.stack([inflated[0][i], inflated[1][i], (image_low[i] + image_high[i]) / 2], -1))
        rest = keep & ~one
        # A zero in the box lies in the image of the inflated box, too.
        low, high, who = np.maximum(low, image_low)[rest], np.minimum(high, image_high)[rest], who[rest]
        small = (high - low).max(1) < SMALLEST
        for i in np.flatnonzero(small):
            reasons[who[i]].append(f"a box around ({low[i, 0]:.6g}, {low[i, 1]:.6g})")
        low, high, who = (part[~small] for part in (low, high, who))
        low, high, who = cut(low, high, who)
    return found, reasons


def cut(low: Array, high: Array, who: NDArray[np.intp]) -> tuple[Array, Array, NDArray[np.intp]]:
    """Each box in two, across its longer side."""
    axis = (high - low).argmax(1)
    row = np.arange(len(low))
    middle = low[row, axis] / 2 + high[row, axis] / 2
    left, right = high.copy(), low.copy()
    left[row, axis] = right[row, axis] = middle
    return np.concatenate([low, right]), np.concatenate([left, high]), np.concatenate([who, who])


def test(
    function: Many, low: Array, high: Array, inflated: tuple[Array, Array], who: NDArray[np.intp]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Array, Array]:
    """Which boxes may hold a zero, which inflated ones hold exactly one, and the ends of Krawczyk's image."""
    x = tuple(Interval(inflated[0][:, i], inflated[1][:, i]) for i in range(2))
    middle = tuple(Interval.point(side.middle) for side in x)
    wide, hessian = function.at((x[0], x[1]), who, (middle[0], middle[1]))
    # three tests, each of which may exclude a zero: the gradient as it is, its mean value form, Krawczyk's image
    keep = wide[0].holds(0.0) & wide[1].holds(0.0)
    at, _ = function.at((middle[0], middle[1]), who)
    away = (x[0] - middle[0], x[1] - middle[1])
    mean_value = (
        at[0] + hessian[0] * away[0] + hessian[1] * away[1],
        at[1] + hessian[1] * away[0] + hessian[2] * away[1],
    )
    keep &= mean_value[0].holds(0.0) & mean_value[1].holds(0.0)
    image = krawczyk(x, middle, at, hessian)
    inside = image[0].inside(x[0]) & image[1].inside(x[1])
    ends = np.stack([side.low for side in image], 1), np.stack([side.high for side in image], 1)
    # zeros of the inflated box are in the image: where that misses the box, a neighbour has them
    keep &= ((ends[0] <= high) & (ends[1] >= low)).all(1)
    return keep, inside & keep, *ends


def krawczyk(x: Sequence[Interval], middle: Sequence[Interval], at: Pair, hessian: tuple[Any, Any, Any]) -> Pair:
    """c - Y G(c) + (I - Y H)(x - c), Y about the inverse of the Hessian's middle; Y = 0 where that is singular."""
    a, b, d = (entry.middle for entry in hessian)
    determinant = a * d - b * b
    good = np.abs(determinant) > 1e-300
    # any Y is right, and a poor one proves less: with Y = 0 the image is the box, which decides nothing
    scale = np.where(good, 1 / np.where(good, determinant, 1.0), 0.0)
    y = tuple(Interval.point(entry * scale) for entry in (d, -b, a))
    away = (x[0] - middle[0], x[1] - middle[1])
    residue = (
        1.0 - (y[0] * hessian[0] + y[1] * hessian[1]),
        0.0 - (y[0] * hessian[1] + y[1] * hessian[2]),
        0.0 - (y[1] * hessian[0] + y[2] * hessian[1]),
        1.0 - (y[1] * hessian[1] + y[2] * hessian[2]),
    )
    return (
        middle[0] - (y[0] * at[0] + y[1] * at[1]) + residue[0] * away[0] + residue[1] * away[1],
        middle[1] - (y[1] * at[0] + y[2] * at[1]) + residue[2] * away[0] + residue[3] * away[1],
    )


class Ball(NamedTuple):
    """A zero in rigorous arithmetic: a box that holds exactly one, and the Hessian's signs there."""

    x: tuple[arb, arb]
    kind: Kind


def refine(function: Function, box: Array) -> Ball | str:
    """A tiny box with exactly one zero within a box that holds one, in rigorous arithmetic, or why there is none."""
    centre = [side[2] for side in box]
    for _ in range(60):  # Newton in floating point, only to find where to look
        gradient, hessian = function.at((arb(centre[0]), arb(centre[1])))
        (g, k), (a, b, d) = map(float, gradient), map(float, hessian)
        determinant = a * d - b * b
        if not determinant:
            return "a singular Hessian"
        step = ((d * g - b * k) / determinant, (a * k - b * g) / determinant)
        centre = [centre[0] - step[0], centre[1] - step[1]]
        if max(map(abs, step)) <= 1e-15 * (1 + max(map(abs, centre))):
            break
    # so much wider than Newton's error that the image can lie inside, so narrow that other zeros are far
    width = arb(0, 1e-12)
    x = (arb(centre[0]) + width, arb(centre[1]) + width)
    # Newton's method may have gone to another zero: that of the box is the only one inside of it
    if not all(float(side[0]) < part < float(side[1]) for side, part in zip(box, x, strict=True)):
        return f"a zero that left its box near ({centre[0]:.6g}, {centre[1]:.6g})"
    image = contracted(function, x)
    if image is None or not all(side.contains_interior(part) for side, part in zip(x, image, strict=True)):
        return f"no proof of a zero near ({centre[0]:.6g}, {centre[1]:.6g})"
    _, (a, b, d) = function.at(x)
    determinant = a * d - b * b
    # a ball is below or above 0 only as a whole: where it holds 0, neither is true, and the kind is not claimed
    if determinant < 0:
        return Ball(x, "saddle")
    if determinant > 0:
        return Ball(x, "minimum" if a + d > 0 else "maximum")
    return f"a degenerate zero near ({centre[0]:.6g}, {centre[1]:.6g})"


def contracted(function: Function, x: tuple[arb, arb]) -> tuple[arb, arb] | None:
    """Krawczyk's image of a box in rigorous arithmetic; None where the Hessian in the middle is singular."""
    centre = (x[0].mid(), x[1].mid())
    at, (a, b, d) = function.at(centre)
    determinant = (a * d - b * b).mid()
    if determinant == 0:
        return None
    # an exact Y: its error would make the image wider, and it may be any matrix
    inverse = tuple((entry / determinant).mid() for entry in (d, -b, a))
    _, h = function.at(x)
    away = (x[0] - centre[0], x[1] - centre[1])
    rows = ((inverse[0], inverse[1]), (inverse[1], inverse[2]))
    image = []
    for i, (p, q) in enumerate(rows):
        residue = (float(i == 0) - (p * h[0] + q * h[1]), float(i == 1) - (p * h[1] + q * h[2]))
        image.append(centre[i] - (p * at[0] + q * at[1]) + residue[0] * away[0] + residue[1] * away[1])
    return image[0], image[1]


def finish(
    problem: Problem, function: Function, boxes: Sequence[Array], reasons: Sequence[str], turns: int | None
) -> Count:
    """The zeros in rigorous arithmetic, each once."""
    left = list(reasons)
    balls: list[Ball] = []
    for box in boxes:
        ball = refine(function, box)
        if isinstance(ball, str):
            left.append(ball)
            continue
        place = _outside(problem, ball)
        if place == "across":
            left.append(f"a zero on the boundary near ({float(ball.x[0].mid()):.6g}, {float(ball.x[1].mid()):.6g})")
        # beyond the square only because boxes were inflated: not asked for
        if place != "inside":
            continue
        # enclosures that overlap hold one zero or two, and are counted once only if one is proved
        again = [other for other in balls if _meet(problem, ball, other)]
        if not again:
            balls.append(ball)
        elif not any(_same(function, problem, ball, other) for other in again):
            left.append(f"two zeros that may be one near ({float(ball.x[0].mid()):.6g}, {float(ball.x[1].mid()):.6g})")
    if turns is None:
        left.append("the winding number")
    zeros = tuple(
        Zero(
            (float(ball.x[0].lower()), float(ball.x[1].lower())),
            (float(ball.x[0].upper()), float(ball.x[1].upper())),
            ball.kind,
        )
        for ball in balls
    )
    return Count(zeros, tuple(left), turns)


def _outside(problem: Problem, ball: Ball) -> Literal["inside", "outside", "across"]:
    """Where a zero lies with regard to the square; the torus has no outside."""
    if problem.reach is None:
        return "inside"
    reach = arb(problem.half)
    if all(-reach < side < reach for side in ball.x):
        return "inside"
    return "outside" if any(side > reach or side < -reach for side in ball.x) else "across"


def _shift(problem: Problem, ball: Ball, other: Ball) -> tuple[arb, arb]:
    """The multiples of 2 pi that bring a ball next to another one; 0 off the torus."""
    if problem.reach is not None:
        return arb(0), arb(0)
    # the square of the torus is a little larger than one turn, so that a zero on its seam is found on both sides
    turns = [round((float(b.mid()) - float(a.mid())) / (2 * math.pi)) for a, b in zip(ball.x, other.x, strict=True)]
    return 2 * arb.pi() * turns[0], 2 * arb.pi() * turns[1]


def _meet(problem: Problem, ball: Ball, other: Ball) -> bool:
    """Whether two enclosures overlap, on the torus modulo 2 pi."""
    shift = _shift(problem, ball, other)
    return all((a + s).overlaps(b) for a, s, b in zip(ball.x, shift, other.x, strict=True))


def _same(function: Function, problem: Problem, ball: Ball, other: Ball) -> bool:
    """A proof that two overlapping enclosures hold the same zero: their hull, widened, holds exactly one."""
    shift = _shift(problem, ball, other)
    hull = tuple((a + s).union(b) + arb(0, 1e-13) for a, s, b in zip(ball.x, shift, other.x, strict=True))
    image = contracted(function, (hull[0], hull[1]))
    return image is not None and all(side.contains_interior(part) for side, part in zip(hull, image, strict=True))


def winding(function: Many, index: int, problem: Problem) -> int | None:
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
    total = 0.0
    while len(starts):
        low, high = np.minimum(starts, stops), np.maximum(starts, stops)
        who = np.full(len(low), index)
        x = (Interval(low[:, 0], high[:, 0]), Interval(low[:, 1], high[:, 1]))
        middle = (Interval.point(x[0].middle), Interval.point(x[1].middle))
        wide, hessian = function.at(x, who, middle)
        at, _ = function.at(middle, who)
        away = (x[0] - middle[0], x[1] - middle[1])
        boxes = (
            wide[0].meet(at[0] + hessian[0] * away[0] + hessian[1] * away[1]),
            wide[1].meet(at[1] + hessian[1] * away[0] + hessian[2] * away[1]),
        )
        # where one component excludes 0 the gradient stays in a half-plane, and turns by less than half a circle
        open_ = boxes[0].holds(0.0) & boxes[1].holds(0.0)
        ends = []
        for points in (starts[~open_], stops[~open_]):
            where = (Interval.point(points[:, 0]), Interval.point(points[:, 1]))
            g, _ = function.at(where, who[~open_])
            ends.append(np.arctan2(g[1].middle, g[0].middle))
        turn = ends[1] - ends[0]
        # of all angles that the ends allow, the one that is less than half a circle
        total += float((turn - 2 * math.pi * np.round(turn / (2 * math.pi))).sum())
        starts, stops = starts[open_], stops[open_]
        if len(starts) and np.abs(stops - starts).max() < SMALLEST:
            return None
        middles = starts / 2 + stops / 2
        starts, stops = np.concatenate([starts, middles]), np.concatenate([middles, stops])
    return round(total / (2 * math.pi))


def _gathered(balls: Sequence[arb]) -> Interval:
    """One interval of float64 around each ball."""
    low = np.array([float(ball.lower()) for ball in balls])
    high = np.array([float(ball.upper()) for ball in balls])
    return Interval.around(low, high)
