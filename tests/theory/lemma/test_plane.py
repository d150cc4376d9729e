"""Certified counts in the plane: derivatives against autograd, zeros against a root search, mistakes, degeneracies."""

from __future__ import annotations

import math
import random
from fractions import Fraction as Q

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sharp_maml import meta_gradient, meta_loss
from synthetic import Tanh, Torus
from theory.lemma.claims.torus import MISTAKES, changed
from theory.lemma.field import Problem, field, number
from theory.lemma.plane import Count, Zero, stationary

torch_double = {"dtype": torch.float64}


def torus(seed: int, tasks: int = 1) -> Torus:
    return Torus.random(random.Random(seed), tasks=tasks)


def neuron(seed: int, tasks: int = 1) -> Tanh:
    return Tanh.random(random.Random(seed), tasks=tasks, samples=4, ridge=Q(1, 64))


def gradient(family: Torus | Tanh, beta: Q, x) -> np.ndarray:
    """The core's, at a point or, point by point, at `S x 2` of them."""

    def at(x: torch.Tensor) -> torch.Tensor:
        return meta_gradient(family.loss, {"x": x}, family.episodes, beta_low=float(beta)).grad["x"]

    x = torch.tensor(np.asarray(x), **torch_double)
    return (at if x.dim() == 1 else torch.vmap(at))(x).numpy()


def by_search(problem: Problem, starts: int = 600) -> list[np.ndarray]:
    """Zeros that Levenberg's and Marquardt's method finds from random starts, each once; on the torus, modulo 2 pi.

    Its Jacobians are central differences of the core's gradient.
    """
    x = np.random.default_rng(0).uniform(-problem.half, problem.half, (starts, 2))
    h, damping = 1e-5 * np.eye(2), np.full(starts, 1.0)
    for _ in range(100):
        around = np.concatenate([x, *(x + e for e in h), *(x - e for e in h)])
        value, *moved = np.split(gradient(problem.family, Q(problem.beta), around), 5)
        jacobian = np.stack([(moved[i] - moved[i + 2]) / 2e-5 for i in range(2)], -1)
        normal = jacobian.mT @ jacobian + damping[:, None, None] * np.eye(2)
        tried = x - np.linalg.solve(normal, jacobian.mT @ value[..., None])[..., 0]
        after = gradient(problem.family, Q(problem.beta), tried)
        is_better = np.linalg.norm(after, axis=-1) < np.linalg.norm(value, axis=-1)
        x = np.where(is_better[:, None], tried, x)
        damping *= np.where(is_better, 0.2, 4)
    found: list[np.ndarray] = []
    for point in x[np.abs(gradient(problem.family, Q(problem.beta), x)).max(-1) <= 1e-9]:
        if problem.reach is None:
            point = (point + math.pi) % (2 * math.pi) - math.pi
        elif np.abs(point).max() > problem.half:
            continue
        away = [point - other for other in found]
        if problem.reach is None:
            away = [(a + math.pi) % (2 * math.pi) - math.pi for a in away]
        if all(np.abs(a).max() > 1e-5 for a in away):
            found.append(point)
    return found


@pytest.mark.parametrize(
    "family",
    [torus(0, 2), torus(3), neuron(0, 2), neuron(3)],
    ids=["torus, two tasks", "torus", "neuron, two tasks", "neuron"],
)
@settings(deadline=None, max_examples=25)
@given(x=st.tuples(st.floats(-4, 4), st.floats(-4, 4)), beta=st.fractions(0, 1, max_denominator=16))
def test_gradient_and_hessian_are_those_of_the_core(family, x, beta) -> None:
    problem = Problem(family, beta, None if isinstance(family, Torus) else 12)
    (g1, g2), (a, b, d) = field(problem).with_hessian(tuple(number(Q(value)) for value in x))
    at = torch.tensor(x, **torch_double)
    loss = lambda v: meta_loss(family.loss, {"x": v}, family.episodes, beta_low=float(beta))  # noqa: E731
    expected = family.tasks * torch.autograd.functional.hessian(loss, at)
    scale = 1 + float(expected.abs().max())
    np.testing.assert_allclose([float(g1), float(g2)], family.tasks * gradient(family, beta, x), atol=1e-11 * scale)
    found = np.array([[float(a), float(b)], [float(b), float(d)]])
    np.testing.assert_allclose(found, expected, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(torus(1), Q(0)),
        Problem(torus(1), Q(1, 4)),
        Problem(torus(4, 2), Q(1, 8)),
        Problem(neuron(2), Q(0), 12),
        Problem(neuron(2, 2), Q(1, 16), 12),
    ],
    ids=["torus, ERM", "torus, MAML", "torus, two tasks", "neuron, ERM", "neuron, two tasks"],
)
def test_a_root_search_finds_the_same_points_and_the_core_vanishes_there(problem) -> None:
    (count,) = stationary([problem])
    assert count.certified
    found = by_search(problem, starts=150)
    assert len(found) == count.number()
    for zero in count.zeros:
        x = np.array(zero.value)
        assert np.abs(gradient(problem.family, Q(problem.beta), x)).max() < 1e-10
        away = [x - other for other in found]
        if problem.reach is None:
            away = [(a + math.pi) % (2 * math.pi) - math.pi for a in away]
        assert min(np.abs(a).max() for a in away) < 1e-6
        assert all(high - low < 1e-11 for low, high in zip(zero.low, zero.high, strict=True))


