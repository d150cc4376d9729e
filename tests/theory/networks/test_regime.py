"""The measurement of a tiny network, from its checkpoint, and which networks a record has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reproductions.tables.early import train_early
from sharp_maml import Config, Protocol, build, episode, load_checkpoint, open_dataset, read_result, save_checkpoint
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset
from tests.theory.networks.found import FOUND
from theory.check.verdicts import TRACKED
from theory.networks import regime
from theory.networks.local import sample
from theory.networks.regime import Network, Settings, main
from theory.networks.regime_page import table

SMALL = Settings(meta_batches=1, samples=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoint of a run, and its data."""
    place = tmp_path_factory.mktemp("regime")
    config = tiny_config(alpha_up=0.01, alpha_low=0.05, queries=2)
    train(config, tiny_dataset(place / "data"), place / "both" / "seed0")
    return place / "both/seed0/best.safetensors", place / "data"


@pytest.fixture
def network(run) -> Network:
    return Network(*run)


def altered(path, place, **settings: object):
    """A copy of the checkpoint with other settings in it."""
    checkpoint = load_checkpoint(path)
    metadata = {**checkpoint.metadata, "config": {**checkpoint.metadata["config"], **settings}}
    save_checkpoint(place / "best.safetensors", tensors=checkpoint.tensors, metadata=metadata)
    return place / "best.safetensors"


def test_samples_are_new_images_of_the_classes_of_an_episode(network) -> None:
    task = network.task(3, SMALL)
    assert [tuple(half.inputs.shape) for half in task] == [(4, 3, 3, 16, 16), (4, 6, 3, 16, 16)]
    whole = episode(network.dataset, "validation", Protocol(3, 11, 1), seed=SMALL.seed, index=3, dtype=torch.float64)
    for i in range(4):
        used = []
        for half in sample(task, i):
            for image, label in zip(half.inputs[0], half.targets[0], strict=True):
                of_class = torch.cat([one.inputs[one.targets == label] for one in whole])
                (place,) = torch.nonzero((of_class == image).flatten(1).all(1)).flatten().tolist()
                used.append((int(label), place))
        assert len(set(used)) == len(used) == 9
    assert not torch.equal(task.support.inputs[0], task.support.inputs[1])
    assert torch.equal(network.task(3, SMALL).query.inputs, task.query.inputs)


def test_a_network_begins_as_its_training_did_and_ends_as_the_checkpoint_has_it(run, network) -> None:
    start = build(network.config, channels=3).init(network.config.seed)
    for name, value in start.items():
        assert torch.equal(network.states["initial"][name], value.double())
    end = load_checkpoint(run[0]).tensors
    for name, value in network.states["best"].items():
        assert torch.equal(value, end[f"params/{name}"].double())


@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
def test_on_single_samples_its_meta_gradient_is_that_of_the_trainer(run, tmp_path, batch_norm: str) -> None:
    path, data = run
    network = Network(altered(path, tmp_path, batch_norm=batch_norm, dtype="float64"), data)
    params = network.states["best"]
    tasks = [sample(network.task(m, SMALL), 1) for m in range(2)]
    plain = [type(task)(*(type(half)(half.inputs[0], half.targets[0]) for half in task)) for task in tasks]
    expected = build(network.config, channels=3).method.gradient(params, plain).grad
    found = network.gradient(network.configs["best"])(params, tasks).grad
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-11)
    maml = build(replace(network.config, alpha_low=0.0, alpha_up=0.0), channels=3).method.gradient(params, plain).grad
    without = network.gradient(network.configs["initial"])(params, tasks).grad
    for name, value in maml.items():
        torch.testing.assert_close(without[name], value, rtol=1e-8, atol=1e-11)
    assert any(not torch.allclose(maml[name], value, rtol=1e-3) for name, value in expected.items())


