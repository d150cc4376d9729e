"""The network's tasks against oracles that use neither the core nor their own code, and the command on tiny images."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from sharp_maml import Batch, Result, meta_gradient, read_result
from synthetic import Constants, apart
from tests.sharp_maml.tiny import tiny_dataset
from theory.networks import embedded
from theory.networks import rate as command
from theory.networks.embedded import PRESCRIBED, Settings, Tasks, bounds, constants, path, starts
from theory.networks.rate import main, table

SMALL = Settings(tasks=2, pool=4, features=5, hidden=3, smallest=2, largest=4, seeds=2, samples=6)
BETA = 0.7


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("rate") / "data"
    tiny_dataset(place)
    return place


@pytest.fixture(scope="module")
def tasks(place) -> Tasks:
    return Tasks.embedded(tiny_dataset(place), SMALL)


def plain(tasks: Tasks, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of `ways x n x features`, with torch's own layers and loss."""
    first, second = torch.nn.Linear(5, 3).double(), torch.nn.Linear(3, 3).double()
    torch.nn.utils.vector_to_parameters(x, [*first.parameters(), *second.parameters()])
    labels = torch.arange(3).repeat_interleave(images.shape[1])
    return cross_entropy(second(first(images.flatten(0, 1)).tanh()), labels)


def test_the_loss_is_that_of_torchs_layers(tasks) -> None:
    x = starts(tasks, SMALL)[0] + 0.1
    for m in range(2):
        for half, pool in zip(tasks.whole(m), (tasks.support, tasks.query), strict=True):
            torch.testing.assert_close(tasks.loss({"x": x}, half), plain(tasks, x, pool[m]))


