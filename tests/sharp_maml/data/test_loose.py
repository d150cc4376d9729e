from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharp_maml.data import Pixels, labelled_images, open_dataset, unlabelled_images


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Three splits of two classes: images of other shapes and modes, larger and smaller than what is asked for."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "own" / split / f"{split}-{name}"
            folder.mkdir(parents=True)
            for i, (shape, mode) in enumerate([((24, 24), "RGB"), ((17, 30), "L"), ((9, 7), "RGB"), ((40, 40), "P")]):
                pixels = random.integers(0, 256, (*shape, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")
    return tmp_path / "own"


@pytest.mark.parametrize("size", [8, 12, 20])
def test_labelled_images_are_the_pixels_that_training_sees(own: Path, size: int) -> None:
    trained_on = open_dataset(own, size=size).splits["test"]
    found = labelled_images(own / "test", Pixels("folders", size, 3))
    assert tuple(found) == trained_on.names
    assert tuple(map(len, found.values())) == trained_on.counts
    np.testing.assert_array_equal(np.concatenate(list(found.values())), trained_on.images)


def test_files_and_folders_are_the_same_pixels_in_the_order_given(own: Path) -> None:
    pixels = Pixels("folders", 8, 3)
    names, images = unlabelled_images([own / "test/test-b/2.png", own / "test"], pixels)
    labelled = np.concatenate(list(labelled_images(own / "test", pixels).values()))
    assert names == [
        str(own / f"test/test-{name}.png") for name in ("b/2", *(f"{c}/{i}" for c in "ab" for i in range(4)))
    ]
    np.testing.assert_array_equal(images[1:], labelled)
    np.testing.assert_array_equal(images[0], labelled[4 + 2])


@pytest.mark.parametrize(("dataset", "is_inverted"), [("omniglot", True), ("omniglot-small", True), ("mine", False)])
def test_grey_images_are_inverted_where_the_training_images_were(dataset: str, is_inverted: bool, own: Path) -> None:
    path = own / "test/test-a/0.png"
    grey = np.asarray(Image.open(path).convert("L"))
    _, images = unlabelled_images([path], Pixels(dataset, 24, 1))
    np.testing.assert_array_equal(images[0, ..., 0], 255 - grey if is_inverted else grey)
