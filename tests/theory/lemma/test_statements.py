"""Each statement of the lemma's claims on losses of a wider class than the claims draw.

Weights of either sign, weight decay, with which the inner step may be bounded, quartics and parabolas, all counted
exactly; and piecewise quadratic losses, which have flat pieces, evaluated exactly. What is stated of one family, on the
torus or in a square, is left to its claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction as Q
from itertools import pairwise

import pytest
import torch
from flint import arb, fmpq_poly
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sharp_maml import Batch, Episode, meta_gradient
from synthetic import ExactFamily, PolynomialRegression, Rational
from theory.lemma.claims import descent, fold, morse, single
from theory.lemma.claims import small_step as small
from theory.lemma.claims.counterexamples import exponential
from theory.lemma.line import (
    Quotient,
    X,
    balance,
    erm_slope,
    inner_steps,
    is_root,
    maml_slope,
    signs,
    stationary_points,
)
from theory.lemma.setting import CASES, Instance, counted, counted_case, own_minima

TARGETS = st.integers(-24, 24).map(lambda i: Q(i, 8))
WEIGHTS = st.integers(-9, 9).filter(bool).map(lambda i: Q(i, 4))
STEPS = st.sampled_from([Q(1, 8), Q(1, 2), Q(3, 4), Q(1), Q(2), Q(4)])
COEFFICIENTS = st.integers(-4, 4).map(lambda i: Q(i, 2))
ONE = Quotient.of(fmpq_poly([1]))
WIDE = settings(deadline=None, max_examples=40)


def lists(of: st.SearchStrategy, least: int, most: int) -> st.SearchStrategy:
    return st.lists(of, min_size=least, max_size=most)


@st.composite
def families(draw: st.DrawFn, tasks: int = 1) -> ExactFamily:
    if draw(st.booleans()):
        task = lists(st.tuples(WEIGHTS, TARGETS), 1, 1)
        return Rational(draw(lists(task, tasks, tasks)), decay=draw(st.sampled_from([Q(0), Q(1, 2), Q(1), Q(2)])))
    task = lists(st.tuples(COEFFICIENTS, COEFFICIENTS, COEFFICIENTS), 1, 2)
    return PolynomialRegression(draw(lists(task, tasks, tasks)))


@st.composite
def cases(draw: st.DrawFn, tasks: int = 1) -> Instance:
    """Tasks and a step, often the one at which the inner step is bounded."""
    family, step = draw(families(tasks)), draw(STEPS)
    if isinstance(family, Rational) and family.decay and draw(st.booleans()):
        step = 1 / Q(family.decay)
    # a constant function has no number of stationary points
    assume(all(slope.numerator.degree() >= 0 for slope in (erm_slope(family), maml_slope(family, step))))
    return counted(family, step)


def covers(case: Instance) -> bool:
    return fold.covers(inner_steps(case.family, case.beta)[0])


@WIDE
@given(cases())
@example(counted_case("C7"))
@example(counted_case("C8"))
def test_one_task_keeps_all_and_has_no_others_where_the_inner_step_increases(case: Instance) -> None:
    assert single.keeps_points(case)
    assert single.keeps_extrema(case)
    assert single.at_least_as_many(case)
    assert single.equal(case) or not single.preserves(case)


@WIDE
@given(cases())
@example(counted_case("C7"))
@example(counted_case("C8"))
@example(counted(CASES["C7"].family, Q(9, 8)))
def test_one_task_has_more_where_the_inner_step_folds_the_line_and_covers_it(case: Instance) -> None:
    folds = fold.folds(case.family, case.beta)
    if folds is False or (folds and covers(case)):
        assert fold.as_stated(case, folds)


def test_a_fold_that_does_not_cover_the_line_is_not_enough() -> None:
    c7 = counted_case("C7")
    assert fold.folds(c7.family, c7.beta)
    assert not covers(c7)
    assert not fold.as_stated(c7, True)


@WIDE
@given(cases(tasks=2))
def test_minima_are_one_more_than_maxima(case: Instance) -> None:
    tasks = inner_steps(case.family, case.beta)
    assume(all(task.slope.numerator.degree() >= 0 for task in tasks))
    if all(balance(stationary_points(task.slope)) == 1 and fold.covers(task) for task in tasks):
        assert balance(case.erm) == balance(case.maml) == 1


def test_minima_are_one_more_only_where_the_inner_steps_cover_the_line() -> None:
    (family, *_) = morse.decaying(1, 0)
    assert balance(counted(family, Q(1)).erm) == 1
    assert balance(counted(family, Q(1)).maml) != 1
    assert balance(counted(family, Q(9, 8)).maml) == 1


@WIDE
@given(families(), families(), STEPS, TARGETS)
def test_what_two_tasks_share_stays(one: ExactFamily, other: ExactFamily, step: Q, at: Q) -> None:
    """A linear function makes the losses stationary at a point."""
    slopes = [inner_steps(family, step)[0].slope for family in (one, other)]
    slopes = [slope - ONE * slope.at(at) for slope in slopes]
    inner = [X - slope * step for slope in slopes]
    first, second = (slope(t) * t.derivative() for slope, t in zip(slopes, inner, strict=True))
    assert is_root(first + second, at)


@WIDE
@given(families(tasks=2), st.sampled_from([Q(1, 4), Q(1, 2), Q(1), Q(2), Q(5, 2)]))
def test_maml_lies_below_erm(family: ExactFamily, ratio: Q) -> None:
    try:
        bound = family.L1
    except ValueError:
        return
    if bound:
        assert -1 not in signs(descent.gap(family, ratio / bound, 1 - ratio / 2))


@settings(deadline=None, max_examples=15)
@given(families(tasks=2))
def test_a_small_step_changes_no_count(family: ExactFamily) -> None:
    slope = erm_slope(family)
    assume(slope.numerator.degree() >= 1 and small.nondegenerate(family) and stationary_points(slope))
    assume(all(maml_slope(family, Q(1, 2**k)).numerator.degree() >= 0 for k in range(8)))
    assert small.halvings(family, 1) is not None


def test_c6_is_as_its_proof_says() -> None:
    """Balls on boxes that cover [-30, -1/16] and [1/16, 3], and the core's own gradient."""
    assert exponential() == (1, 1, True, True)
    assert exponential(Q(9, 8)).maml == exponential(Q(7, 8)).maml == 3

    def slope(x: arb) -> arb:
        return ((x - x.expm1()).expm1()) * (-x.expm1())

    for low, high, sign in ((-30, -1, -1), (-1, Q(-1, 16), -1), (Q(1, 16), 1, 1), (1, 3, 1)):
        edges = [low + (high - low) * Q(i, 4096) for i in range(4097)]
        for left, right in pairwise(edges):
            box = arb(float((left + right) / 2), float((right - left) / 2))
            assert slope(box) * sign > 0
    data = Batch(torch.zeros(1), torch.zeros(1))
    for x in (-3.0, -0.5, 0.0, 0.25, 1.5):
        at = {"x": torch.tensor(x, dtype=torch.float64)}
        found = meta_gradient(lambda p, _: p["x"].exp() - p["x"] - 1, at, [Episode(data, data)], beta_low=1.0)
        assert float(found.grad["x"]) == pytest.approx(float(slope(arb(x)).mid()), rel=1e-12, abs=1e-15)


