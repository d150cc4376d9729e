"""Networks early in their training: what a shorter training of the same beginning ends with, made once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reproductions.tables import early
from sharp_maml import load_checkpoint, save_checkpoint
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The best checkpoint of a run of ten iterations, and its data."""
    place = tmp_path_factory.mktemp("early")
    config = tiny_config(iterations=10, alpha_low=0.05, seed=3)
    train(config, tiny_dataset(place / "data"), place / "low/seed3")
    return place / "low/seed3/best.safetensors", place / "data"


def test_the_early_network_is_what_a_training_of_a_fifth_ends_with(run, tmp_path, capsys) -> None:
    """The outer step is constant here, so that the shorter training takes the same ones."""
    path, data = run
    assert early.main([str(path), "--data", str(data)]) == 0
    place = path.with_name("early.safetensors")
    assert capsys.readouterr().out.splitlines()[-1] == str(place)
    short = replace(tiny_config(alpha_low=0.05, seed=3), iterations=2)
    train(short, tiny_dataset(tmp_path / "data"), tmp_path / "short")
    expected = load_checkpoint(tmp_path / "short/last.safetensors").tensors
    found = load_checkpoint(place)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], expected[name]) for name in expected)
    assert found.metadata["progress"]["step"] == 2
    best = load_checkpoint(path).metadata
    assert [found.metadata[name] for name in ("config", "config_digest", "data")] == [
        best[name] for name in ("config", "config_digest", "data")
    ]


def test_it_is_made_once_and_anew_where_the_settings_are_others(run, monkeypatch) -> None:
    path, data = run
    place = early.train_early(path, data)
    with monkeypatch.context() as patch:
        patch.setattr(early, "train", None)
        assert early.train_early(path, data) == place
    tensors, metadata = load_checkpoint(place)
    save_checkpoint(place, tensors=tensors, metadata={**metadata, "config_digest": "0" * 64})
    early.train_early(path, data)
    assert load_checkpoint(place).metadata["config_digest"] == load_checkpoint(path).metadata["config_digest"]


def test_what_does_not_fit_is_named(run, tmp_path, capsys) -> None:
    path, _ = run
    tiny_dataset(tmp_path / "other", seed=1)
    copy = tmp_path / "best.safetensors"
    copy.write_bytes(path.read_bytes())
    assert early.main([str(copy), "--data", str(tmp_path / "other")]) == 2
    assert "was trained on other data than" in capsys.readouterr().err
    save_checkpoint(copy, tensors={}, metadata={"config_digest": ""})
    assert early.main([str(copy), "--data", str(tmp_path / "other")]) == 2
    assert "is not a checkpoint of the trainer" in capsys.readouterr().err
    assert not (tmp_path / "early.safetensors").exists()
