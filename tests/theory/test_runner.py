"""Many runs at once are the runs one by one, and go through the core."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from sharp_maml import Batch, Episode, Execution, meta_gradient
from synthetic import LogCosh, Quadratic, Wells, apart
from theory.runner import OFF, Power, Schedule, TasksAtOnce, horizons, run, traced, variants

CENTRES = torch.tensor([[0.0, 0.5], [1.5, -1.0]], dtype=torch.float64)
WELLS = Wells(CENTRES, CENTRES.flip(0), zeta=0.3, sA=0.2, xi=0.7)
REGRESSION = LogCosh.planted(torch.Generator().manual_seed(0), tasks=2, dim=2, samples=6, batch=2, spread=1.0)
START = torch.tensor([2.0, -1.0], dtype=torch.float64)
SCHEDULES = variants(Schedule("base"), alpha_up=Power(1.0, 0.5), alpha_low=Power(0.5, 0.0))
T = (2, 3, 6)


def one_by_one(family, schedule, t, *, seeds, seed, ascent, perturbation="reused", update="mean", start=START):
    """The averages of one schedule at one horizon by a plain loop over seeds that calls the core without `vmap`."""
    of_updates, of_ascents = (torch.Generator().manual_seed(one) for one in (seed, seed + 2**30))
    beta, eta = schedule.beta.at(t), schedule.eta.at(t) * (family.tasks if update == "sum" else 1)
    x, totals = [start.clone() for _ in range(seeds)], np.zeros(seeds)

    def of_seed(episodes, i):
        return [Episode(*(Batch(*(part[i] for part in batch)) for batch in episode)) for episode in episodes]

    for _ in range(t):
        makers = apart(family.sample(of_ascents, seeds)) if ascent == "fresh" else None
        episodes = apart(family.sample(of_updates, seeds))
        for i in range(seeds):
            totals[i] += float(family.meta_gradient(x[i], beta).square().sum())
            given = list(ascent) if not isinstance(ascent, str) else makers and of_seed(makers, i)
            grad = meta_gradient(
                family.loss, {"x": x[i]}, of_seed(episodes, i), beta_low=beta, alpha_low=schedule.alpha_low.at(t),
                alpha_up=schedule.alpha_up.at(t), query_loss=family.query_loss, perturbation=perturbation,
                ascent_episodes=given,
            ).grad["x"]  # fmt: skip
            x[i] = x[i] - eta * grad
    return totals / t


@pytest.mark.parametrize("family", [WELLS, REGRESSION], ids=["wells", "regression"])
@pytest.mark.parametrize(
    "options",
    [
        {"ascent": "fresh"},
        {"ascent": "shared"},
        {"ascent": "shared", "perturbation": "differentiated"},
        {"ascent": "shared", "perturbation": "recomputed", "update": "sum"},
    ],
    ids=str,
)
def test_lanes_are_the_runs_one_by_one(family, options) -> None:
    found = run(family, SCHEDULES, T=T, start=START, seeds=2, seed=5, **options)
    assert found.shape == (4, 3, 2)
    for schedule, of_schedule in zip(SCHEDULES, found, strict=True):
        for t, averages in zip(T, of_schedule, strict=True):
            expected = one_by_one(family, schedule, t, seeds=2, seed=5, **options)
            np.testing.assert_allclose(averages, expected, rtol=1e-10)


def test_lanes_may_start_in_different_places_and_be_told_where_to_point() -> None:
    pointing = [WELLS.pointing(torch.tensor([1.0, 2.0], dtype=torch.float64))] * 2
    starts = torch.randn((4, 3, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = run(WELLS, SCHEDULES, T=T, start=starts, seeds=2, seed=0, ascent=pointing)
    for schedule, of_schedule, at in zip(SCHEDULES, found, starts, strict=True):
        for t, averages, start in zip(T, of_schedule, at, strict=True):
            expected = one_by_one(WELLS, schedule, t, seeds=2, seed=0, ascent=pointing, start=start)
            np.testing.assert_allclose(averages, expected, rtol=1e-10)


def test_instances_side_by_side_are_run_as_they_are_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    a, c = torch.randn((2, 2, 3, 2), generator=generator, dtype=torch.float64)  # M = 2, S = 3, d = 2
    starts = torch.randn((4, 3, 3, 2), generator=generator, dtype=torch.float64)
    found = run(Wells(a, c), SCHEDULES, T=T, start=starts, seeds=3, seed=0)
    for s in range(3):
        alone = run(Wells(a[:, s], c[:, s]), SCHEDULES, T=T, start=starts[:, :, s], seeds=1, seed=0)
        np.testing.assert_allclose(found[..., s], alone[..., 0], rtol=1e-10)


def test_a_run_on_quadratics_is_the_closed_form() -> None:
    H = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)).expand(2, 2, 2)
    family = Quadratic(H, 2 * H, CENTRES, -CENTRES)
    beta, eta, t = 0.1, 0.2, 20
    found = run(family, [Schedule("maml", beta=Power(beta, 0), eta=Power(eta, 0))], T=[t], start=START, seeds=1, seed=0)
    # F is quadratic: x - x* shrinks by I - eta A, where A = mean (I - beta H) G (I - beta H)
    shrink = (1 - beta * H[0]) ** 2 * 2 * H[0]
    A = torch.diag(torch.diag(shrink))
    away = START - family.minimiser(beta)
    squares = [(A @ torch.matrix_power(torch.eye(2) - eta * A, k) @ away).square().sum() for k in range(t)]
    assert found[0, 0, 0] == pytest.approx(float(sum(squares) / t), rel=1e-12)


def test_seeds_differ_lanes_share_them_and_the_base_seed_decides() -> None:
    twice = [SCHEDULES[3], SCHEDULES[3].but("again")]
    found = run(WELLS, twice, T=T, start=START, seeds=4, seed=0)
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0, 0])) == 4
    np.testing.assert_array_equal(found, run(WELLS, twice, T=T, start=START, seeds=4, seed=0))
    assert (found != run(WELLS, twice, T=T, start=START, seeds=4, seed=1)).all()


def test_powers_and_horizons() -> None:
    assert Power(2.0, 0.5).at(16) == 0.5
    assert OFF.at(100) == 0.0
    assert horizons(8) == (64, 128, 256)
    assert [s.name for s in SCHEDULES] == ["maml", "up", "low", "both"]


def test_a_traced_step_has_the_numbers_of_all_operations_with_half_of_them() -> None:
    episodes = apart(WELLS.sample(torch.Generator().manual_seed(0), 4))

    def step(x: torch.Tensor, episodes: list[Episode]) -> torch.Tensor:
        settings = {
            "beta_low": 0.3,
            "alpha_low": 0.2,
            "alpha_up": 0.1,
            "execution": Execution(map_episodes=TasksAtOnce()),
        }
        return meta_gradient(WELLS.loss, {"x": x}, episodes, query_loss=WELLS.query_loss, **settings).grad["x"]

    step = torch.vmap(step)
    whole, found = make_fx(step)(START.repeat(4, 1), episodes), traced(step, START.repeat(4, 1), episodes)
    for x in (START, -3 * START):
        assert torch.equal(found(x.repeat(4, 1), episodes), whole(x.repeat(4, 1), episodes))
    assert len(found.module.graph.nodes) < 0.6 * len(whole.graph.nodes)


def test_a_trace_tells_arguments_apart_and_has_constants_and_operations_of_several_results() -> None:
    constant = torch.tensor([0.5, -2.0])

    def f(pair: tuple[torch.Tensor, torch.Tensor], nothing: None) -> torch.Tensor:
        a, b = pair
        first, second = b.split(2)
        return a[:2] * first + second * constant

    x, y = torch.arange(4.0), torch.tensor([3.0, -1.0, 4.0, 2.0])
    found = traced(f, (x, x), None)
    assert torch.equal(found((x, y), None), f((x, y), None))
    assert torch.equal(found((y, x), None), f((y, x), None))


def test_tasks_at_once_is_map() -> None:
    items = [(torch.tensor([float(i)]), {"a": torch.tensor(i * 2.0)}, None) for i in range(3)]

    def f(item):
        x, named, nothing = item
        assert nothing is None
        return {"y": x.sin() * named["a"]}, [x.sum()]

    for found, expected in zip(TasksAtOnce()(f, items), map(f, items), strict=True):
        assert torch.equal(found[0]["y"], expected[0]["y"])
        assert math.isclose(found[1][0], expected[1][0])


def test_what_is_stacked_already_is_not_stacked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.arange(3.0), torch.arange(6.0).view(3, 2)
    episodes = [Episode(Batch(x[m], y[m]), Batch(y[m], x[m])) for m in range(3)]
    tasks_at_once = TasksAtOnce()
    parts = tasks_at_once.parts(Episode(Batch(x, y), Batch(y, x)))

    def f(pair):
        episode, factor = pair
        return episode.support.inputs * episode.query.inputs * factor

    first = [f(pair) for pair in zip(episodes, x + 1, strict=True)]
    again = [f(pair) for pair in zip(episodes, first, strict=True)]
    found = tasks_at_once(f, zip(parts, x + 1, strict=True))
    assert all(map(torch.equal, found, first))
    monkeypatch.delattr(torch, "stack")
    assert all(map(torch.equal, tasks_at_once(f, zip(parts, found, strict=True)), again))
