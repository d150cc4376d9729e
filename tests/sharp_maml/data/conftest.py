"""Small data: a cache of random pixels, and a miniImageNet of 4, 2 and 3 classes of 3 images in every form."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sharp_maml.data import Dataset, miniimagenet, write_cache

Splits = dict[str, dict[str, list[NDArray[np.uint8]]]]
SPECIFICATION = miniimagenet.Specification(
    {
        "train": ("n00000001", "n00000002", "n00000003", "n00000004"),
        "validation": ("n00000005", "n00000006"),
        "test": ("n00000007", "n00000008", "n00000009"),
    },
    images=3,
)


def random_splits(classes: dict[str, list[str]], *, images: int, size: int, channels: int = 3) -> Splits:
    random = np.random.default_rng(0)
    return {
        split: {name: list(random.integers(0, 256, (images, size, size, channels), np.uint8)) for name in names}
        for split, names in classes.items()
    }


@pytest.fixture
def splits() -> Splits:
    names = {"train": list("abcdef"), "validation": list("ghi"), "test": list("jklm")}
    return random_splits(names, images=8, size=4)


@pytest.fixture
def toy(tmp_path: Path, splits: Splits) -> Dataset:
    return write_cache(tmp_path / "toy", name="toy", splits=splits)


@pytest.fixture
def mini(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """Images of the tiny miniImageNet, which from now on is what `open_dataset` expects of miniImageNet."""
    monkeypatch.setattr(miniimagenet, "SPECIFICATION", SPECIFICATION)
    return random_splits({split: list(names) for split, names in SPECIFICATION.classes.items()}, images=3, size=84)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHARP_MAML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(image: NDArray[np.uint8]) -> bytes:
    """Bytes without loss: the suffix in the names below says jpg, Pillow goes by content."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def files(splits: Splits, split: str) -> Iterator[tuple[str, str, bytes]]:
    for label, images in splits[split].items():
        for i, image in enumerate(images):
            yield label, f"{label}{i:08d}.jpg", png(image)


def to_zips(directory: Path, splits: Splits) -> None:
    for split in splits:
        with zipfile.ZipFile(directory / f"{'val' if split == 'validation' else split}.zip", "w") as archive:
            for label, name, data in files(splits, split):
                archive.writestr(f"{label}/{name}", data)


def to_folders(directory: Path, splits: Splits) -> None:
    for split in splits:
        for label, name, data in files(splits, split):
            path = directory / split / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def to_csv(directory: Path, splits: Splits) -> None:
    (directory / "images").mkdir()
    for split in splits:
        with (directory / f"{'val' if split == 'validation' else split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("filename", "label"))
            for label, name, data in files(splits, split):
                writer.writerow((name, label))
                (directory / "images" / name).write_bytes(data)


def to_pickles(directory: Path, splits: Splits, protocol: int = 4) -> None:
    for split, classes in splits.items():
        data = np.concatenate([np.stack(images) for images in classes.values()])
        rows = np.arange(len(data)).reshape(len(classes), -1).tolist()
        pack = {"image_data": data, "class_dict": dict(zip(classes, rows, strict=True))}
        (directory / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(pack, protocol))


def to_category_pickles(directory: Path, splits: Splits) -> None:
    for split, classes in splits.items():
        data = np.concatenate([np.stack(images) for images in classes.values()])
        labels = [label for label, images in enumerate(classes.values()) for _ in images]
        name = {"train": "train_phase_train", "validation": "val", "test": "test"}[split]
        pack = pickle.dumps({"data": data, "labels": labels}, 2)
        (directory / f"miniImageNet_category_split_{name}.pickle").write_bytes(pack)


def to_hdf5(directory: Path, splits: Splits) -> None:
    h5py = pytest.importorskip("h5py")
    for split, classes in splits.items():
        with h5py.File(directory / f"{'val' if split == 'validation' else split}_data.hdf5", "w") as file:
            group = file.create_group("datasets")
            for label, images in classes.items():
                group.create_dataset(label, data=np.stack(images))


WRITERS: dict[str, Callable[[Path, Splits], None]] = {
    "zips": to_zips,
    "folders": to_folders,
    "csv": to_csv,
    "pickles": to_pickles,
    "category-pickles": to_category_pickles,
    "hdf5": to_hdf5,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Splits], Path]:
    """Writes splits in one of the forms; gives the directory."""

    def write_form(form: str, splits: Splits) -> Path:
        directory = tmp_path / form
        directory.mkdir()
        WRITERS[form](directory, splits)
        return directory

    return write_form
