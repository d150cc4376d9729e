from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sharp_maml import Config, conv4, load_checkpoint, save_checkpoint
from sharp_maml.train import train
from sharp_maml_command import main
from tests.sharp_maml.tiny import tiny_config, tiny_dataset

COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network in float64, of three classes at 16 pixels."""
    place = tmp_path_factory.mktemp("adapt")
    train(tiny_config(dtype="float64"), tiny_dataset(place / "tiny"), place / "run")
    return place / "run/best.safetensors"


def paint(path, colour, seed):
    """A noisy image of a colour, 16 pixels square; returns its pixels."""
    pixels = np.clip(np.array(colour) + np.random.default_rng(seed).integers(-20, 20, (16, 16, 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pixels


@pytest.fixture
def painted(tmp_path):
    """A folder of labelled images, one to three a class, a folder of others; and the pixels of both."""
    labelled = {
        name: [paint(tmp_path / "labelled" / name / f"{i}.png", colour, 10 * n + i) for i in range(n + 1)]
        for n, (name, colour) in enumerate(COLOURS.items())
    }
    others = [paint(tmp_path / f"others/deep/{name}.png", colour, 99) for name, colour in COLOURS.items()]
    return labelled, others


def by_hand(checkpoint, labelled, others, mode="support", steps=2):
    """Gradient descent by torch.autograd on the network's own logits; probabilities, and the parameters."""
    as_tensor = lambda images: torch.tensor(np.stack(images), dtype=torch.float64).permute(0, 3, 1, 2) / 255  # noqa: E731
    model = conv4(ways=3, filters=4, image_size=16, channels=3)
    inputs = as_tensor([image for images in labelled.values() for image in images])
    targets = torch.tensor([i for i, images in enumerate(labelled.values()) for _ in images])
    params = {
        name.removeprefix("params/"): value.requires_grad_()
        for name, value in load_checkpoint(checkpoint).tensors.items()
        if name.startswith("params/")
    }
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model.logits(params, inputs, None), targets)
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {
            name: (value - 0.2 * grad).detach().requires_grad_()
            for (name, value), grad in zip(params.items(), grads, strict=True)
        }
    logits = model.logits(params, as_tensor(others), inputs if mode == "support" else None)
    return logits.softmax(1).detach().numpy(), params


