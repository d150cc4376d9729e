from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sharp_maml.evaluate as evaluation
from sharp_maml import CheckpointError, Config, Protocol, episode, load_checkpoint, save_checkpoint
from sharp_maml.evaluate import EVALUATION_SEED, PRESETS, correct_counts, evaluate
from sharp_maml.methods import build
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset, tiny_run

PROTOCOL = Protocol(3, 1, 4)
MODE = "transductive"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set and a run of it, read by all tests and changed by none."""
    return tiny_run(tmp_path_factory.mktemp("evaluate"))


def counts(dataset, settings=None, split="test", episodes=6, seed=0):
    config = tiny_config(**(settings or {}))
    experiment = build(config, channels=3)
    params = experiment.init(seed)
    of_mode = correct_counts(experiment.method, params, dataset, split, config, episodes=episodes, modes=[MODE])
    return of_mode[MODE]


def test_a_checkpoint_can_be_judged_with_other_test_steps_and_queries(trained):
    dataset, path, _ = trained
    found = evaluate(load_checkpoint(path), dataset, name="low", episodes=6, modes=[MODE], test_steps=5, queries=7)
    assert (found.protocol["test_steps"], found.protocol["queries"]) == (5, 7)
    assert found.config["test_steps"] == 2  # the run's own
    other = tiny_config(test_steps=5, queries=7, alpha_low=0.05, seed=7)
    method = build(other, channels=3).method
    params = {name.removeprefix("params/"): value for name, value in load_checkpoint(path).tensors.items()
              if name.startswith("params/")}  # fmt: skip
    expected = correct_counts(method, params, dataset, "test", other, episodes=6, modes=[MODE])[MODE]
    assert found.accuracies[MODE] == (expected / 21).tolist()


def test_test_steps_are_refused_for_a_method_that_does_not_adapt(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny")
    own = {"image_size": 16, "filters": 4, "ways": 3, "queries": 4, "threads": 1, "method": "matching"}
    train(Config.from_mapping({**own, "iterations": 1, "validation_episodes": 2}), dataset, tmp_path / "run")
    with pytest.raises(ValueError, match="test_steps has no meaning for method = 'matching'"):
        evaluate(load_checkpoint(tmp_path / "run/best.safetensors"), dataset, name="matching", test_steps=1)


@pytest.mark.parametrize("method", ["sharp-maml", "matching-fce"])
@pytest.mark.parametrize("modes", [["transductive"], ["transductive", "support"]])
def test_an_episode_is_timed_in_the_modes_after_a_warm_up(trained, monkeypatch, method, modes):
    timed = []
    original = evaluation.correct_counts

    def counting(*arguments, episodes, modes):
        timed.append((episodes, modes))
        return original(*arguments, episodes=episodes, modes=modes)

    monkeypatch.setattr(evaluation, "correct_counts", counting)
    own = {"image_size": 16, "filters": 4, "ways": 3, "queries": 4, "threads": 1, "method": method}
    assert evaluation.time_prediction(Config.from_mapping(own), trained[0], modes) > 0
    assert timed == [(1, modes)] * 2


def test_a_count_is_the_number_of_right_answers_of_plain_gradient_descent_on_the_support_set(trained):
    """The oracle: the network's own logits, adapted by torch.autograd and compared with the targets one by one."""
    from sharp_maml import conv4

    dataset = trained[0]
    model = conv4(ways=3, filters=4, image_size=16, channels=3)
    params = model.init(torch.Generator().manual_seed(0))
    expected = []
    for index in range(6):
        drawn = episode(dataset, "test", PROTOCOL, seed=EVALUATION_SEED, index=index)
        adapted = {name: value.clone().requires_grad_() for name, value in params.items()}
        for _ in range(2):  # test_steps
            loss = torch.nn.functional.cross_entropy(
                model.logits(adapted, drawn.support.inputs, None), drawn.support.targets
            )
            grads = torch.autograd.grad(loss, list(adapted.values()))
            adapted = {
                name: (value - 0.2 * grad).detach().requires_grad_()
                for (name, value), grad in zip(adapted.items(), grads, strict=True)
            }
        answers = model.logits(adapted, drawn.query.inputs, None).tolist()
        expected.append(
            sum(
                answer.index(max(answer)) == target
                for answer, target in zip(answers, drawn.query.targets.tolist(), strict=True)
            )
        )
    found = counts(dataset)
    assert found.tolist() == expected
    assert len(set(expected)) > 1


def test_counts_of_fewer_episodes_are_the_beginning_of_those_of_more(trained):
    assert counts(trained[0], episodes=3).tolist() == counts(trained[0], episodes=6)[:3].tolist()