def test_features_have_a_mean_square_of_four_and_no_direction_of_their_own(tasks) -> None:
    features = torch.stack([tasks.support, tasks.query]).flatten(0, -2)
    torch.testing.assert_close(features.T @ features / len(features), 4 / 5 * torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(features.mean(0), torch.zeros(5, dtype=torch.float64))


def test_the_gradient_of_the_meta_loss_is_that_of_finite_differences(tasks) -> None:
    x = starts(tasks, SMALL)
    found, h = tasks.meta_gradient(x[:, None], BETA), 1e-5
    for row, gradient in zip(x, found[:, 0], strict=True):
        differences = [
            (tasks.meta_loss(row + h * one, BETA) - tasks.meta_loss(row - h * one, BETA)) / (2 * h)
            for one in torch.eye(tasks.dim, dtype=torch.float64)
        ]
        torch.testing.assert_close(gradient, torch.stack(differences), rtol=1e-6, atol=1e-9)


def test_on_all_images_the_core_has_the_same_gradient(tasks) -> None:
    """What the runs step along is of the meta-loss whose gradient is averaged."""
    x = starts(tasks, SMALL)[1]
    wholes = [tasks.whole(m) for m in range(2)]
    found = meta_gradient(tasks.loss, {"x": x}, wholes, beta_low=BETA, query_loss=tasks.query_loss).grad["x"]
    torch.testing.assert_close(found, tasks.meta_gradient(x, BETA))


def test_minibatches_have_images_of_their_task_and_class_and_their_mean_loss_is_the_whole_one(tasks) -> None:
    x, n = starts(tasks, SMALL)[0], 4000
    drawn = apart(tasks.sample(torch.Generator().manual_seed(0), n))
    for m, (support, query) in enumerate(drawn):
        assert support.inputs.shape == (n, 3, 5)
        assert query.inputs.shape == (n, 6, 5)
        assert support.targets.shape == (n, 3, 3)
        for half, pool, count in ((support, tasks.support, 1), (query, tasks.query, 2)):
            for way in range(3):
                images = half.inputs[:, count * way : count * (way + 1)].flatten(0, 1)
                same = (images[:, None] == pool[m, way]).all(-1)
                assert (same.sum(-1) == 1).all()
                assert same.any(0).all()
        losses = torch.stack([tasks.loss({"x": x}, Batch(*one)) for one in zip(*query, strict=True)])
        expected = plain(tasks, x, tasks.query[m]).detach()
        assert abs(float(losses.mean() - expected)) < 5 * float(losses.std()) / math.sqrt(n)


def test_the_constants_at_a_point_are_those_of_dense_hessians(tasks) -> None:
    x, found = starts(tasks, SMALL)[0], {}
    known = constants(tasks, [x], beta=BETA, settings=SMALL)
    for m in range(2):
        support, query = (lambda y, pool=pool[m]: functional(y, pool) for pool in (tasks.support, tasks.query))
        slope = torch.func.grad(support)(x)
        adapted = x - BETA * slope
        second = torch.func.jacrev(torch.func.grad(support))
        jump = second(adapted) - second(x)
        for name, value in {
            "L0": torch.func.grad(query)(adapted).norm(),
            "L1": torch.linalg.matrix_norm(second(x), 2),
            "L2": torch.linalg.matrix_norm(jump, 2) / (BETA * slope.norm()),
            "Lq": torch.linalg.matrix_norm(torch.func.jacrev(torch.func.grad(query))(adapted), 2),
        }.items():
            found[name] = max(found.get(name, 0.0), float(value))
    for name, value in found.items():
        assert getattr(known, name) == pytest.approx(value, rel=2e-2), name  # Lanczos' tolerance, twice
    again = constants(tasks, [x, x + 1], beta=BETA, settings=SMALL)
    assert all(getattr(again, name) >= getattr(known, name) for name in asdict(known))


def functional(x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """`plain` as a function that can be differentiated."""
    first, bias, second, shift = x.split([15, 3, 9, 3])
    logits = (images.flatten(0, 1) @ first.view(3, 5).T + bias).tanh() @ second.view(3, 3).T + shift
    return cross_entropy(logits, torch.arange(3).repeat_interleave(images.shape[1]))


def test_a_path_is_a_descent_and_begins_at_its_start(tasks) -> None:
    x = starts(tasks, SMALL)[0]
    first, middle, last = path(tasks, x, beta=BETA, eta=0.1, steps=20)
    assert torch.equal(first, x)
    by_hand = x
    for t in range(20):
        if t == 2:
            torch.testing.assert_close(middle, by_hand)
        by_hand = by_hand - 0.1 * tasks.meta_gradient(by_hand, BETA)
    torch.testing.assert_close(last, by_hand)
    assert tasks.meta_loss(last, BETA) < tasks.meta_loss(middle, BETA) < tasks.meta_loss(first, BETA)


def test_the_bound_is_the_theorems_written_out_and_none_for_a_step_that_is_too_long(tasks) -> None:
    known = Constants(L0=0.5, L1=2.0, L2=3.0, Lq=1.5, sg=0.7, sH=0.9, sq=1.1)
    T = 4096
    beta, eta, up, low = 0.5 / 64, 10 / 64, 0.5 / 64, 0.5
    kappa = 1 + beta * 2
    L = kappa**2 * 1.5 + beta * 3 * 0.5
    b = L * up + beta * (kappa * 1.5 * 2 + 3 * 0.5) * low + 1.5 * beta * 0.7 * math.sqrt(kappa**2 + beta**2 * 0.81)
    V = (kappa**2 * 1.21 + beta**2 * (kappa * 1.5 * 0.7 + 0.9 * 0.5) ** 2 + beta**2 * 0.81 * 1.21) / 2
    lam = L * eta
    rest = 2 * 1.3 / (eta * T) + lam * (b**2 + V)
    G = ((1 - lam) * b + math.sqrt((1 - lam) ** 2 * b**2 + (2 - lam) * rest)) / (2 - lam)
    found = bounds(tasks, known, 1.3, T)
    assert found["both"] == pytest.approx(G**2)
    assert list(found) == [schedule.name for schedule in PRESCRIBED] == ["maml", "up", "low", "both"]
    assert set(bounds(tasks, known, 1.3, 100).values()) == {None}


def record(averages: np.ndarray) -> dict:
    """A record of four horizons whose variants all have these averages, `H x S`."""
    known = asdict(Constants(1, 2, 3, 4, 5, 6, 7))
    every = [
        {
            "T": 2**k, "averages": dict.fromkeys(["maml", "up", "low", "both"], values.tolist()),
            "bounds": dict.fromkeys(["maml", "up", "low", "both"], None if k == 4 else 2 * values.mean()),
            "constants": known, "Delta": 1.1, "step": 0.5, "gradients": [0.2, 0.1],
        }
        for k, values in enumerate(averages, 4)
    ]  # fmt: skip
    return {"settings": asdict(Settings()), "data_digest": "d", "horizons": every}


def test_the_page_has_slopes_and_shares_of_the_bound() -> None:
    T = 2.0 ** np.arange(4, 8)
    slower = np.where(T < 32, T**-0.5, 32**-0.5 * (T / 32) ** -0.25)
    found = record(np.stack([slower, 1.2 * slower], 1))
    every, last = command.slopes(found, "up")
    assert last.measured == pytest.approx(-0.25)
    assert -0.5 < every.measured < -0.25
    assert command.shares(found, "low") == [None, *[pytest.approx(0.5)] * 3]
    page = table(Result("network-rate", {"commit": "c", "dirty": False, "sources": {}}, found), "r.json")
    assert "| both | " in page
    assert "| step too long | 0.5 | 0.5 | 0.5 |" in page


def test_a_wrong_setting_and_too_few_images_are_named(place, tmp_path, capsys) -> None:
    for settings, message in (
        ({"pool": 0}, "pool must be >= 1, got 0"),
        ({"seeds": 1}, "seeds must be >= 2, of which an interval can be made, got 1"),
        ({"smallest": 5, "largest": 5}, "there must be two horizons, 0 <= smallest < largest, got 5, 5"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **settings)
    assert main(["--data", str(place), "--output", str(tmp_path)]) == 2
    assert "images" in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_record_figure_and_page_and_measures_nothing_twice(place, tmp_path, capsys, monkeypatch):
    arguments = ["--data", str(place), "--smallest", "2", "--largest", "3", "--seeds", "2", "--pool", "4"]
    arguments += ["--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "T = 8: " in capsys.readouterr().out
    result = read_result(tmp_path / "network-rate.json", "network-rate")
    assert [one["T"] for one in result.payload["horizons"]] == [4, 8]
    assert (tmp_path / "NETWORK-RATE.md").read_text() == table(result, "network-rate.json")
    assert (tmp_path / "network-rate.png").stat().st_size > 10_000
    for one in result.payload["horizons"]:
        assert {name: len(values) for name, values in one["averages"].items()} == dict.fromkeys(one["bounds"], 2)
    monkeypatch.setattr(command, "measured", None)
    assert main(arguments) == 0
    assert read_result(tmp_path / "network-rate.json", "network-rate").payload == result.payload


def test_an_average_is_that_of_a_plain_loop(tasks) -> None:
    """MAML by torch's autograd alone, on the minibatches that the runs draw."""
    T, seeds = 3, 2
    x = starts(tasks, SMALL)
    generator = torch.Generator().manual_seed(SMALL.seed + T)
    beta, eta = PRESCRIBED[0].beta.at(T), PRESCRIBED[0].eta.at(T)
    points, total = [row.clone() for row in x], np.zeros(seeds)
    for _ in range(T):
        drawn = apart(tasks.sample(generator, seeds))
        for s in range(seeds):
            total[s] += float(tasks.meta_gradient(points[s], beta).square().sum()) / T
            y = points[s].clone().requires_grad_()
            objective = torch.zeros((), dtype=torch.float64)
            for support, query in drawn:
                inner = tasks.loss({"x": y}, Batch(support.inputs[s], support.targets[s]))
                (slope,) = torch.autograd.grad(inner, y, create_graph=True)
                outer = tasks.loss({"x": y - beta * slope}, Batch(query.inputs[s], query.targets[s]))
                objective = objective + outer / tasks.tasks
            points[s] = points[s] - eta * torch.autograd.grad(objective, y)[0]
    found = embedded.measured(tasks, T, SMALL)
    np.testing.assert_allclose(found["averages"]["maml"], total, rtol=1e-10)
    assert not np.allclose(found["averages"]["both"], total, rtol=1e-3)