@pytest.mark.parametrize("mode", ["support", "transductive"])
@pytest.mark.parametrize("steps", [None, 5])
def test_probabilities_are_those_of_gradient_descent_by_hand_on_the_same_images(
    checkpoint, painted, tmp_path, capsys, mode, steps
):
    own = ["--batch-norm", mode, *(["--test-steps", str(steps)] if steps else [])]
    words = ["adapt", str(checkpoint), str(tmp_path / "labelled"), str(tmp_path / "others"), *own, "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    expected, _ = by_hand(checkpoint, *painted, mode, steps or 2)
    assert said["classes"] == list(COLOURS)
    files = [each["file"] for each in said["predictions"]]
    assert files == [str(tmp_path / f"others/deep/{name}.png") for name in COLOURS]
    found = np.array([[each["probabilities"][name] for name in COLOURS] for each in said["predictions"]])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    best = [(each["class"], each["probability"]) for each in said["predictions"]]
    assert best == [(list(COLOURS)[row.argmax()], row.max()) for row in found]


def test_the_adapted_parameters_are_kept_and_are_no_checkpoint_to_judge(checkpoint, painted, tmp_path, capsys):
    output = tmp_path / "new/adapted.safetensors"
    words = ["adapt", str(checkpoint), str(tmp_path / "labelled"), str(tmp_path / "others"), "--output", str(output)]
    assert main(words) == 0
    kept = load_checkpoint(output)
    _, expected = by_hand(checkpoint, *painted)
    assert {name.removeprefix("params/") for name in kept.tensors} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(kept.tensors[f"params/{name}"], value.detach(), rtol=1e-9, atol=1e-12)
    assert kept.metadata["classes"] == list(COLOURS)
    assert main(["evaluate", str(output), str(checkpoint.parents[1] / "tiny")]) == 2
    assert "without 'progress'" in capsys.readouterr().err


def test_the_table_has_a_line_for_each_file_in_the_order_given(checkpoint, painted, tmp_path, capsys):
    files = [str(tmp_path / f"others/deep/{name}.png") for name in ("red", "blue")]
    assert main(["adapt", str(checkpoint), str(tmp_path / "labelled"), *files]) == 0
    first, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert first == ["file", "class", "probability"]
    assert [line[0] for line in lines] == files
    expected, _ = by_hand(checkpoint, painted[0], [painted[1][2], painted[1][0]])
    assert [line[2] for line in lines] == [f"{row.max():.3f}" for row in expected]


def test_an_answer_does_not_depend_on_how_many_others_are_asked(checkpoint, painted, tmp_path, capsys):
    """More than are in memory at a time, and one alone."""
    one = str(tmp_path / "others/deep/red.png")
    found = []
    for files in ([one], [one] * 70):
        assert main(["adapt", str(checkpoint), str(tmp_path / "labelled"), *files, "--json"]) == 0
        found.append([each["probability"] for each in json.loads(capsys.readouterr().out)["predictions"]])
    assert len(found[1]) == 70
    np.testing.assert_allclose(found[1], found[0][0], rtol=1e-9)


def labelled_with_another_class(place):
    paint(place / "labelled/white/0.png", (250, 250, 250), 0)


def labelled_damaged(place):
    path = place / "labelled/red/0.png"
    path.write_bytes(path.read_bytes()[:60])


def labelled_without_images(place):
    (place / "labelled/red/0.png").parent.rename(place / "elsewhere")
    (place / "labelled/red").mkdir()


def others_empty(place):
    (place / "others/deep").rename(place / "elsewhere")


def others_no_image(place):
    (place / "others/deep/red.png").write_text("red")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (labelled_with_another_class, "tells 3 classes apart, the labelled images have 4 (blue, green, red, white)"),
        (labelled_damaged, "red/0.png: expected an image, found a truncated or damaged file"),
        (labelled_without_images, "labelled/red: expected images that Pillow reads, found none"),
        (others_empty, "others: expected images that Pillow reads, found none"),
        (others_no_image, "deep/red.png: expected an image, found a truncated or damaged file"),
    ],
)
def test_what_is_wrong_with_the_images_is_one_line(checkpoint, painted, tmp_path, capsys, spoil, said):
    spoil(tmp_path)
    assert main(["adapt", str(checkpoint), str(tmp_path / "labelled"), str(tmp_path / "others")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("labelled", "others", "said"),
    [
        ("nowhere", "others", "nowhere: expected a folder with a sub-folder of images for each class, found nothing"),
        (
            "labelled/red/0.png",
            "others",
            "0.png: expected a folder with a sub-folder of images for each class, found a",
        ),
        ("others/deep", "others", "deep: expected one folder of images a class, all side by side, found images in ."),
        ("labelled", "nowhere.png", "nowhere.png: cannot be read (No such file or directory)"),
    ],
)
def test_a_path_that_is_not_what_it_should_be_is_named(checkpoint, painted, tmp_path, capsys, labelled, others, said):
    assert main(["adapt", str(checkpoint), str(tmp_path / labelled), str(tmp_path / others)]) == 2
    assert said in capsys.readouterr().err


def test_a_method_that_does_not_adapt_compares_and_refuses_test_steps(tmp_path, painted, capsys):
    own = {"image_size": 16, "filters": 4, "ways": 3, "queries": 4, "threads": 1, "method": "matching"}
    config = Config.from_mapping({**own, "iterations": 1, "validation_episodes": 2})
    train(config, tiny_dataset(tmp_path / "tiny"), tmp_path / "run")
    words = ["adapt", str(tmp_path / "run/best.safetensors"), str(tmp_path / "labelled"), str(tmp_path / "others")]
    assert main([*words, "--json"]) == 0
    for each in json.loads(capsys.readouterr().out)["predictions"]:
        assert sum(each["probabilities"].values()) == pytest.approx(1, rel=1e-5)
    assert main([*words, "--test-steps", "3"]) == 2
    assert "test_steps has no meaning for method = 'matching'" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_the_trainers_is_refused(tmp_path, painted, capsys):
    save_checkpoint(tmp_path / "own.safetensors", tensors={"x": torch.ones(1)}, metadata={"config_digest": "1"})
    assert main(["adapt", str(tmp_path / "own.safetensors"), str(tmp_path / "labelled"), str(tmp_path / "others")]) == 2
    assert "expected a checkpoint of the trainer" in capsys.readouterr().err
