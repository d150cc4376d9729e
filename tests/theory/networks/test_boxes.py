"""Certified counts against derivatives that the core's meta-loss gives, and against tasks whose points are known."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction as Q

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharp_maml import meta_loss
from theory.lemma.intervals import Interval
from theory.networks import boxes
from theory.networks.boxes import Gradients, Problem, index, stationary
from theory.networks.neurons import SHAPES, Neurons, Sample, Shape
from theory.networks.search import found_in


def objective(problem: Problem):
    tasks = problem.tasks
    return lambda x: (
        meta_loss(tasks.loss, {"x": x}, tasks.episodes, beta_low=problem.beta) + float(tasks.decay) * x.square().sum()
    )


def hessian(value):
    """Backward over backward: forward mode would import what is deprecated."""
    return torch.func.jacrev(torch.func.grad(value))


def drawn(shape: Shape, seed: int, ratio: Q, *, tasks: int = 2, shared: bool = False) -> Problem:
    found = shape.draw(random.Random(seed), tasks=tasks, samples=2, shared=shared)
    return Problem(found, float(ratio / found.L1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("ratio", [Q(0), Q(1, 2), Q(4)])
def test_boxes_hold_gradient_and_hessian_of_the_core(shape: Shape, ratio: Q) -> None:
    problem = drawn(shape, 1, ratio)
    value, generator = objective(problem), np.random.default_rng(0)
    for width in (0.0, 1e-3, 0.5):
        low = generator.normal(size=(shape.dim, 4)) * 2
        box = Interval(low, low + width)
        gradient, bend = Gradients([problem]).at(box, np.zeros(4, int), Interval.point(box.middle))
        for i in range(4):
            x = torch.tensor(generator.uniform(box.low[:, i], box.high[:, i] + 1e-300))
            decay = 2 * float(problem.tasks.decay)
            g = torch.func.grad(value)(x).numpy() - decay * x.numpy()
            h = hessian(value)(x).numpy() - decay * np.eye(shape.dim)
            room = 1e-12  # of the core's float64
            assert np.all(gradient.low[:, i] - room <= g)
            assert np.all(g <= gradient.high[:, i] + room)
            assert np.all(bend.low[..., i] - room <= h)
            assert np.all(h <= bend.high[..., i] + room)
            assert width or np.max(gradient.width[:, i]) < 1e-12


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([Q(0), Q(1, 2), Q(2)]))
def test_every_point_that_a_search_finds_is_in_a_certified_box(seed: int, ratio: Q) -> None:
    problem = drawn(SHAPES[1], seed, ratio)
    (count,), (found,) = stationary([problem]), found_in([problem], starts=16, seed=0)
    assert count.certified or count.undetermined
    if not count.undetermined:
        assert len(found.points) <= len(count.zeros)
        for point in found.points:
            assert any(
                np.all(np.array(zero.low) - 1e-7 <= point) and np.all(point <= np.array(zero.high) + 1e-7)
                for zero in count.zeros
            )


def test_a_box_holds_a_zero_of_the_core_with_the_index_of_its_hessian() -> None:
    problem = drawn(SHAPES[1], 3, Q(2))
    (count,) = stationary([problem])
    assert count.certified
    for zero in count.zeros:
        x = torch.tensor(np.add(zero.low, zero.high) / 2)
        assert torch.func.grad(objective(problem))(x).norm() < 1e-10
        assert int((torch.linalg.eigvalsh(hessian(objective(problem))(x)) < 0).sum()) == zero.index


def test_one_point_is_where_it_is_known_to_be() -> None:
    """tanh(x_1 t) with the targets 1/2 and -1/2 at the inputs 1 and -1: (tanh x_1 - 1/2)^2 + |x|^2 / 16."""
    up = tuple(Sample(((Q(t), Q(0)),), Q(t, 2)) for t in (1, -1))
    (count,) = stationary([Problem(Neurons((Q(1),), (up,), (up,), Q(1, 16)), 0.0)])
    assert [zero.index for zero in count.zeros] == [0]
    x = np.linspace(0, 1, 200001)
    slope = 2 * (np.tanh(x) - 0.5) * (1 - np.tanh(x) ** 2) + x / 8
    root = x[np.argmax(slope > 0)]
    assert count.zeros[0].low[0] == pytest.approx(root, abs=1e-5)
    assert count.zeros[0].low[1] == pytest.approx(0, abs=1e-9)


def test_too_many_boxes_and_a_degenerate_point_are_named_and_not_counted(monkeypatch) -> None:
    problem = drawn(SHAPES[0], 1, Q(2))
    monkeypatch.setattr(boxes, "MOST", 50)
    (count,) = stationary([problem])
    assert not count.certified
    assert "boxes after 50" in count.undetermined[0]
    flat = Interval(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    assert index(Gradients([problem]), flat, 0) is None


def test_a_lost_point_and_a_wrong_index_are_noticed() -> None:
    (count,) = stationary([drawn(SHAPES[1], 3, Q(0))])
    assert count.certified
    assert not boxes.Count(count.zeros[:-1], (), 1).certified
    wrong = (*count.zeros[:-1], replace(count.zeros[-1], index=1 + (count.zeros[-1].index or 0)))
    assert not boxes.Count(wrong, (), 1).certified


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_bounds_hold_at_random_points(shape: Shape) -> None:
    problem = drawn(shape, 2, Q(2), shared=True)
    tasks = problem.tasks
    x = 3 * torch.randn(200, shape.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for episode in tasks.episodes:
        hessians = torch.func.vmap(hessian(lambda x, e=episode: tasks.loss({"x": x}, e.support)))(x)
        assert float(torch.linalg.eigvalsh(hessians).abs().max()) <= float(tasks.L1)
    away = torch.nn.functional.normalize(x) * tasks.reach(Q(problem.beta)) * shape.dim**0.5
    radial = (torch.func.vmap(torch.func.grad(objective(problem)))(away) * away).sum(-1)
    assert bool((radial > 0).all())


def test_bad_tasks_are_refused() -> None:
    sample = ((Sample(((Q(1), Q(0)),), Q(1)),),)
    with pytest.raises(ValueError, match="decay must be positive"):
        Neurons((Q(1),), sample, sample, Q(0))
    with pytest.raises(ValueError, match="got 1 and 0 tasks"):
        Neurons((Q(1),), sample, (), Q(1))
    with pytest.raises(ValueError, match="all MAML or all ERM of one network"):
        stationary([drawn(SHAPES[0], 1, Q(0)), drawn(SHAPES[0], 1, Q(1))])
