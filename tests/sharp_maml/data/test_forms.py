"""What every registered form of data must have; tieredImageNet among class folders; and a form added at run time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharp_maml import DATA_FORMS, DataForm, Images
from sharp_maml.base import DataError
from sharp_maml.data import omniglot, open_dataset, tieredimagenet, write_cache
from sharp_maml.train import train
from tests.sharp_maml.data.conftest import WRITERS, random_splits, to_folders
from tests.sharp_maml.tiny import tiny_config

OMNIGLOT = {
    "omniglot": {"images_background": [*omniglot.FULL_VALIDATION, "Greek"], "images_evaluation": ["Angelic"]},
    "omniglot-small": {"images_background_small2": ["Greek"], "images_background_small1": ["Early_Aramaic", "Korean"]},
}


@pytest.fixture
def lie(tmp_path: Path, mini: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Data in a form, by its kind; gives the directory."""

    def make(kind: str) -> Path:
        if kind in WRITERS:
            return write(kind, mini)
        sets = OMNIGLOT[kind]
        monkeypatch.setattr(omniglot, "CHARACTERS", {name: len(alphabets) for name, alphabets in sets.items()})
        for name, alphabets in sets.items():
            for alphabet in alphabets:
                folder = tmp_path / kind / name / alphabet / "character01"
                folder.mkdir(parents=True)
                for i in range(omniglot.DRAWINGS):
                    Image.new("1", (28, 28), 1).save(folder / f"{i}.png")
        return tmp_path / kind

    return make


@pytest.mark.parametrize("kind", DATA_FORMS)
def test_a_form_is_found_whole_and_read_without_decoding(kind: str, lie: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, form = lie(kind), DATA_FORMS[kind]
    parts = form.find(directory)
    assert parts.keys() == form.parts.keys()
    monkeypatch.setattr("sharp_maml.data.formats.decode", None)
    with ExitStack() as stack:
        splits = form.read(parts, stack)
        counts = {split: {name: len(images) for name, images in found.items()} for split, found in splits.items()}
    assert set(counts) == {"train", "validation", "test"}
    assert min(n for found in counts.values() for n in found.values()) > 0
    assert form.verify(directory, counts)


@pytest.mark.parametrize("kind", DATA_FORMS)
def test_a_form_is_what_open_dataset_takes_it_for(kind: str, lie: Any, cache_dir: Path) -> None:
    directory, form = lie(kind), DATA_FORMS[kind]
    dataset = open_dataset(directory)
    assert dataset.size == form.size
    (cache,) = [path.name for path in cache_dir.iterdir() if path.is_dir()]
    assert cache.startswith(f"{kind}-{form.size}-")
    assert dataset.name in ("miniimagenet", "miniimagenet-by-numbers", kind)


@pytest.mark.parametrize("kind", DATA_FORMS)
def test_a_form_without_one_of_its_parts_is_refused_by_its_name(kind: str, lie: Any) -> None:
    directory, form = lie(kind), DATA_FORMS[kind]
    part, path = next(reversed(form.find(directory).items()))
    path.rename(directory / "elsewhere")
    with pytest.raises(DataError, match=f"expected {form.name.split('(')[0]}.* without {form.parts[part][0]}"):
        open_dataset(directory)


# tieredImageNet.


def tiered(directory: Path, images: int = 2) -> Path:
    """Folders with WordNet names, 3, 2 and 2 of them."""
    ids = {"train": range(3), "validation": range(3, 5), "test": range(5, 7)}
    classes = {split: [f"n{90000000 + i}" for i in numbers] for split, numbers in ids.items()}
    to_folders(directory, random_splits(classes, images=images, size=8))
    return directory


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tieredimagenet, "SPECIFICATION", {"train": (3, 6), "validation": (2, 4), "test": (2, 4)})


def test_tieredimagenet_has_608_classes_and_779165_images() -> None:
    classes, images = map(sum, zip(*tieredimagenet.SPECIFICATION.values(), strict=True))
    assert (classes, images) == (608, 779_165)


@pytest.mark.usefixtures("small")
def test_folders_with_wordnet_names_and_the_numbers_of_tieredimagenet_are_called_so(tmp_path: Path) -> None:
    assert open_dataset(tiered(tmp_path / "t"), size=8).name == "tieredimagenet-by-numbers"


@pytest.mark.usefixtures("small")
def test_folders_with_wordnet_names_and_other_numbers_are_ones_own(tmp_path: Path) -> None:
    assert open_dataset(tiered(tmp_path / "t", images=3), size=8).name == "folders"


@pytest.mark.usefixtures("small")
def test_tieredimagenets_numbers_with_a_shared_class_are_refused(tmp_path: Path) -> None:
    directory = tiered(tmp_path / "t")
    (directory / "test/n90000005").rename(directory / "test/n90000000")
    with pytest.raises(DataError, match=r"expected tieredImageNet .* 1 classes are in more than one split, e\.g\. n9"):
        open_dataset(directory, size=8)


@pytest.mark.usefixtures("small")
def test_a_cache_called_tieredimagenet_must_be_it(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    splits = {split: {f"{split}{i}": [image] for i in range(2)} for split in ("train", "validation", "test")}
    write_cache(tmp_path / "wrong", name="tieredimagenet-by-numbers", splits=splits)
    with pytest.raises(DataError, match=r"wrong: expected tieredImageNet .* the numbers differ"):
        open_dataset(tmp_path / "wrong")


# One's own.


def test_a_form_can_be_added_at_run_time_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array a split: classes x images x height x width x 3."""

    def read(parts: Any, stack: ExitStack) -> Any:
        del stack
        arrays = {split: np.load(path) for split, path in parts.items()}
        return {
            split: {f"{split}{c}": Images(range(len(one)), lambda i, one=one: Image.fromarray(one[i]))
                    for c, one in enumerate(array)}
            for split, array in arrays.items()
        }  # fmt: skip

    parts = {split: (f"{split}.npy",) for split in ("train", "validation", "test")}
    form = DataForm("arrays", parts, read, lambda directory, counts: "mine", size=16)
    monkeypatch.setitem(DATA_FORMS, "arrays", form)
    random = np.random.default_rng(0)
    (tmp_path / "arrays").mkdir()
    for split in parts:
        np.save(tmp_path / "arrays" / f"{split}.npy", random.integers(0, 256, (3, 6, 20, 20, 3), np.uint8))
    dataset = open_dataset(tmp_path / "arrays")
    assert (dataset.name, dataset.size) == ("mine", 16)
    state = train(tiny_config(iterations=1, validation_episodes=2), dataset, tmp_path / "run")
    assert state.step == 1
    assert 0 <= state.best_accuracy <= 1