@pytest.mark.slow
def test_the_command_writes_record_figure_and_page_and_measures_nothing_twice(run, tmp_path, capsys, monkeypatch):
    path, data = run
    arguments = [str(path), "--data", str(data), "--meta-batches", "1", "--samples", "4", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "all rows, seed 0, initial: " in capsys.readouterr().out
    result = read_result(tmp_path / "regime.json", "regime")
    record = result.payload
    assert (tmp_path / "REGIME.md").read_text() == table(result, "regime.json")
    assert [network["state"] for network in record["networks"]] == ["initial", "best"]
    assert record["networks"][1]["tensors_digest"] == load_checkpoint(path).metadata["tensors_digest"]
    assert str(tmp_path.parent) not in (tmp_path / "regime.json").read_text()
    assert (tmp_path / "regime.png").stat().st_size > 10_000
    monkeypatch.setattr(Network, "measured", None)
    assert main(arguments) == 0
    assert read_result(tmp_path / "regime.json", "regime").payload == record


@pytest.fixture
def measured(monkeypatch) -> list[tuple[str, str, float]]:
    """Nothing is measured: what would have been, as variant, state and outer step of the network."""
    called: list[tuple[str, str, float]] = []

    def stand_in(self, state, settings, description=""):
        called.append((self.config.variant, state, self.config.beta_up))
        return {name: FOUND[name] for name in ("parameter_norm", "tasks", "meta_batches")}

    monkeypatch.setattr(Network, "measured", stand_in)
    return called


def trained_as(place: Path, data: Path, state: str = "best", **settings: object) -> Path:
    """A checkpoint in a folder for its row."""
    train(tiny_config(queries=2, iterations=1, validate_every=1, **settings), tiny_dataset(data), place / "seed0")
    return (place / "seed0/best.safetensors").rename(place / f"seed0/{state}.safetensors")


def test_a_start_that_several_networks_share_is_measured_once(tmp_path, measured) -> None:
    data = tmp_path / "data"
    paths = [
        trained_as(tmp_path / "maml", data),
        trained_as(tmp_path / "both", data, alpha_low=0.05, alpha_up=0.01),
        trained_as(tmp_path / "maml-sgd", data, optimizer="sgd", beta_up=0.5),
        trained_as(tmp_path / "other", data, seed=1),
    ]
    assert main([*map(str, paths), "--data", str(data), "--output", str(tmp_path)]) == 0
    starts = [variant for variant, state, _ in measured if state == "initial"]
    assert starts == ["maml", "maml"]  # seeds 0 and 1
    networks = read_result(tmp_path / "regime.json", "regime").payload["networks"]
    assert [network["name"] for network in networks if network["step"] == 0] == [
        "all rows, seed 0, initial", "all rows, seed 0, initial", "all rows, seed 1, initial",
    ]  # fmt: skip
    of_start = [network["config"] for network in networks if network["step"] == 0]
    assert [config["beta_up"] for config in of_start] == [0.01, 0.5, 0.01]
    assert {config["alpha_low"] for config in of_start} == {0.0}
    assert [network["row"] for network in networks if network["step"]] == ["maml", "both", "maml-sgd", "other"]


def test_a_state_along_the_training_is_measured_beside_its_end(run, tmp_path, measured) -> None:
    path, data = run
    early = train_early(path, data)
    assert main([str(early), str(path), "--data", str(data), "--output", str(tmp_path)]) == 0
    networks = read_result(tmp_path / "regime.json", "regime").payload["networks"]
    assert [(one["state"], one["step"]) for one in networks] == [
        ("initial", 0),
        ("early", 1),
        ("best", networks[2]["step"]),
    ]
    assert networks[2]["step"] > 1


def test_the_command_keeps_the_networks_of_other_data_that_were_measured_alike(tmp_path, measured, capsys) -> None:
    place = tmp_path / "out"
    arguments = {}
    for name, seed in (("one", 0), ("two", 5)):
        tiny_dataset(tmp_path / name, seed=seed)
        path = tmp_path / name / "maml/seed0/best.safetensors"
        config = tiny_config(queries=2, iterations=1, validate_every=1)
        train(config, open_dataset(tmp_path / name), path.parent)
        arguments[name] = [str(path), "--data", str(tmp_path / name), "--output", str(place)]

    def digests() -> list[str]:
        return [one["data_digest"] for one in read_result(place / "regime.json", "regime").payload["networks"]]

    assert main(arguments["one"]) == 0
    first = digests()
    assert main(arguments["two"]) == 0
    assert len(digests()) == 4
    assert set(first) < set(digests())
    assert main(arguments["two"]) == 0
    assert len(digests()) == 4
    assert main([*arguments["one"], "--samples", "4"]) == 0
    assert digests() == first
    assert "2 networks of other data are left out, measured by other code or settings" in capsys.readouterr().out


def test_what_is_missing_or_does_not_fit_is_named(run, tmp_path, capsys) -> None:
    path, data = run

    def error(*arguments: object) -> str:
        assert main(["--data", str(data), *map(str, arguments), "--output", str(tmp_path)]) == 2
        return capsys.readouterr().err

    assert "no checkpoint is named" in error()
    assert "none.safetensors" in error(tmp_path / "none.safetensors")
    assert "samples must be even and >= 4, got 5" in error(path, "--samples", 5)
    assert "meta_batches must be >= 1, got 0" in error(path, "--meta-batches", 0)
    tiny_dataset(tmp_path / "other", seed=1)
    assert "was trained on other data" in error(path, "--data", tmp_path / "other")
    assert "has inner_params = 'head', of which the theorem" in error(altered(path, tmp_path, inner_params="head"))
    save_checkpoint(tmp_path / "bare.safetensors", tensors={}, metadata={"config_digest": ""})
    assert "is not a checkpoint of the trainer" in error(tmp_path / "bare.safetensors")


def test_the_networks_of_the_tracked_record_were_measured_by_one_committed_code() -> None:
    result = read_result(TRACKED / "regime.json", "regime")
    record = result.payload
    assert not result.provenance["dirty"]
    assert all(network["sources"] == result.provenance["sources"] for network in record["networks"])
    sgd = Config.from_toml(Path(regime.__file__).with_name("regime.toml"))
    of_sgd = [network for network in record["networks"] if network["config"]["optimizer"] == "sgd"]
    assert of_sgd
    for network in of_sgd:
        assert network["config_digest"] == replace(sgd, seed=network["config"]["seed"]).digest
