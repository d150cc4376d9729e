from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sharp_maml import open_cache, open_dataset
from sharp_maml_command import main
from tests.sharp_maml.tiny import tiny_dataset


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three splits as class folders, a colour for each class, of 12 x 9 pixels."""
    monkeypatch.setenv("SHARP_MAML_CACHE", str(tmp_path / "cache"))
    for split, names in {"train": "abc", "val": "de", "test": "fg"}.items():
        for name in names:
            for i in range(2):
                path = tmp_path / "own" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (12, 9), (10 * ord(name) % 256, 100 * i, 30)).save(path)
    return tmp_path / "own"


def test_a_directory_is_verified_and_described(folders, capsys):
    assert main(["data", str(folders), "--size", "8"]) == 0
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert found == {
        "form": "three splits as class folders",
        "name": "folders",
        "digest": open_dataset(folders, size=8).digest,
        "pixels": "8 x 8, 3 channel(s)",
        "train": "3 classes, 6 images",
        "validation": "2 classes, 4 images",
        "test": "2 classes, 4 images",
    }


def test_json_says_the_same_and_nothing_else_is_printed(folders, capsys):
    assert main(["data", str(folders), "--size", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "form": "three splits as class folders",
        "name": "folders",
        "digest": open_dataset(folders, size=8).digest,
        "size": 8,
        "channels": 3,
        "splits": {
            "train": {"classes": 3, "images": 6},
            "validation": {"classes": 2, "images": 4},
            "test": {"classes": 2, "images": 4},
        },
    }


@pytest.mark.parametrize("form", ["a data cache", "one pool of class folders, which a seed shares out"])
def test_the_form_is_named(form, tmp_path, folders, capsys):
    place = tmp_path / "place"
    if "cache" in form:
        tiny_dataset(place)
    else:
        place.mkdir()
        for path in sorted(folders.glob("*/*")):
            path.rename(place / path.name)
    assert main(["data", str(place), "--ways", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["form"] == form


def test_a_cache_with_another_pixel_and_a_damaged_image_are_found(tmp_path, folders, capsys):
    tiny_dataset(tmp_path / "tiny")
    path = tmp_path / "tiny/test.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert open_cache(tmp_path / "tiny").name == "tiny"  # the control: opening it alone does not show it
    assert main(["data", str(tmp_path / "tiny")]) == 2
    assert "the pixels of test.npy do not have their recorded digest" in capsys.readouterr().err
    (folders / "val/d/1.png").write_bytes((folders / "val/d/0.png").read_bytes()[:50])
    assert main(["data", str(folders)]) == 2
    assert "d/1.png: expected an image, found a truncated or damaged file" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_shows_the_first_images_of_every_class_and_nothing_twice(channels, tmp_path, capsys):
    """Each image of 8 pixels has a value of its own, which must be found as a square, five a class."""
    from sharp_maml import write_cache

    values = iter(range(3, 250))
    splits = {
        split: {f"{split} {i}": [np.full((8, 8, channels), next(values), np.uint8) for _ in range(6)] for i in range(n)}
        for split, n in {"train": 7, "validation": 2, "test": 3}.items()
    }
    write_cache(tmp_path / "squares", name="squares", splits=splits)
    path = tmp_path / "new/sheet.png"
    assert main(["data", str(tmp_path / "squares"), "--contact-sheet", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for images in (images for classes in splits.values() for images in classes.values()):
        for i, image in enumerate(images):
            value = int(image[0, 0, 0])
            is_there = (sheet == value).all(-1)
            rows, columns = np.nonzero(np.lib.stride_tricks.sliding_window_view(is_there, (8, 8)).all((2, 3)))
            assert len(rows) == len(columns) == (i < 5)


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path, capsys):
    tiny_dataset(tmp_path / "tiny")
    (tmp_path / "file").write_text("")
    assert main(["data", str(tmp_path / "tiny"), "--contact-sheet", str(tmp_path / "file/sheet.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line