@pytest.mark.slow
def test_counts_are_the_same_in_another_process(trained):
    dataset, checkpoint, data = trained
    code = (
        "import sys, json; from sharp_maml import *; from sharp_maml.evaluate import evaluate\n"
        "record = evaluate(load_checkpoint(sys.argv[1]), open_cache(sys.argv[2]), name='x', episodes=6)\n"
        "print(json.dumps([record.accuracies, record.episodes_digest]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), str(data)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    here = evaluate(load_checkpoint(checkpoint), dataset, name="x", episodes=6)
    assert json.loads(done.stdout) == [here.accuracies, here.episodes_digest]


@pytest.mark.parametrize("settings", [{"alpha_up": 0.1}, {"method": "matching"}, {"seed": 5}, {"inner_params": "head"}])
def test_every_method_and_training_seed_is_judged_on_the_same_episodes(trained, monkeypatch, settings):
    seen: dict[str, list] = {"maml": [], "other": []}
    original = evaluation.episode
    for name, own in (("maml", {}), ("other", settings)):

        def watching(*arguments, name=name, **options):
            drawn = original(*arguments, **options)
            seen[name].append(drawn)
            return drawn

        monkeypatch.setattr(evaluation, "episode", watching)
        if "method" in own:
            own = {**own, **dict.fromkeys(("steps", "test_steps"), 5), "beta_low": 0.1}
        counts(trained[0], own, episodes=3)
    assert len(seen["maml"]) == len(seen["other"]) == 3
    for one, other in zip(seen["maml"], seen["other"], strict=True):
        assert torch.equal(one.query.inputs, other.query.inputs)
        assert torch.equal(one.support.inputs, other.support.inputs)


def test_the_splits_have_other_episodes(trained):
    digests = {
        split: evaluate(load_checkpoint(trained[1]), trained[0], name="x", split=split, episodes=2).episodes_digest
        for split in ("train", "validation", "test")
    }
    assert len(set(digests.values())) == 3


def test_the_two_batch_norm_modes_give_other_counts(trained):
    record = evaluate(load_checkpoint(trained[1]), trained[0], name="x", episodes=20)
    assert record.accuracies["transductive"] != record.accuracies["support"]


def test_in_support_mode_an_answer_does_not_depend_on_the_other_queries(trained):
    """What makes the mode inductive; the transductive one is the control."""
    drawn = episode(trained[0], "test", PROTOCOL, seed=EVALUATION_SEED, index=0)
    few = drawn._replace(query=type(drawn.query)(drawn.query.inputs[:5], drawn.query.targets[:5]))
    changes = {}
    for mode in ("support", "transductive"):
        experiment = build(tiny_config(batch_norm=mode), channels=3)
        params = experiment.init(0)
        whole, part = experiment.method.predict(params, drawn)[:5], experiment.method.predict(params, few)
        changes[mode] = float((whole - part).abs().max())
    assert changes["support"] < 1e-5 < changes["transductive"]


def test_parameters_are_adapted_once_an_episode_whatever_the_number_of_modes(trained):
    experiment, adaptations = build(tiny_config(), channels=3), []

    def counting(params, support):
        adaptations.append(1)
        return experiment.method.adapt(params, support)

    method = experiment.method._replace(adapt=counting)
    params = experiment.init(0)
    both = correct_counts(
        method, params, trained[0], "test", tiny_config(), episodes=3, modes=["transductive", "support"]
    )
    assert len(adaptations) == 3
    assert both["transductive"].tolist() != both["support"].tolist()


def test_one_mode_asked_for_is_the_only_one_in_the_record_and_equals_that_of_both(trained):
    checkpoint = load_checkpoint(trained[1])
    both = evaluate(checkpoint, trained[0], name="x", episodes=4)
    one = evaluate(checkpoint, trained[0], name="x", episodes=4, modes=("support",))
    assert one.accuracies == {"support": both.accuracies["support"]}
    assert one.metrics == {"accuracy_support": both.metrics["accuracy_support"]}


def test_the_record_says_what_was_trained_what_was_tested_and_which_step_was_selected(trained):
    dataset, path, _ = trained
    checkpoint = load_checkpoint(path)
    record = evaluate(checkpoint, dataset, name="low", episodes=5)
    config = tiny_config(alpha_low=0.05, seed=7)
    assert (record.name, record.seed, record.dtype) == ("low", 7, "float32")
    assert (Config.from_mapping(record.config), record.config_digest) == (config, config.digest)
    assert (record.data_name, record.data_digest) == (dataset.name, dataset.digest)
    assert record.protocol == {
        "ways": 3, "shots": 1, "queries": 4, "test_steps": 2, "perturb_at_test": False, "batch_norm": "transductive",
        "trained_on": dataset.digest, "split": "test", "episodes": 5, "evaluation_seed": EVALUATION_SEED,
        "selection": "best validation accuracy",
    }  # fmt: skip
    progress = checkpoint.metadata["progress"]
    assert record.selected_step == progress["best_step"] in (4, 8)
    assert record.learning_curve == progress["curve"]
    assert (record.started, record.seconds) == (progress["started"], progress["seconds"])
    assert record.peak_memory_bytes == progress["peak_memory_bytes"] > 0
    assert record.provenance["torch"] == torch.__version__
    for mode in ("transductive", "support"):
        values = record.accuracies[mode]
        assert len(values) == 5
        assert all(math.isclose(12 * value, round(12 * value)) for value in values)
        assert record.metrics[f"accuracy_{mode}"].mean == pytest.approx(np.mean(values))
        assert record.metrics[f"accuracy_{mode}"].n == 5


def test_a_method_that_does_not_adapt_has_no_test_steps(tmp_path):
    dataset = tiny_dataset(tmp_path / "tiny")
    settings = {name: getattr(Config(), name) for name in ("steps", "test_steps", "beta_low")}
    train(tiny_config(method="matching", iterations=1, **settings), dataset, tmp_path / "run")
    record = evaluate(load_checkpoint(tmp_path / "run/best.safetensors"), dataset, name="matching", episodes=2)
    assert record.protocol["test_steps"] is None


@pytest.mark.parametrize(("shape", "found"), [({"size": 20}, "20 pixels and 3"), ({"channels": 1}, "16 pixels and 1")])
def test_images_of_another_size_or_other_channels_are_refused(trained, tmp_path, shape, found):
    with pytest.raises(ValueError, match=f"trained on 16 pixels and 3 channels; tiny has {found}"):
        evaluate(load_checkpoint(trained[1]), tiny_dataset(tmp_path / "other", **shape), name="x", episodes=1)


@pytest.mark.parametrize("episodes", [0, -1])
def test_no_episodes_are_refused(trained, episodes):
    with pytest.raises(ValueError, match=f"episodes must be >= 1, got {episodes}"):
        evaluate(load_checkpoint(trained[1]), trained[0], name="x", episodes=episodes)


@pytest.mark.parametrize("key", ["config", "data", "progress"])
def test_a_checkpoint_that_is_not_the_trainers_is_refused(trained, key):
    checkpoint = load_checkpoint(trained[1])
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != key}
    with pytest.raises(CheckpointError, match=f"without '{key}'"):
        evaluate(checkpoint._replace(metadata=metadata), trained[0], name="x", episodes=1)


