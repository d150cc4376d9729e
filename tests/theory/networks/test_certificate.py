"""The certificate of a tiny network, from its checkpoint."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from sharp_maml import Protocol, build, episode, load_checkpoint, read_result, sources
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset
from theory.generalization.pac_bayes import kl_inverse
from theory.networks import certificate
from theory.networks.certificate import Network, certify, main, table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A data set, and the checkpoint of a run on it."""
    place = tmp_path_factory.mktemp("certificate")
    dataset = tiny_dataset(place / "data")
    train(tiny_config(alpha_up=0.01), dataset, place / "both" / "seed0")
    return dataset, place / "both/seed0/best.safetensors"


def test_a_network_knows_its_tasks_and_where_it_began(run) -> None:
    dataset, path = run
    network = Network(path, dataset)
    config = network.config
    assert network.tasks == load_checkpoint(path).metadata["progress"]["step"] * config.meta_batch
    start = build(config, channels=3).init(config.seed)
    assert all(torch.equal(network.start[name], value) for name, value in start.items())
    first = episode(dataset, "train", Protocol(3, 1, 4), seed=config.seed, index=0)
    assert torch.equal(network.task(0).query.inputs, first.query.inputs)
    assert not torch.equal(network.task(0, seed=1).query.inputs, first.query.inputs)
    risk = network.loss(network.params, first)
    logits = network.method.predict(network.params, first)
    assert risk == pytest.approx(float((logits.argmax(-1) != first.query.targets).double().mean()))


def test_without_perturbation_it_is_the_risk_on_its_tasks(run, monkeypatch) -> None:
    network = Network(run[1], run[0])
    task, loss = network.task, network.loss

    @cache
    def of(index: int) -> float:
        return loss(network.params, task(index))

    def judged_once(params, index: int) -> float:
        assert all(torch.equal(value, network.params[name]) for name, value in params.items())
        return of(index)

    monkeypatch.setattr(network, "task", lambda index, **_: index)
    monkeypatch.setattr(network, "loss", judged_once)
    found = network.perturbed(0.0, 400, torch.Generator().manual_seed(0), 1e-3)
    exact = network.risk(network.tasks).mean
    assert found.low <= exact <= found.high
    assert found.high - found.mean == pytest.approx(math.sqrt(math.log(2e3) / 800), abs=1e-12) or found.high == 1


def test_bounds_are_above_what_they_bound_and_in_line_with_each_other(run, monkeypatch) -> None:
    monkeypatch.setattr(certificate, "DEVIATIONS", (0.01, 100.0))
    found = certify(Network(run[1], run[0]), "both", samples=20, judged=10)
    assert (found.name, found.variant) == ("both", "alpha_low = 0, alpha_up = 0.01")
    assert found.guessing == pytest.approx(2 / 3)
    for row in found.rows:
        assert row.theorem == pytest.approx(row.risk.high + row.root)
        assert row.risk.high <= row.kl <= 1
        assert 0 <= row.ascent <= 1
        assert row.radius > row.deviation
    narrow, wide = found.rows
    # A Gaussian as wide as this swallows the distance, and with it the network.
    level = certificate.DELTA / 4
    information = found.distance**2 / 100**2 / 2 + math.log(2 * math.sqrt(found.tasks) / (6 / math.pi**2 * level))
    assert wide.kl == pytest.approx(kl_inverse(wide.risk.high, information / found.tasks), abs=1e-3)
    assert narrow.root > wide.root
    assert found.best == min(bound for row in found.rows for bound in (row.theorem, row.kl, row.pac_bus))
    assert found.verdict.startswith("vacuous") == (found.best >= found.guessing)


def test_the_command_writes_record_figure_and_table(run, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(certificate, "DEVIATIONS", (0.01, 0.1))
    _, path = run
    arguments = [str(path), "--data", str(path.parents[2] / "data"), "--samples", "5", "--judged", "4"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert "both: smallest bound" in capsys.readouterr().out
    result = read_result(tmp_path / "certificate.json", "certificate")
    assert (result.payload["delta"], len(result.payload["networks"][0]["rows"])) == (0.05, 2)
    assert result.provenance["sources"] == sources("theory.networks.certificate")
    text = (tmp_path / "CERTIFICATE.md").read_text()
    assert "| both (alpha_low = 0, alpha_up = 0.01) |" in text
    assert "certificate.png" in text
    assert (tmp_path / "certificate.png").stat().st_size > 10_000
    assert text == table(result, "certificate.json")


def test_what_is_missing_or_does_not_fit_is_named(run, tmp_path, capsys) -> None:
    _, path = run
    data = str(path.parents[2] / "data")
    assert main([str(tmp_path / "none.safetensors"), "--data", data]) == 2
    assert main([str(path), "--data", str(tmp_path / "nothing")]) == 2
    assert main([str(path), "--data", data, "--samples", "0"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
    other = tiny_dataset(tmp_path / "large", size=32)
    with pytest.raises(ValueError, match="is of 16 pixels, but tiny has 32"):
        Network(path, other)
