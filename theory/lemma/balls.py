"""Zeros of the gradient in rigorous balls: what a box of floats promised is proved here, or said to be open.

Nothing that a count rests on is decided in floating point. Newton's method finds where to look; Krawczyk's operator in
Arb's arithmetic proves that a box of width 1e-12 there holds exactly one zero; the signs of the Hessian over that box
are its kind. Two boxes of one zero, as neighbouring boxes of the search leave them, are told from two zeros by proof,
too. Read next: `plane.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from flint import arb

from theory.lemma.field import Field, Pair, Problem, Triple
from theory.lemma.intervals import Array

Kind = Literal["minimum", "saddle", "maximum"]
BITS = 128
"""Precision of the balls."""


class Ball(NamedTuple):
    """A box that holds exactly one zero, and the kind of stationary point that the Hessian's signs make it."""

    x: Pair[arb]
    kind: Kind


def distinct(problem: Problem, field: Field[arb], boxes: Sequence[Array]) -> tuple[list[Ball], list[str]]:
    """The zeros in boxes that hold one each, every zero once, and what is left open about them."""
    balls: list[Ball] = []
    reasons: list[str] = []
    for box in boxes:
        ball = refined(field, box)
        if isinstance(ball, str):
            reasons.append(ball)
            continue
        place, near = _place(problem, ball), f"({float(ball.x[0].mid()):.6g}, {float(ball.x[1].mid()):.6g})"
        if place == "across":
            reasons.append(f"a zero on the boundary near {near}")
        # Beyond the square only because boxes were inflated: not asked for.
        if place != "inside":
            continue
        # Enclosures that overlap hold one zero or two, and are counted once only if one is proved.
        again = [other for other in balls if _meet(problem, ball, other)]
        if not again:
            balls.append(ball)
        elif not any(_is_same(field, problem, ball, other) for other in again):
            reasons.append(f"two zeros that may be one near {near}")
    return balls, reasons


def refined(field: Field[arb], box: Array) -> Ball | str:
    """A tiny box with exactly one zero within a box of floats that holds one, or why there is none."""
    centre = _newton(field, (box[0][2], box[1][2]))
    if centre is None:
        return "a singular Hessian"
    near = f"near ({centre[0]:.6g}, {centre[1]:.6g})"
    # So much wider than Newton's error that the image can lie inside, so narrow that other zeros are far.
    width = arb(0, 1e-12)
    x = (arb(centre[0]) + width, arb(centre[1]) + width)
    # Newton's method may have gone to another zero: that of the box is the only one inside of it.
    if not all(float(side[0]) < part < float(side[1]) for side, part in zip(box, x, strict=True)):
        return f"a zero that left its box {near}"
    _, hessian = field.with_hessian(x)
    if not _is_contracted(field, x, hessian):
        return f"no proof of a zero {near}"
    a, b, d = hessian
    determinant = a * d - b * b
    # A ball is below or above 0 only as a whole: where it holds 0, neither is true, and the kind is not claimed.
    if determinant < 0:
        return Ball(x, "saddle")
    if determinant > 0:
        return Ball(x, "minimum" if a + d > 0 else "maximum")
    return f"a degenerate zero {near}"


def _newton(field: Field[arb], start: tuple[float, float]) -> tuple[float, float] | None:
    """Newton's method in floating point, which only finds where to look; None at a singular Hessian."""
    x, y = start
    for _ in range(60):
        gradient, hessian = field.with_hessian((arb(x), arb(y)))
        (g, k), (a, b, d) = map(float, gradient), map(float, hessian)
        determinant = a * d - b * b
        if not determinant:
            return None
        step = ((d * g - b * k) / determinant, (a * k - b * g) / determinant)
        x, y = x - step[0], y - step[1]
        if max(map(abs, step)) <= 1e-15 * (1 + max(abs(x), abs(y))):
            break
    return x, y


def _is_contracted(field: Field[arb], x: Pair[arb], hessian: Triple[arb]) -> bool:
    """Whether Krawczyk's operator maps a box into its interior, so that it holds exactly one zero.

    It is not where the Hessian in the middle is singular. The Hessian over the box is given.
    """
    centre = (x[0].mid(), x[1].mid())
    at, (a, b, d) = field.with_hessian(centre)
    determinant = (a * d - b * b).mid()
    if determinant == 0:
        return False
    # An exact Y: its error would make the image wider, and it may be any matrix.
    inverse = tuple((entry / determinant).mid() for entry in (d, -b, a))
    away = (x[0] - centre[0], x[1] - centre[1])
    rows = ((inverse[0], inverse[1]), (inverse[1], inverse[2]))
    for i, (p, q) in enumerate(rows):
        residue = (
            float(i == 0) - (p * hessian[0] + q * hessian[1]),
            float(i == 1) - (p * hessian[1] + q * hessian[2]),
        )
        image = centre[i] - (p * at[0] + q * at[1]) + residue[0] * away[0] + residue[1] * away[1]
        if not x[i].contains_interior(image):
            return False
    return True


def _place(problem: Problem, ball: Ball) -> Literal["inside", "outside", "across"]:
    """Where a zero lies with regard to the square; the torus has no outside."""
    if problem.reach is None:
        return "inside"
    reach = arb(problem.half)
    if all(-reach < side < reach for side in ball.x):
        return "inside"
    return "outside" if any(side > reach or side < -reach for side in ball.x) else "across"


def _shift(problem: Problem, ball: Ball, other: Ball) -> Pair[arb]:
    """The multiples of 2 pi that bring a ball next to another one; 0 off the torus."""
    if problem.reach is not None:
        return arb(0), arb(0)
    # The square of the torus is a little larger than one turn, so that a zero on its seam is found on both sides.
    turns = [round((float(b.mid()) - float(a.mid())) / (2 * math.pi)) for a, b in zip(ball.x, other.x, strict=True)]
    return 2 * arb.pi() * turns[0], 2 * arb.pi() * turns[1]


def _meet(problem: Problem, ball: Ball, other: Ball) -> bool:
    """Whether two enclosures overlap, on the torus modulo 2 pi."""
    shift = _shift(problem, ball, other)
    return all((a + s).overlaps(b) for a, s, b in zip(ball.x, shift, other.x, strict=True))


def _is_same(field: Field[arb], problem: Problem, ball: Ball, other: Ball) -> bool:
    """A proof that two overlapping enclosures hold the same zero: their hull, widened, holds exactly one."""
    shift = _shift(problem, ball, other)
    first, second = ((a + s).union(b) + arb(0, 1e-13) for a, s, b in zip(ball.x, shift, other.x, strict=True))
    hull = (first, second)
    return _is_contracted(field, hull, field.with_hessian(hull)[1])
