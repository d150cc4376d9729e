from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

import sharp_maml.train as training
from sharp_maml import (
    CheckpointError,
    Config,
    Dataset,
    Episode,
    MetaGradient,
    NonFiniteError,
    Params,
    episode,
    load_checkpoint,
    write_cache,
)
from sharp_maml.data import EpisodeStream, Protocol
from sharp_maml.evaluate import correct_counts
from sharp_maml.methods import Experiment, build
from sharp_maml.progress import duration
from sharp_maml.train import Interrupted, train
from tests.sharp_maml.tiny import assert_same_run, tiny_config, tiny_dataset


@pytest.fixture
def dataset(tmp_path):
    return tiny_dataset(tmp_path / "tiny")


def tensors(directory: Path, name: str = "last") -> dict:
    return load_checkpoint(directory / f"{name}.safetensors").tensors


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, signum: int = signal.SIGTERM) -> None:
    """Send this process a signal while the given step is made."""
    original = training._Run.step

    def stepping(self, episodes):
        if self.state.step + 1 == step:
            os.kill(os.getpid(), signum)
        return original(self, episodes)

    monkeypatch.setattr(training._Run, "step", stepping)


def test_every_episode_of_every_validation_is_told(dataset, tmp_path):
    told = []
    train(tiny_config(), dataset, tmp_path / "run", on_validation_episode=told.append)
    assert told == [0, 1, 2, 3, 4] * 2


def test_a_run_leaves_its_config_metrics_and_checkpoints(dataset, tmp_path):
    config = tiny_config()
    state = train(config, dataset, tmp_path / "run")
    assert state.step == 8
    assert json.loads((tmp_path / "run/config.json").read_text()) == config.to_dict()
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert [point["step"] for point in state.curve] == [4, 8]
    assert state.seconds > 0
    assert state.peak_memory_bytes > 1e7
    assert {path.name for path in (tmp_path / "run").glob("*.safetensors")} >= {"last.safetensors", "best.safetensors"}


@pytest.mark.parametrize(
    "settings", [{"alpha_low": 0.05, "alpha_up": 0.05}, {"optimizer": "sgd"}, {"dtype": "float64"}]
)
def test_training_changes_every_parameter_and_keeps_it_finite(dataset, tmp_path, settings):
    train(tiny_config(iterations=1), dataset, tmp_path / "one")
    train(tiny_config(iterations=3, **settings), dataset, tmp_path / "run")
    first, last = tensors(tmp_path / "one"), tensors(tmp_path / "run")
    for name, value in last.items():
        assert torch.isfinite(value).all() if value.is_floating_point() else True
        if name.startswith("params/"):
            assert not torch.equal(value.float(), first[name].float())


@pytest.mark.slow
def test_training_learns_the_tiny_problem(dataset, tmp_path):
    """Colours are told apart after a few dozen steps: far above the chance of a third."""
    state = train(tiny_config(iterations=60, validate_every=60, validation_episodes=40), dataset, tmp_path / "run")
    assert state.curve[-1]["low"] > 0.6