def test_one_sample_on_the_torus_in_closed_form() -> None:
    """(sin x1 + sin(x2)/2 - y)^2 with y = 0 is zero on a curve: never certified. With y = 2 it has four points.

    Stationary where the residual vanishes, which it does not for y = 2, or cos x1 = cos x2 = 0: one maximum (both sines
    -1), one minimum (both 1), two saddles.
    """
    (count,) = stationary([Problem(Torus([[(0, 2)]]), 0)])
    assert count.certified
    assert {kind: count.number(kind) for kind in ("minimum", "saddle", "maximum")} == {
        "minimum": 1,
        "saddle": 2,
        "maximum": 1,
    }
    for zero in count.zeros:
        assert all(math.cos(side) == pytest.approx(0, abs=1e-10) for side in zero.value)
    minimum = next(zero for zero in count.zeros if zero.kind == "minimum")
    assert [math.sin(side) for side in minimum.value] == pytest.approx([1, 1])


@settings(deadline=None, max_examples=8)
@given(st.integers(-8, 8), st.integers(-8, 8))
@example(4, 0)  # x1 at the seam
def test_points_on_the_seam_are_counted_once(i, j) -> None:
    """Shifting t moves x1 by the shift and x2 by twice it; some shifts put points at pi, others on corners of boxes."""
    shift = Q(i) * Q(884279719003555, 281474976710656) / 8 + Q(j, 16)  # i times the float of pi, over 8
    (count,) = stationary([Problem(Torus([[(shift, 2)]]), 0)])
    assert count.certified
    assert count.number() == 4


@pytest.mark.parametrize("change", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize(
    "problem", [Problem(torus(1), Q(1, 8)), Problem(neuron(2), Q(1, 16), 12)], ids=["torus", "neuron"]
)
def test_a_wrong_count_is_noticed(problem, change) -> None:
    (count,) = stationary([problem])
    assert count.certified
    assert not changed(count, change).certified


def test_a_curve_of_zeros_is_never_certified(monkeypatch) -> None:
    monkeypatch.setattr("theory.lemma.boxes.MOST", 3000)
    curve, plain = stationary([Problem(Torus([[(0, 0)]]), 0), Problem(Torus([[(0, 2)]]), 0)])
    assert not curve.certified
    assert curve.undetermined
    assert plain.certified  # the others go on


def test_a_constant_function_is_never_certified(monkeypatch) -> None:
    """b = 0 and one sample with y = 0: sin^2 x1 does not depend on x2."""
    monkeypatch.setattr("theory.lemma.boxes.MOST", 3000)
    (count,) = stationary([Problem(Torus([[(0, 0)]], second=0), 0)])
    assert "more than 3000 boxes at a time" in count.undetermined


def test_a_degenerate_zero_is_undetermined(monkeypatch) -> None:
    """sin x1 + sin(x2)/2 - y with y = 3/2: the residual vanishes to second order where both sines are 1."""
    monkeypatch.setattr("theory.lemma.boxes.SMALLEST", 1e-4)
    (count,) = stationary([Problem(Torus([[(0, Q(3, 2))]]), 0)])
    assert not count.certified
    assert any("1.57" in reason for reason in count.undetermined)


def test_the_winding_number_is_that_of_a_fine_polygon() -> None:
    for seed, tasks in ((2, 1), (5, 2)):
        problem = Problem(neuron(seed, tasks), Q(1, 16), 12)
        (count,) = stationary([problem])
        side = np.linspace(-12, 12, 400)
        path = np.concatenate(
            [
                np.stack([side, 0 * side - 12], 1),
                np.stack([0 * side + 12, side], 1),
                np.stack([-side, 0 * side + 12], 1),
                np.stack([0 * side - 12, -side], 1),
            ]
        )
        angles = np.unwrap(np.arctan2(*gradient(problem.family, Q(1, 16), path).T[::-1]))
        assert count.winding == round((angles[-1] - angles[0]) / (2 * math.pi))


def test_a_zero_on_the_boundary_is_undetermined() -> None:
    """y = 0 makes 0 a minimum; a square of half side 0 is nothing, one whose side passes through it is undecided."""
    family = Tanh([[(1, 0), (-1, 0)]])
    (whole,) = stationary([Problem(family, 0, 2)])
    assert (whole.certified, whole.number("minimum")) == (True, 1)
    moved = Tanh([[(0, Q(3, 4)), (1, Q(3, 4)), (-1, Q(3, 4))]], ridge=Q(1, 64))
    (count,) = stationary([Problem(moved, 0, 4)])
    minimum = next(zero for zero in count.zeros if zero.kind == "minimum")
    edge = Q(max(map(abs, minimum.value)))
    (cut,) = stationary([Problem(moved, 0, edge)])
    assert not cut.certified


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Problem(torus(0), Q(-1)), "beta must be an integer or a Fraction >= 0, got Fraction"),
        (lambda: Problem(torus(0), 0.5), "beta must be an integer or a Fraction >= 0, got 0.5"),
        (lambda: Problem(torus(0), 0, 3), "a torus is searched as a whole"),
        (lambda: Problem(neuron(0), 0), "give its reach"),
        (lambda: stationary([Problem(torus(0), 0), Problem(torus(0, 2), 0)]), "the same family and numbers of tasks"),
    ],
)
def test_input_without_meaning_is_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_to_count_is_no_count() -> None:
    assert stationary([]) == []


def test_a_count_is_certified_only_with_its_winding_number() -> None:
    zero = Zero((0.0, 0.0), (0.0, 0.0), "minimum")
    assert Count((zero,), (), 1).certified
    assert not Count((zero,), ("open",), 1).certified
    assert not Count((zero,), (), None).certified
    assert Count((zero,), (), 1).zeros[0].value == (0.0, 0.0)
