from __future__ import annotations

import numpy as np
import pytest
import torch

from sharp_maml import Batch, Episode, Protocol, episode, load_checkpoint, trained_params
from sharp_maml.classify import classify, pixels_of
from sharp_maml.data import Pixels, as_inputs
from sharp_maml.methods import build
from sharp_maml.train import train
from tests.sharp_maml.tiny import tiny_config, tiny_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set, and a checkpoint of a network that was trained on it."""
    place = tmp_path_factory.mktemp("classify")
    dataset = tiny_dataset(place / "tiny")
    train(tiny_config(), dataset, place / "run")
    return dataset, load_checkpoint(place / "run/best.safetensors")


def images_of(dataset, first, last):
    """Images first ... last-1 of three test classes."""
    source = dataset.splits["test"]
    return {source.names[i]: source.images[source.starts[i] + first : source.starts[i] + last] for i in range(3)}


def test_a_network_takes_what_it_was_trained_on(trained):
    assert pixels_of(trained[1]) == Pixels("tiny", 16, 3)


def test_inputs_are_those_of_an_episode(trained):
    """Every image of an episode is found among the pixels of its split, made into inputs here."""
    dataset, _ = trained
    every = as_inputs(np.array(dataset.splits["test"].images))
    drawn = episode(dataset, "test", Protocol(3, 1, 4), seed=0, index=0)
    for one in drawn.query.inputs:
        assert (every == one).flatten(1).all(1).sum() == 1


@pytest.mark.parametrize("mode", ["support", "transductive"])
def test_the_logits_are_those_of_the_method(trained, mode):
    dataset, checkpoint = trained
    support, queries = images_of(dataset, 0, 2), np.concatenate(list(images_of(dataset, 2, 6).values()))
    found = classify(checkpoint, support, queries, batch_norm=mode)
    assert found.classes == tuple(support)
    assert found.probabilities.shape == (12, 3)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    initial, method = build(tiny_config(), channels=3)
    params = trained_params(checkpoint, initial(0))
    labelled = Batch(as_inputs(np.concatenate(list(support.values()))), torch.arange(3).repeat_interleave(2))
    asked = Episode(labelled, Batch(as_inputs(queries), torch.zeros(12, dtype=torch.int64)))
    expected = method.logits(method.adapt(params, labelled), asked, mode).softmax(1)
    np.testing.assert_allclose(found.probabilities, expected.double(), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((4, 16, 16, 1), "got shape"), ((4, 8, 8, 3), "16 x 16 pixels and 3 channels"), ((0, 16, 16, 3), "one image or")],
)
def test_images_of_another_shape_and_none_are_refused(trained, shape, said):
    dataset, checkpoint = trained
    with pytest.raises(ValueError, match=f"queries: expected .*{said}"):
        classify(checkpoint, images_of(dataset, 0, 1), np.zeros(shape, np.uint8))
