"""The measurement of a tiny network, from its checkpoint, and what the page makes of a record."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sharp_maml import Config, Protocol, Result, build, episode, load_checkpoint, read_result, save_checkpoint, sources
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset
from theory.check.verdicts import TRACKED
from theory.networks import regime, regime_page
from theory.networks.local import sample
from theory.networks.regime import Network, Settings, main
from theory.networks.regime_page import ratios, table

ORIGIN = {"commit": "c", "dirty": False, "sources": {}}
RECORD = {"settings": {"meta_batches": 2, "samples": 8}}
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
    found = network.algorithm(params, tasks).grad
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-11)
    without = network.exact(params, tasks).grad
    assert any(not torch.allclose(without[name], value, rtol=1e-3) for name, value in expected.items())


FOUND = {
    "row": "both",
    "state": "best",
    "name": "both, seed 0, best",
    "step": 100,
    "parameter_norm": 10.0,
    "config": {
        "beta_low": 0.5, "beta_up": 0.01, "alpha_low": 0.1, "alpha_up": 0.2, "steps": 1, "iterations": 100,
        "meta_batch": 4, "optimizer": "adam", "schedule": "constant", "seed": 0,
    },
    "tasks": [
        {
            "low": -1.0, "high": 4.0, "L0": 2.0, "L1": 4.0, "Lq": 3.0, "sg": 0.3, "sH": 0.5, "sq": 0.7,
            "slope": 1.0, "step": 0.5,
            **{f"L1 {name} {scale:g}": 4 / scale for name in ("gradient", "random") for scale in regime_page.SCALES},
            **{f"L2 {name} {scale:g}": 6 / scale for name in ("gradient", "random") for scale in regime_page.SCALES},
        }
    ],
    "meta_batches": [
        {"loss": 1.0, "low": -2.0, "high": 20.0, "L_F": 20.0, "bias^2": 0.04, "slope^2": 0.25},
        {"loss": 2.0, "low": -3.0, "high": 10.0, "L_F": 10.0, "bias^2": -0.02, "slope^2": 0.25},
    ],
}  # fmt: skip


def test_ratios_are_those_of_the_theorem_written_out() -> None:
    found = ratios(FOUND)
    kappa, formula = 1 + 0.5 * 4, 9 * 3 + 0.5 * 6 * 2
    b = formula * 0.2 + 0.5 * (kappa * 3 * 4 + 6 * 2) * 0.1 + 3 * 0.5 * 0.3 * math.sqrt(9 + 0.25 * 0.25)
    without = formula * 0.2 + 0.5 * (kappa * 3 * 4 + 6 * 2) * 0.1
    noise = math.sqrt((9 * 0.49 + 0.25 * (kappa * 3 * 0.3 + 0.5 * 2) ** 2) / 4)
    lam = 0.01 * formula
    rest = 2 * 1.5 / (0.01 * 100) + lam * (b**2 + (noise + without) ** 2)
    G = ((1 - lam) * b + math.sqrt((1 - lam) ** 2 * b**2 + (2 - lam) * rest)) / (2 - lam)
    expected = {
        "step": 0.01 * 20, "fold": 0.5 * 4, "L1": 100.0, "L2": 100.0, "smoothness": 20 / formula,
        "bias": 0.1 / b, "informative": b / 0.5, "bound": G / 0.5,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert list(found) == list(regime_page.QUESTIONS)


def test_a_step_that_is_too_long_is_bounded_at_the_longest_that_is_allowed() -> None:
    long = {**FOUND, "config": {**FOUND["config"], "beta_up": 1.0}}
    allowed = {**FOUND, "config": {**FOUND["config"], "beta_up": 1 / (9 * 3 + 0.5 * 6 * 2)}}
    assert ratios(long)["step"] == pytest.approx(20)
    assert ratios(long)["bound"] == pytest.approx(ratios(allowed)["bound"])


def test_formulas_of_one_inner_step_say_nothing_of_several() -> None:
    several = ratios({**FOUND, "config": {**FOUND["config"], "steps": 5}})
    assert [name for name, value in several.items() if value is None] == ["smoothness", "bias", "informative", "bound"]
    networks = [{**FOUND, "config": {**FOUND["config"], "steps": 5}}]
    page = table(Result("regime", ORIGIN, {**RECORD, "networks": networks}), "regime.json")
    assert page.count("| unknown |") == 4


def test_of_a_gradient_whose_square_is_estimated_as_negative_no_share_is_given() -> None:
    batches = [{**batch, "slope^2": -0.1} for batch in FOUND["meta_batches"]]
    found = ratios({**FOUND, "meta_batches": batches})
    assert [name for name, value in found.items() if value is None] == ["informative", "bound"]
    networks = [{**FOUND, "meta_batches": batches}]
    page = table(Result("regime", ORIGIN, {**RECORD, "networks": networks}), "regime.json")
    assert page.count("| unknown |") == 3


@pytest.mark.slow
def test_the_command_writes_record_figure_and_page_and_measures_nothing_twice(run, tmp_path, capsys, monkeypatch):
    path, data = run
    arguments = [str(path), "--data", str(data), "--meta-batches", "1", "--samples", "4", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "both, seed 0, initial: " in capsys.readouterr().out
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


def test_a_record_of_other_code_is_said_to_be_one() -> None:
    payload = read_result(TRACKED / "regime.json", "regime").payload
    code = sources("theory.networks.local")
    assert "earlier code" not in table(Result("regime", {**ORIGIN, "sources": code}, payload), "")
    code["theory.networks.local"] = "0" * 16
    page = table(Result("regime", {**ORIGIN, "sources": code}, payload), "")
    assert "**Measured by earlier code**: theory.networks.local changed since; `make regime` measures anew." in page


def test_the_networks_of_the_tracked_record_were_measured_by_one_committed_code() -> None:
    result = read_result(TRACKED / "regime.json", "regime")
    record = result.payload
    assert not result.provenance["dirty"]
    assert all(network["sources"] == result.provenance["sources"] for network in record["networks"])
    by_sgd = Config.from_toml(Path(regime.__file__).with_name("regime.toml")).digest
    assert {network["config_digest"] for network in record["networks"] if network["row"] == "maml-sgd"} == {by_sgd}
