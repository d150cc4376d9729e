from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharp_maml.base import DataError
from sharp_maml.data import Dataset, omniglot, open_dataset

SMALL = {
    "images_background_small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "images_background_small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
FULL = {
    "images_background": ("Arcadian", *omniglot.FULL_VALIDATION, "Greek"),
    "images_evaluation": ("Angelic", "Keble"),
}


def drawing(column: int = 0) -> bytes:
    """Black ink, the 42 x 21 pixels in the upper left, on white."""
    paper = np.ones((105, 105), bool)
    paper[:42, column : column + 21] = False
    buffer = io.BytesIO()
    Image.fromarray(paper).save(buffer, "png")
    return buffer.getvalue()


def write(directory: Path, sets: dict[str, tuple[str, ...]], *, zipped: bool, drawings: int = 20) -> Path:
    for name, alphabets in sets.items():
        files = [f"{name}/{a}/character0{c}/{i:02d}.png" for a in alphabets for c in (1, 2) for i in range(drawings)]
        if zipped:
            with zipfile.ZipFile(directory / f"{name}.zip", "w") as archive:
                for file in files:
                    archive.writestr(file, drawing())
        else:
            for file in files:
                (directory / file).parent.mkdir(parents=True, exist_ok=True)
                (directory / file).write_bytes(drawing())
    return directory


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two characters an alphabet."""
    sizes = {name: 2 * len(alphabets) for name, alphabets in (SMALL | FULL).items()}
    monkeypatch.setattr(omniglot, "CHARACTERS", sizes)


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    return open_dataset(write(tmp_path, SMALL, zipped=True))


def alphabets(dataset: Dataset, split: str) -> set[str]:
    return {name.split("/")[0] for name in dataset.splits[split].names}


def test_the_small_sets_split_by_alphabet_and_count_shared_alphabets_once(small: Dataset) -> None:
    assert small.name == "omniglot-small"
    assert alphabets(small, "train") == {"Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"}
    assert alphabets(small, "validation") == {"Early_Aramaic"}
    assert alphabets(small, "test") == {"Balinese", "Korean"}


def test_the_full_sets_give_five_background_alphabets_to_validation(tmp_path: Path) -> None:
    full = open_dataset(write(tmp_path, FULL, zipped=True))
    assert full.name == "omniglot"
    assert alphabets(full, "train") == {"Arcadian", "Greek"}
    assert alphabets(full, "validation") == set(omniglot.FULL_VALIDATION)
    assert alphabets(full, "test") == {"Angelic", "Keble"}


def test_the_full_sets_are_preferred_to_the_small_ones(tmp_path: Path) -> None:
    write(tmp_path, SMALL, zipped=True)
    assert open_dataset(write(tmp_path, FULL, zipped=True)).name == "omniglot"


def test_folders_and_zips_give_one_digest(tmp_path: Path, small: Dataset) -> None:
    (tmp_path / "folders").mkdir()
    assert open_dataset(write(tmp_path / "folders", SMALL, zipped=False)).digest == small.digest


def test_ink_is_white_on_black_with_one_channel_of_28_pixels(small: Dataset) -> None:
    image = small.splits["train"].images[0]
    assert image.shape == (28, 28, 1)
    assert image[0, 0] == 255
    assert image[-1, -1] == 0


def test_every_character_has_four_rotations_that_are_classes(small: Dataset) -> None:
    source = small.splits["validation"]
    assert source.names[:4] == tuple(f"Early_Aramaic/character01@{degrees}" for degrees in (0, 90, 180, 270))
    assert source.counts == (20,) * 8
    upright = source.images[source.starts[0]]
    for turns in range(4):
        turned = np.rot90(upright, turns)
        np.testing.assert_allclose(source.images[source.starts[turns]].astype(int), turned.astype(int), atol=1)


@pytest.mark.parametrize("name", [*SMALL, *FULL])
def test_a_set_without_its_partner_is_incomplete(name: str, tmp_path: Path) -> None:
    write(tmp_path, {name: (SMALL | FULL)[name]}, zipped=True)
    with pytest.raises(DataError, match=f"expected Omniglot as .*, found {name}.zip without .*Add what is"):
        open_dataset(tmp_path)


def test_missing_drawings_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Greek/character01 has 19 drawings"):
        open_dataset(write(tmp_path, SMALL, zipped=True, drawings=19))


def test_missing_characters_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 10 characters of 20 drawings, found 8 characters"):
        open_dataset(write(tmp_path, {name: alphabets[:4] for name, alphabets in SMALL.items()}, zipped=True))


@pytest.mark.data
def test_the_real_small_sets_have_their_known_numbers_and_digest(
    data_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    dataset = open_dataset(data_path("omniglot"), cache_dir=tmp_path)
    if dataset.name != "omniglot-small":
        pytest.skip("the Omniglot here is the full one")
    assert {split: len(source.names) for split, source in dataset.splits.items()} == {
        "train": 156 * 4,
        "validation": 22 * 4,
        "test": 64 * 4,
    }
    assert dataset.digest.startswith("da2c8c209958")
