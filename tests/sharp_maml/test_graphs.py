"""What a meta-iteration must be to be replayed as a graph, seen on a CPU; and on a GPU that nothing changes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sharp_maml import Config, NonFiniteError, Protocol, build, distributed, episode, kernels
from sharp_maml.data import episode_rows
from sharp_maml.graphs import READ_AFTER, Iteration, make_capturable
from sharp_maml.train import Interrupted, train
from tests.sharp_maml.test_train import stop_after, tensors
from tests.sharp_maml.tiny import assert_same_run, tiny_config, tiny_dataset

PROTOCOL = Protocol(3, 1, 4)
BOTH = {"alpha_low": 0.05, "alpha_up": 0.05}


@pytest.fixture
def dataset(tmp_path):
    return tiny_dataset(tmp_path / "tiny")


@pytest.fixture
def capturable_anywhere(monkeypatch):
    """Torch refuses a capturable Adam on a device that captures nothing; its arithmetic works there."""
    adam = sys.modules[torch.optim.Adam.__module__]
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda **_: ["cpu", "meta"])


@pytest.fixture
def in_stretches(monkeypatch):
    """On a CPU the losses are read as rarely as on a GPU."""
    monkeypatch.setitem(READ_AFTER, "cpu", 5)


def rows(dataset, first: int) -> np.ndarray:
    return np.stack([episode_rows(dataset, "train", PROTOCOL, seed=0, index=first + i) for i in range(2)])


def iteration_of_a_gpu(dataset, monkeypatch, device: str = "cpu", **settings) -> Iteration:
    """The meta-gradient that a GPU takes, by torch's operations, on parameters that are elsewhere."""
    monkeypatch.setattr(kernels, "load", lambda: None)
    drawn = build(tiny_config(**settings), channels=3).init(0)
    params = {name: value.to(device).requires_grad_() for name, value in drawn.items()}
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        method = build(tiny_config(device="cuda", **settings), channels=3).method
    optimizer = torch.optim.Adam(params.values(), lr=0.01, foreach=True)
    return Iteration(tiny_config(cuda_graphs=True, **settings), dataset, method.gradient, params, optimizer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_episodes_that_are_cut_on_the_device_are_those_of_the_host(dataset, monkeypatch, backends, dtype):
    iteration = iteration_of_a_gpu(dataset, monkeypatch, dtype=dtype)
    for index in range(20):
        cut = iteration.episode(torch.from_numpy(rows(dataset, index)[0]))
        drawn = episode(dataset, "train", PROTOCOL, seed=0, index=index, dtype=getattr(torch, dtype))
        for ours, theirs in zip((*cut.support, *cut.query), (*drawn.support, *drawn.query), strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.stride() == theirs.stride()
            assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("capturable_anywhere")
def test_a_capturable_adam_takes_the_steps_of_adam_also_where_it_goes_on():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=generator, dtype=torch.float64)
    plain, capturable = (start.clone().requires_grad_() for _ in range(2))
    optimizers = [torch.optim.Adam([value], lr=0.01) for value in (plain, capturable)]
    for step in range(20):
        if step == 3:
            make_capturable(optimizers[1], torch.device("cpu"))
        plain.grad = capturable.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.step()
    # 1 - 0.999^t is a float32 number there; a step is the step size times 1 / that root, and at most 3.2 times as long
    error = sum(0.01 * 3.2 * 2**-23 / (1 - 0.999**t) / 2 for t in range(4, 21))
    assert (capturable - plain).abs().max() < error < 1e-5
    assert (plain - start).abs().min() > 0.001


class Recorded(TorchDispatchMode):
    """All operations, with the shapes and types of their tensors and all their other arguments; and their devices."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.devices: dict[str, set[str]] = {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        seen = tree_map_only(torch.Tensor, lambda t: (t.shape, t.stride(), t.dtype), (arguments, keywords))
        if function.namespace == "aten":
            self.operations.append(f"{function}{seen}")
        result = function(*arguments, **(keywords or {}))
        found = [leaf for leaf in tree_leaves((arguments, keywords, result)) if isinstance(leaf, torch.Tensor)]
        self.devices.setdefault(str(function), set()).update(tensor.device.type for tensor in found)
        return result


@pytest.mark.usefixtures("capturable_anywhere")
@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
@pytest.mark.parametrize("capturable", [True, False])
def test_every_iteration_does_the_same_and_reads_nothing(dataset, monkeypatch, backends, perturbation, capturable):
    """Else a graph would replay what belonged to one of them. The control is an Adam that counts on the host."""
    monkeypatch.setitem(READ_AFTER, "cpu", 5)
    iteration = iteration_of_a_gpu(dataset, monkeypatch, **BOTH, steps=2, perturbation=perturbation)
    if capturable:
        make_capturable(iteration.optimizer, torch.device("cpu"))
    before = {name: value.detach().clone() for name, value in iteration.params.items()}
    recorded = []
    for step in range(5):
        iteration.rows.copy_(torch.from_numpy(rows(dataset, 2 * step)))
        with Recorded() as mode:
            iteration._run()
        recorded.append(mode.operations)
    iteration.noted = 5
    assert len(recorded[0]) > 1000  # the first also makes the optimizer's moments
    assert all((one == recorded[1]) == capturable for one in recorded[2:])
    assert any("_local_scalar_dense" in line for line in recorded[1]) != capturable
    assert all(not torch.equal(value, before[name]) for name, value in iteration.params.items())
    assert len({line["loss"] for line in iteration.read(5)}) == 5
    assert iteration.read(5) == []


@pytest.mark.usefixtures("capturable_anywhere")
@pytest.mark.parametrize(
    "settings", [{}, {**BOTH, "ascent": "asam", "batch_norm": "support"}, {"model": "resnet12"}], ids=str
)
def test_nothing_of_an_iteration_is_on_the_host(dataset, monkeypatch, backends, settings):
    """On the meta device what is made on the host shows. A graph would copy it once, or could not be captured."""
    monkeypatch.setitem(READ_AFTER, "meta", 5)
    iteration = iteration_of_a_gpu(dataset, monkeypatch, "meta", **settings)
    make_capturable(iteration.optimizer, torch.device("meta"))
    iteration._run()  # makes the moments
    with Recorded() as mode:
        iteration._run()
        assert {device for found in mode.devices.values() for device in found} == {"meta"}
        torch.zeros(2, device="meta") + torch.tensor(1.0)  # the control
    assert {device for found in mode.devices.values() for device in found} == {"meta", "cpu"}


def test_three_iterations_are_run_and_the_next_is_captured_once_and_replayed(dataset, monkeypatch, backends):
    """The order of what is asked of CUDA, which is not there."""
    asked = []

    class Stream:
        def __init__(self, name):
            self.name, self.device = name, torch.device("cuda")

        def wait_stream(self, other):
            asked.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self):
            asked.append("replay")

    @contextmanager
    def on_stream(stream):
        asked.append(f"on {stream.name}")
        yield
        asked.append("off")

    @contextmanager
    def capture(graph, *, stream):
        asked.append(f"capture on {stream.name}")
        yield
        asked.append("captured")

    iteration = iteration_of_a_gpu(dataset, monkeypatch)
    iteration.stream = Stream("graph's")
    monkeypatch.setattr(iteration, "_run", lambda: asked.append("run"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    for name, fake in {"current_stream": lambda device: Stream("other"), "stream": on_stream,
                       "CUDAGraph": Graph, "graph": capture}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    for step, work in enumerate(
        [["run"]] * 3 + [["capture on graph's", "run", "captured", "replay"]] + [["replay"]] * 2
    ):
        asked.clear()
        iteration(rows(dataset, 2 * step), 0.1)
        around = ["graph's waits for other", "on graph's"], ["off", "other waits for graph's"]
        assert asked == [*around[0], *work, *around[1]]
        assert torch.equal(iteration.rows, torch.from_numpy(rows(dataset, 2 * step)))


class FakeStream:
    """A stream that writes down what it waits for."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name, self.asked = name, asked

    def wait_stream(self, other: FakeStream) -> None:
        self.asked.append(f"{self.name} waits for {other.name}")


def test_each_episode_is_on_a_stream_of_its_own_between_what_comes_before_and_after(dataset, monkeypatch):
    """The order of what is asked of CUDA, which is not there; without graphs nothing is asked."""
    asked: list[str] = []
    outer, own = FakeStream("outer", asked), (FakeStream(f"stream {number}", asked) for number in range(9))

    @contextmanager
    def on_stream(stream):
        asked.append(f"on {stream.name}")
        yield
        asked.append("off")

    for name, fake in {"is_available": lambda: True, "current_stream": lambda device: outer, "stream": on_stream,
                       "Stream": lambda device: next(own)}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    params = build(tiny_config(), channels=3).init(0)
    episodes = [episode(dataset, "train", PROTOCOL, seed=0, index=index) for index in range(3)]
    expected = build(tiny_config(device="cuda", **BOTH), channels=3).method.gradient(params, episodes)
    assert asked == []
    found = build(tiny_config(device="cuda", cuda_graphs=True, **BOTH), channels=3).method.gradient(params, episodes)
    assert all(torch.equal(found.grad[name], expected.grad[name]) for name in params)
    streams = [f"stream {number}" for number in range(3)]
    forks = [line for name in streams for line in (f"{name} waits for outer", f"on {name}", "off")]
    joins = [f"outer waits for {name}" for name in streams]
    assert asked == [*forks, *joins] * (len(asked) // 12)
    assert len(asked) >= 24  # at theta and at theta + eps


def stop_within(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal before the given meta-iteration."""
    original, calls = Iteration.__call__, []

    def calling(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(Iteration, "__call__", calling)


@pytest.mark.usefixtures("in_stretches")
@pytest.mark.parametrize("settings", [{}, {**BOTH, "schedule": "cosine"}], ids=str)
def test_on_a_cpu_training_is_the_same_bit_for_bit_and_a_line_says_so(dataset, tmp_path, caplog, monkeypatch, settings):
    train(tiny_config(**settings), dataset, tmp_path / "plain")
    with caplog.at_level(logging.INFO):
        train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / "graphs")
    assert sum("cuda_graphs = true on a CPU" in record.message for record in caplog.records) == 1
    assert_same_run(tmp_path / "plain", tmp_path / "graphs")
    with monkeypatch.context() as patch:
        stop_within(5, patch)
        with pytest.raises(Interrupted):
            train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / "cut")
    train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "plain", tmp_path / "cut")


def test_a_run_without_graphs_goes_on_with_them(dataset, tmp_path, monkeypatch):
    train(tiny_config(), dataset, tmp_path / "plain")
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(Interrupted):
            train(tiny_config(), dataset, tmp_path / "cut")
    train(tiny_config(cuda_graphs=True), dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "plain", tmp_path / "cut")


@pytest.mark.usefixtures("in_stretches")
def test_losses_are_read_when_a_checkpoint_a_validation_or_the_end_needs_them_and_no_more_often(
    dataset, tmp_path, monkeypatch
):
    read = []
    original = Iteration.read
    monkeypatch.setattr(Iteration, "read", lambda self, step: read.append((self.noted, step)) or original(self, step))
    config = tiny_config(cuda_graphs=True, iterations=17, validate_every=8, checkpoint_every=16)
    train(config, dataset, tmp_path / "run")
    assert read == [(5, 5), (3, 8), (2, 10), (5, 15), (1, 16), (1, 17)]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 18))


def test_a_cpu_reads_after_every_iteration_and_a_gpu_after_a_hundred(dataset, monkeypatch, backends):
    monkeypatch.setitem(READ_AFTER, "meta", READ_AFTER["cuda"])
    for device, lengths in {"cpu": [1] * 350, "meta": [100, 100, 50, 50, 50]}.items():
        iteration = iteration_of_a_gpu(
            dataset, monkeypatch, device, iterations=350, validate_every=1000, checkpoint_every=250
        )
        assert [len(list(stretch)) for stretch in iteration.stretches(0)] == lengths


@pytest.mark.usefixtures("in_stretches")
def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_step(dataset, tmp_path):
    calls = []

    def broken(config: Config, *, channels: int):
        experiment = build(config, channels=channels)

        def gradient(params, episodes):
            calls.append(len(episodes))
            result = experiment.method.gradient(params, episodes)
            return result._replace(loss=result.loss * (float("nan") if len(calls) == 6 else 1))

        return experiment._replace(method=experiment.method._replace(gradient=gradient))

    config = tiny_config(cuda_graphs=True, validate_every=9, checkpoint_every=9)
    with pytest.raises(NonFiniteError, match="step 5: the loss, gradient or parameters are not finite; loss nan, "):
        train(config, dataset, tmp_path / "run", build=broken)
    assert len(calls) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "matching"}, "cuda_graphs = true needs method = 'sharp-maml', got 'matching'"),
        ({"optimizer": "sgd"}, "cuda_graphs = true needs optimizer = 'adam', got 'sgd'"),
        ({"ascent_every": 2, "alpha_up": 0.1}, "cuda_graphs = true needs ascent_every = 1, got 2"),
        ({"episode_threads": 2}, "cuda_graphs = true needs episode_threads = 1, got 2"),
        ({"compile": True}, "cuda_graphs = true needs compile = False, got True"),
        ({"ascent": "random", "alpha_up": 0.1}, "ascent = 'random' draws numbers: leave compile and cuda_graphs false"),
    ],
)
def test_what_cannot_be_in_a_graph_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(cuda_graphs=True, **settings)


def test_several_processes_are_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "start", lambda device: distributed.Ranks(0, 2))
    with pytest.raises(ValueError, match="cuda_graphs = true needs a single process, got 2"):
        train(tiny_config(cuda_graphs=True), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {**BOTH, "schedule": "cosine"}], ids=str)
def test_on_a_gpu_a_graph_trains_as_its_operations_do_and_resumes(gpu, dataset, tmp_path, monkeypatch, settings):
    """Against the same without a capture tightly; against the usual Adam as closely as the capturable one is exact."""
    settings = {"device": "cuda", "dtype": "float64", "iterations": 12, **settings}
    train(tiny_config(**settings), dataset, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr("sharp_maml.graphs._WARM_UP", 12)
        train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / "operations")
    with monkeypatch.context() as patch:
        stop_within(5, patch)
        with pytest.raises(Interrupted):
            train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / "cut")
    for run in ("graphs", "cut"):
        train(tiny_config(cuda_graphs=True, **settings), dataset, tmp_path / run)
        for other, tolerance in {"operations": 1e-9, "plain": 1e-4}.items():
            found, expected = tensors(tmp_path / run), tensors(tmp_path / other)
            for name in (name for name in expected if name.startswith("params/")):
                torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance)