def test_c8_has_a_minimum_that_no_step_of_erm_knows() -> None:
    case = counted_case("C8")
    assert [point.kind for point in case.erm] == ["minimum"]
    assert own_minima(case) == 1
    worst = max(float(fold_value(case, point.low)) for point in case.maml if point.kind == "minimum")
    assert worst > 1.5 * float(fold_value(case, case.erm[0].low))


def fold_value(case: Instance, x: Q) -> Q:
    (task,) = inner_steps(case.family, case.beta)
    return task.loss.at(task.inner.at(x))


class Piecewise:
    """A loss whose derivative is piecewise linear and continuous, in exact numbers: flat where it is 0 on a piece."""

    def __init__(self, knots: Sequence[Q], slopes: Sequence[Q]) -> None:
        self.knots, self.slopes = knots, slopes

    def slope(self, x: Q) -> Q:
        knots, slopes = self.knots, self.slopes
        i = min(max(sum(knot <= x for knot in knots) - 1, 0), len(knots) - 2)
        steep = (slopes[i + 1] - slopes[i]) / (knots[i + 1] - knots[i])
        return slopes[i] + steep * (x - knots[i])

    def loss(self, x: Q) -> Q:
        """The integral from the first knot, by trapezoids, which are exact between knots."""
        edges = sorted({self.knots[0], x, *(knot for knot in self.knots if min(x, self.knots[0]) < knot < x)})
        area = sum(((b - a) * (self.slope(a) + self.slope(b)) / 2 for a, b in pairwise(edges)), Q(0))
        return area if x >= self.knots[0] else -area


@st.composite
def piecewise(draw: st.DrawFn) -> Piecewise:
    slopes = draw(lists(st.integers(-2, 2).map(Q), 3, 7))
    knots = sorted(draw(st.sets(st.integers(-8, 8), min_size=len(slopes), max_size=len(slopes))))
    return Piecewise([Q(k, 2) for k in knots], slopes)


def is_minimizer(loss, x: Q) -> bool:
    """Whether a piecewise quadratic function is not smaller at points much nearer than any of its pieces ends."""
    return all(loss(x) <= loss(x + side * Q(1, 2**k)) for k in (20, 24, 28) for side in (1, -1))


@settings(deadline=None, max_examples=60)
@given(piecewise(), piecewise(), STEPS)
@example(Piecewise([Q(-1), Q(0), Q(1), Q(2)], [Q(-1), Q(0), Q(0), Q(1)]), Piecewise([Q(0), Q(1)], [Q(0), Q(1)]), Q(1))
def test_minimizers_and_flat_pieces_are_kept(one: Piecewise, other: Piecewise, step: Q) -> None:
    def maml(of: Piecewise, x: Q) -> Q:
        return of.loss(x - step * of.slope(x))

    shared = [x for x in {*one.knots, *other.knots} if is_minimizer(one.loss, x)]
    for x in shared:
        assert is_minimizer(lambda y: maml(one, y), x)
        if is_minimizer(other.loss, x):
            assert is_minimizer(lambda y: maml(one, y) + maml(other, y), x)
    for left, right in pairwise(one.knots):
        if one.slope(left) == one.slope(right) == 0:
            middle = (left + right) / 2
            assert maml(one, middle) == one.loss(middle) == one.loss(left)