@pytest.mark.parametrize(
    ("key", "name"), [("config", "image_size"), ("data", "digest"), ("progress", "curve"), ("provenance", "commit")]
)
def test_a_checkpoint_whose_metadata_lacks_something_is_refused(trained, key, name):
    checkpoint = load_checkpoint(trained[1])
    without = {entry: value for entry, value in checkpoint.metadata[key].items() if entry != name}
    with pytest.raises(CheckpointError, match=f"whose '{key}' lacks {name}"):
        evaluate(checkpoint._replace(metadata={**checkpoint.metadata, key: without}), trained[0], name="x", episodes=1)


@pytest.mark.parametrize("change", ["absent", "misshapen", "foreign"])
def test_a_checkpoint_whose_parameters_do_not_fit_its_config_is_refused(trained, change):
    checkpoint = load_checkpoint(trained[1])
    tensors = dict(checkpoint.tensors)
    name = {"absent": "head.bias", "misshapen": "conv2.weight", "foreign": "other"}[change]
    if change == "absent":
        del tensors[f"params/{name}"]
    else:
        tensors[f"params/{name}"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=f"does not fit its own config: {name} should have shape"):
        evaluate(checkpoint._replace(tensors=tensors), trained[0], name="x", episodes=1)


def on_cuda(path: Path, place: Path) -> Path:
    """A copy of the checkpoint, as if it had been trained on a GPU."""
    checkpoint = load_checkpoint(path)
    metadata = {**checkpoint.metadata, "config": {**checkpoint.metadata["config"], "device": "cuda"}}
    save_checkpoint(place / "best.safetensors", tensors=checkpoint.tensors, metadata=metadata)
    return place / "best.safetensors"


def test_a_checkpoint_from_a_gpu_can_be_judged_without_one(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint = load_checkpoint(on_cuda(trained[1], tmp_path))
    with pytest.raises(ValueError, match="no CUDA device"):
        evaluate(checkpoint, trained[0], name="x", episodes=3)
    record = evaluate(checkpoint, trained[0], name="x", episodes=3, device="cpu")
    assert record.accuracies == evaluate(load_checkpoint(trained[1]), trained[0], name="x", episodes=3).accuracies
    assert record.config["device"] == "cuda"


@pytest.mark.gpu
def test_the_gpu_judges_as_the_cpu_does(trained, gpu):
    """A float32 logit may fall on the other side of another one; whole episodes may not."""
    checkpoint = load_checkpoint(trained[1])
    cpu, cuda = (evaluate(checkpoint, trained[0], name="x", episodes=20, device=d) for d in ("cpu", str(gpu)))
    for mode in ("transductive", "support"):
        assert cuda.metrics[f"accuracy_{mode}"].mean == pytest.approx(cpu.metrics[f"accuracy_{mode}"].mean, abs=0.02)


def test_the_presets_are_those_of_the_protocol():
    assert PRESETS == {"quick": 600, "standard": 1000, "full": 10000}
