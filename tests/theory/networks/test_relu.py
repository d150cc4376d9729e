"""The enumeration of Clarke points against derivatives of the core, and against descents that know nothing of it."""

from __future__ import annotations

import random
from fractions import Fraction as Q

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from sharp_maml import Batch, Episode, meta_loss
from theory.networks.relu import ReLU, _surrounded, clarke


def objective(tasks: ReLU, beta: Q):
    def half(samples) -> Batch:
        t, y = (torch.tensor([float(sample[i]) for sample in samples], dtype=torch.float64) for i in range(2))
        return Batch(t, y)

    def loss(params, batch: Batch):
        x = params["x"]
        return ((x[0] * batch.inputs + x[1]).relu() - batch.targets).square().mean()

    episodes = [Episode(half(s), half(q)) for s, q in zip(tasks.support, tasks.query, strict=True)]
    return lambda x: meta_loss(loss, {"x": x}, episodes, beta_low=float(beta)) + float(tasks.decay) * x.square().sum()


def plain(tasks: ReLU, beta: float):
    """F in floats and one line at a time, for many evaluations."""
    halves = [np.array([[float(t), 1.0, float(y)] for half in task for t, y in half]) for task in
              zip(tasks.support, tasks.query, strict=True)]  # fmt: skip
    n = len(tasks.support[0])

    def value(x) -> float:
        total = 0.0
        for samples in halves:
            a, y = samples[:n, :2], samples[:n, 2]
            inner = x - beta * 2 / n * (((a @ x).clip(0) - y) * (a @ x > 0)) @ a
            a, y = samples[n:, :2], samples[n:, 2]
            total += float(np.mean(((a @ inner).clip(0) - y) ** 2)) / len(halves)
        return total + float(tasks.decay) * float(x @ x)

    return value


CASES = [(M, shared, ratio) for M in (1, 2) for shared in (True, False) for ratio in (Q(0), Q(1, 2), Q(3))]


@pytest.mark.parametrize(("M", "shared", "ratio"), CASES)
def test_0_is_among_or_between_the_gradients_around_a_point(M: int, shared: bool, ratio: Q) -> None:
    for i in range(5):
        tasks = ReLU.random(random.Random(i), tasks=M, shared=shared)
        value = objective(tasks, ratio / tasks.L1)
        for point in clarke(tasks, ratio / tasks.L1):
            x = np.array([float(c) for c in point.x])
            angles = 2 * np.pi * (np.arange(720) + 0.37) / 720
            around = torch.tensor(x + 1e-7 * np.stack([np.cos(angles), np.sin(angles)], 1))
            gradients = torch.func.vmap(torch.func.grad(value))(around).numpy()
            # 0 is a convex combination of the gradients around
            _, distance = nnls(np.vstack([gradients.T, np.ones(720)]), np.array([0.0, 0.0, 1.0]))
            assert distance < 1e-5  # curvature times the distance from the point
            if point.kind == "smooth":
                assert np.abs(gradients).max() < 1e-5


@pytest.mark.parametrize(("M", "shared", "ratio"), CASES)
def test_descents_end_at_enumerated_points_or_at_a_jump(M: int, shared: bool, ratio: Q) -> None:
    ended = 0
    for i in range(3):
        tasks = ReLU.random(random.Random(i), tasks=M, shared=shared)
        beta = ratio / tasks.L1
        value, known = plain(tasks, float(beta)), np.array([[float(c) for c in p.x] for p in clarke(tasks, beta)])
        generator = np.random.default_rng(i)
        for found in generator.normal(size=(4, 2)) * 2:
            for _ in range(6):  # a simplex may collapse beside a kink, and is made anew
                found = minimize(value, found, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x
            jumps = [abs(found[0] * float(t) + found[1]) for task in tasks.support for t, _ in task]
            is_known = len(known) and np.abs(known - found).max(1).min() < 1e-4
            at_jump = ratio > 0 and min(jumps) < 1e-4
            assert is_known or at_jump, (i, found, known)
            ended += bool(is_known)
    assert ended


def test_one_sample_has_its_closed_form() -> None:
    """F = (max(x_2, 0) - 1)^2 + |x|^2 / 16: the minimum (0, 16/17), and on the inactive side nothing but the kink."""
    tasks = ReLU((((Q(0), Q(1)),),), (((Q(0), Q(1)),),))
    assert dict(clarke(tasks, Q(0))) == {(0, Q(16, 17)): "smooth", (0, 0): "edge"}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=5))
def test_surrounded_is_that_no_direction_sees_all_vectors_ahead(vectors: list[tuple[int, int]]) -> None:
    angles = np.linspace(0, 2 * np.pi, 2881)  # vectors of such integers differ by much more than an eighth of a degree
    seen = np.array(vectors) @ np.stack([np.cos(angles), np.sin(angles)])
    assert _surrounded([(Q(a), Q(b)) for a, b in vectors]) == (not (seen > 1e-9).all(0).any())


def test_bad_tasks_are_refused() -> None:
    sample = (((Q(1), Q(1)),),)
    with pytest.raises(ValueError, match="decay must be positive"):
        ReLU(sample, sample, Q(0))
    with pytest.raises(ValueError, match="got 1 and 0 tasks"):
        ReLU(sample, ())
