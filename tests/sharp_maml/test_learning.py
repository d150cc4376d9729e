"""MAML learns a real data set: the whole path from files on disk to test accuracy."""

from __future__ import annotations

import pytest

from sharp_maml import Config, load_checkpoint, open_dataset
from sharp_maml.evaluate import evaluate
from sharp_maml.train import train


@pytest.mark.long
@pytest.mark.data
def test_maml_reaches_85_percent_on_omniglot_after_1000_iterations(data_path, tmp_path):
    """5-way 1-shot, train small2, test small1 without the alphabets of both, rotations as classes."""
    dataset = open_dataset(data_path("omniglot"), size=28, cache_dir=tmp_path / "cache")
    config = Config(
        image_size=28,
        filters=32,
        steps=1,
        test_steps=1,
        beta_low=0.4,
        iterations=1000,
        validate_every=500,
        validation_episodes=100,
        threads=1,
    )
    train(config, dataset, tmp_path / "run")
    record = evaluate(load_checkpoint(tmp_path / "run/last.safetensors"), dataset, name="maml", modes=["transductive"])
    assert record.metrics["accuracy_transductive"].mean >= 0.85