def test_the_first_update_is_that_of_the_optimizer_on_the_meta_gradient(dataset, tmp_path):
    config = tiny_config(iterations=1, optimizer="sgd", beta_up=0.5, dtype="float64")
    train(config, dataset, tmp_path / "run")
    experiment = build(config, channels=3)
    params = experiment.init(config.seed)
    with EpisodeStream(dataset, "train", Protocol(3, 1, 4), seed=0, meta_batch=2, stop=1, dtype=torch.float64) as s:
        grad = experiment.method.gradient(params, next(s)).grad
    for name, value in params.items():
        torch.testing.assert_close(tensors(tmp_path / "run")[f"params/{name}"], value - 0.5 * grad[name])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_exits_and_the_resumed_run_is_bitwise_the_same(
    dataset, tmp_path, monkeypatch, signum
):
    config = tiny_config(alpha_low=0.05, alpha_up=0.05)
    train(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(5, patch, signum)
        with pytest.raises(Interrupted) as stopped:
            train(config, dataset, tmp_path / "cut")
    assert stopped.value.code == 128 + signum
    assert load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"] == 5
    state = train(config, dataset, tmp_path / "cut")
    assert state.interruptions == 1
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_signal_handlers_are_put_back(dataset, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(tiny_config(iterations=1), dataset, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_is_not_run_again(dataset, tmp_path):
    first = train(tiny_config(), dataset, tmp_path / "run")
    content = (tmp_path / "run/last.safetensors").read_bytes()
    assert train(tiny_config(), dataset, tmp_path / "run") == first
    assert (tmp_path / "run/last.safetensors").read_bytes() == content


def test_metrics_after_the_last_checkpoint_and_a_torn_line_are_dropped_on_resume(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(Interrupted):
            train(tiny_config(), dataset, tmp_path / "run")
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 1}\n{"step": 8, "lo')
    train(tiny_config(), dataset, tmp_path / "run")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_outer_step_follows_its_schedule_also_after_an_interruption(dataset, tmp_path, monkeypatch, schedule):
    """With plain SGD an update is step size times gradient: both are seen at every step."""
    sizes = []
    original = torch.optim.SGD.step

    def step(self, *arguments):
        before = [value.detach().clone() for value in self.param_groups[0]["params"]]
        original(self, *arguments)
        after = self.param_groups[0]["params"]
        moved = max(float((a - b).detach().abs().max()) for a, b in zip(after, before, strict=True))
        sizes.append(moved / max(float(value.grad.abs().max()) for value in after))

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    config = tiny_config(optimizer="sgd", beta_up=0.5, schedule=schedule, dtype="float64", checkpoint_every=3)
    with pytest.raises(NonFiniteError):
        train(config, dataset, tmp_path / "run", build=with_nan(dataset, 2 * 5, torch.float64))
    train(config, dataset, tmp_path / "run")
    expected = [0.5 * (1 if schedule == "constant" else math.cos(math.pi * t / 16) ** 2) for t in range(8)]
    assert sizes == pytest.approx(expected, rel=1e-6)


def test_selection_sees_the_validation_classes_only(dataset, tmp_path, monkeypatch):
    seen = set()
    original = training.correct_counts

    def counting(method, params, data, split, config, **options):
        seen.add(split)
        return original(method, params, data, split, config, **options)

    monkeypatch.setattr(training, "correct_counts", counting)
    state = train(tiny_config(), dataset, tmp_path / "run")
    assert seen == {"validation"}
    best = max(state.curve, key=lambda point: point["validation_accuracy"])
    assert (state.best_step, state.best_accuracy) == (best["step"], best["validation_accuracy"])
    assert load_checkpoint(tmp_path / "run/best.safetensors").metadata["progress"]["step"] == best["step"]


def test_one_validation_episode_gives_an_accuracy_without_an_interval(dataset, tmp_path):
    state = train(tiny_config(validation_episodes=1), dataset, tmp_path / "run")
    assert [(point["step"], point["low"], point["high"]) for point in state.curve] == [(4, None, None), (8, None, None)]
    assert load_checkpoint(tmp_path / "run/last.safetensors").metadata["progress"]["curve"] == state.curve


Gradient = Callable[[Params, Sequence[Episode]], MetaGradient]


def with_gradient(change: Callable[[Gradient, Params, Sequence[Episode]], MetaGradient]) -> Callable[..., Experiment]:
    """What builds experiments with another gradient: change(the package's, parameters, episodes)."""

    def built(config: Config, **options: object) -> Experiment:
        experiment = build(config, **options)
        gradient = partial(change, experiment.method.gradient)
        return experiment._replace(method=experiment.method._replace(gradient=gradient))

    return built


def with_nan(dataset: Dataset, index: int, dtype: torch.dtype = torch.float32) -> Callable[..., Experiment]:
    """A pixel of one episode, whenever the gradient comes to it, is NaN."""
    bad = episode(dataset, "train", Protocol(3, 1, 4), seed=0, index=index, dtype=dtype).query.inputs

    def spoilt(drawn: Episode) -> Episode:
        if not torch.equal(drawn.query.inputs, bad):
            return drawn
        inputs = bad.clone()
        inputs[0, 0, 0, 0] = float("nan")
        return drawn._replace(query=drawn.query._replace(inputs=inputs))

    return with_gradient(lambda gradient, params, episodes: gradient(params, [spoilt(each) for each in episodes]))


ESTIMATE = 2
"""Gradients for the estimate of the cost, before the first step."""


def from_step(step: int, change: Callable[[MetaGradient], MetaGradient]) -> Callable[..., Experiment]:
    """The results of a step, counted from 0, and of all later ones are changed."""
    calls = count(-ESTIMATE)

    def changed(gradient: Gradient, params: Params, episodes: Sequence[Episode]) -> MetaGradient:
        result = gradient(params, episodes)
        return change(result) if next(calls) >= step else result

    return with_gradient(changed)


def test_a_nan_stops_the_run_with_step_episode_and_norms_and_leaves_a_good_checkpoint(dataset, tmp_path):
    with pytest.raises(
        NonFiniteError, match=r"step 2: .*\(episode 5\); loss nan, .*gradient norm nan, parameter norm \d"
    ) as e:
        train(tiny_config(), dataset, tmp_path / "run", build=with_nan(dataset, 5))
    assert str(tmp_path / "run/last.safetensors") in str(e.value)
    saved = load_checkpoint(tmp_path / "run/last.safetensors")
    assert saved.metadata["progress"]["step"] == 2
    assert all(torch.isfinite(value).all() for name, value in saved.tensors.items() if name.startswith("params/"))


def test_an_update_that_overflows_stops_the_run_and_leaves_the_earlier_checkpoint(dataset, tmp_path, monkeypatch):
    def growing(result: MetaGradient) -> MetaGradient:
        """Finite, but too much for a step of 1e30 in float32."""
        return result._replace(grad={name: torch.full_like(value, 1e12) for name, value in result.grad.items()})

    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self: [p.data.add_(p.grad, alpha=-1e30) for p in self.param_groups[0]["params"] if p.grad.max() == 1e12],
    )
    config = tiny_config(optimizer="sgd", checkpoint_every=2, beta_up=1e-9)
    with pytest.raises(NonFiniteError, match="step 5: the parameters are not finite after the update"):
        train(config, dataset, tmp_path / "run", build=from_step(4, growing))
    saved = load_checkpoint(tmp_path / "run/last.safetensors")
    assert saved.metadata["progress"]["step"] == 4
    assert all(torch.isfinite(value).all() for name, value in saved.tensors.items() if name.startswith("params/"))


def test_a_sum_that_overflows_although_each_episode_is_finite_is_not_blamed_on_one(dataset, tmp_path):
    def overflowing(gradient: Gradient, params: Params, episodes: Sequence[Episode]) -> MetaGradient:
        result = gradient(params, episodes)
        return result._replace(loss=torch.tensor(float("inf"))) if len(episodes) > 1 else result

    with pytest.raises(NonFiniteError, match="none of this process's episodes alone"):
        train(tiny_config(), dataset, tmp_path / "run", build=with_gradient(overflowing))


def test_a_directory_of_another_config_or_other_data_is_refused_and_untouched(dataset, tmp_path):
    train(tiny_config(), dataset, tmp_path / "run")
    content = (tmp_path / "run/last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="config"):
        train(tiny_config(beta_low=0.3), dataset, tmp_path / "run")
    with pytest.raises(ValueError, match="was trained on other data"):
        train(tiny_config(iterations=8), tiny_dataset(tmp_path / "other", seed=1), tmp_path / "run")
    assert (tmp_path / "run/last.safetensors").read_bytes() == content


def test_a_directory_in_use_is_refused(dataset, tmp_path):
    (tmp_path / "run").mkdir()
    code = (
        "import sys, time; from sharp_maml import RunDirectoryLock\n"
        "with RunDirectoryLock(sys.argv[1]): print('x', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises((ValueError, OSError), match=str(other.pid)):
            train(tiny_config(), dataset, tmp_path / "run")
    finally:
        other.kill()
        other.communicate()


def test_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="image_size is 16, but tiny has 20 pixels"):
        train(tiny_config(), tiny_dataset(tmp_path / "tiny", size=20), tmp_path / "run")


def test_a_split_that_is_too_small_is_refused_before_anything_is_written(tmp_path):
    for settings, message in (
        ({"ways": 6}, "ways: at most 5, the classes of tiny/train; got 6: use fewer ways, or add classes"),
        ({"queries": 12}, r"shots \+ queries: at most 12, the images of class train0 of tiny/train; got 1 \+ 12"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny_config(**settings), tiny_dataset(tmp_path / "tiny"), tmp_path / "run")
    splits = {"train": 3, "validation": 3, "test": 2}
    images = list(np.zeros((5, 16, 16, 3), np.uint8))
    own = write_cache(
        tmp_path / "own", name="own", splits={s: {f"{s}{i}": images for i in range(n)} for s, n in splits.items()}
    )
    with pytest.raises(ValueError, match="ways: at most 2, the classes of own/test; got 3"):
        train(tiny_config(), own, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("at", [4, 8])
def test_an_error_at_a_validation_keeps_the_last_step_and_the_same_run_goes_on_from_it(
    dataset, tmp_path, monkeypatch, at
):
    """Bitwise, and with the validation that was not finished, also that of the last step."""
    config = tiny_config(checkpoint_every=100)
    train(config, dataset, tmp_path / "whole")
    validations = iter(range(4, 9, 4))

    def fails(*arguments, **options):
        if next(validations) == at:
            raise MemoryError("no more")
        return correct_counts(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "correct_counts", fails)
        with pytest.raises(MemoryError, match="no more"):
            train(config, dataset, tmp_path / "cut")
    progress = load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]
    assert (progress["step"], len(progress["curve"])) == (at, at // 4 - 1)
    train(config, dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "cut/best.safetensors").exists()


def test_an_error_inside_a_step_keeps_the_step_before(dataset, tmp_path):
    config = tiny_config(checkpoint_every=100)
    train(config, dataset, tmp_path / "whole")

    def fails(result: MetaGradient) -> MetaGradient:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, dataset, tmp_path / "cut", build=from_step(6, fails))
    assert load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"] == 6
    train(config, dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_an_error_in_the_first_step_leaves_nothing_that_another_configuration_would_have_to_avoid(
    dataset, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny_config(), dataset, tmp_path / "run")
    assert train(tiny_config(meta_batch=1, iterations=1), dataset, tmp_path / "run").step == 1


def test_cost_is_estimated_first_and_progress_is_logged(dataset, tmp_path, caplog, monkeypatch):
    clock = iter(range(0, 10_000, 31))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        train(tiny_config(), dataset, tmp_path / "run")
    text = caplog.messages
    assert "maml on tiny: 8 of 8 iterations to go, about" in text[0]
    assert "GiB of memory" in text[0]
    assert any("step 3 of 8: loss" in line and "left" in line for line in text)
    assert any("step 4: validation accuracy" in line for line in text)


def test_the_estimate_changes_nothing(dataset, tmp_path, monkeypatch):
    train(tiny_config(), dataset, tmp_path / "with")
    monkeypatch.setattr(training, "tell_cost", lambda *_, **__: None)
    train(tiny_config(), dataset, tmp_path / "without")
    assert_same_run(tmp_path / "with", tmp_path / "without")


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (300, "5 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text


def test_without_tensorboard_the_run_goes_on(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    train(tiny_config(iterations=1), dataset, tmp_path / "run")
    assert not (tmp_path / "run/tensorboard").exists()


def test_with_tensorboard_scalars_are_written(dataset, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiny_config(iterations=4), dataset, tmp_path / "run")
    shown = event_accumulator.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    for line in map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines()):
        for tag in line.keys() - {"step"}:
            (scalar,) = (scalar for scalar in shown.Scalars(tag) if scalar.step == line["step"])
            assert scalar.value == pytest.approx(line[tag], rel=1e-6)


def test_outside_the_main_thread_signals_are_left_alone(dataset, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        state = pool.submit(train, tiny_config(iterations=1), dataset, tmp_path / "run").result()
    assert state.step == 1


def test_ascents_in_every_second_iteration_alternate_with_those_of_maml(dataset, tmp_path):
    """Two iterations, by hand from the gradients of both and plain steps; then the run that was stopped equals it."""
    config = tiny_config(alpha_low=0.1, alpha_up=0.1, ascent_every=2, optimizer="sgd", iterations=3)
    train(config, dataset, tmp_path / "run")
    stream = EpisodeStream(
        dataset, "train", Protocol(3, 1, 4), seed=0, meta_batch=2, start=0, stop=3, dtype=torch.float32
    )
    both, maml = (build(each, channels=3) for each in (replace(config, ascent_every=1), tiny_config()))
    params = both.init(0)
    for step, episodes in enumerate(stream):
        grad = (maml if step == 1 else both).method.gradient(params, episodes).grad
        params = {name: value - config.beta_up * grad[name] for name, value in params.items()}
    ended = tensors(tmp_path / "run")
    for name, value in params.items():
        torch.testing.assert_close(ended[f"params/{name}"], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ascent", ["random", "half"])
def test_a_run_with_drawn_ascents_goes_on_as_if_it_had_not_been_stopped(ascent, dataset, tmp_path, monkeypatch):
    config = tiny_config(alpha_low=0.1, alpha_up=0.1, ascent=ascent, ascent_every=2)
    train(config, dataset, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(Interrupted):
            train(config, dataset, tmp_path / "cut")
    train(config, dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
