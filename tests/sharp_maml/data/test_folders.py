from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sharp_maml.base import DataError
from sharp_maml.data import Dataset, open_dataset, write_cache
from sharp_maml.data.folders import SHARES, split_pool
from sharp_maml.data.formats import Images
from sharp_maml.data.miniimagenet import SPECIFICATION

Write = Callable[[str, Any], Path]


def paint(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's classes, with different numbers of images in different formats, sizes and modes."""
    root = tmp_path / "own"
    for split, names in {"train": "abc", "val": "de", "test": "f"}.items():
        for number, name in enumerate(names):
            for i in range(number + 2):
                paint(root / split / name / f"{i}.png", (9 + i, 7), "L" if i else "RGB")
            paint(root / split / name / "x.webp")
    return root


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for name in range(50):
        paint(tmp_path / "pool" / f"class{name}" / "1.bmp", value=name)
    return tmp_path / "pool"


def names(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {split: source.names for split, source in dataset.splits.items()}


def test_own_class_folders_keep_their_splits_and_numbers(own: Path) -> None:
    dataset = open_dataset(own, size=8)
    assert (dataset.name, dataset.size, dataset.channels) == ("folders", 8, 3)
    assert names(dataset) == {"train": ("a", "b", "c"), "validation": ("d", "e"), "test": ("f",)}
    assert dataset.splits["train"].counts == (3, 4, 5)


def test_the_folder_of_validation_may_have_its_full_name(own: Path) -> None:
    (own / "val").rename(own / "validation")
    assert names(open_dataset(own, size=8))["validation"] == ("d", "e")


def test_the_size_is_84_unless_told(own: Path) -> None:
    assert open_dataset(own).size == 84


def test_own_classes_in_more_than_one_split_are_refused(own: Path) -> None:
    paint(own / "test" / "a" / "1.png")
    with pytest.raises(DataError, match="expected distinct classes in the splits, found a in more than one"):
        open_dataset(own)


def test_folders_named_like_imagenet_are_refused_unless_they_are_miniimagenet(own: Path) -> None:
    paint(own / "train" / "n01532829" / "1.png")
    with pytest.raises(DataError, match="expected miniImageNet, but train has 4 classes instead of 64"):
        open_dataset(own)


def test_a_pool_is_split_64_16_20_by_class(pool: Path) -> None:
    split = names(open_dataset(pool, size=4))
    assert [len(split[key]) for key in ("train", "validation", "test")] == [32, 8, 10]
    assert sorted(sum(split.values(), ())) == sorted(f"class{i}" for i in range(50))


def test_a_pool_is_split_so_that_the_ways_asked_for_fit_into_each_split(pool: Path) -> None:
    split = names(open_dataset(pool, size=4, ways=12))
    assert [len(split[key]) for key in ("train", "validation", "test")] == [26, 12, 12]


def test_fewer_ways_than_five_split_a_pool_as_five_do(pool: Path, cache_dir: Path) -> None:
    assert open_dataset(pool, size=4, ways=2) == open_dataset(pool, size=4)
    assert len([path for path in cache_dir.iterdir() if path.is_dir()]) == 1


def test_another_seed_splits_the_pool_otherwise(pool: Path) -> None:
    assert names(open_dataset(pool, size=4)) != names(open_dataset(pool, size=4, split_seed=1))


@settings(deadline=None)
@given(labels=st.sets(st.text(min_size=1), min_size=3), seed=st.integers(0, 10**6))
def test_a_split_pool_has_every_class_once_and_no_split_empty(labels: set[str], seed: int) -> None:
    none = Images((), Image.open)
    split = split_pool(dict.fromkeys(labels, none), seed=seed)
    assert sorted(name for classes in split.values() for name in classes) == sorted(labels)
    assert all(split.values())
    assert split == split_pool(dict.fromkeys(sorted(labels), none), seed=seed)


@given(
    number=st.integers(3, 200),
    least=st.integers(1, 70),
    shares=st.sampled_from([SHARES, (0.1, 0.1, 0.8), (0.1, 0.8, 0.1), (0.8, 0.1, 0.1)]),
)
def test_each_split_of_a_pool_has_the_least_or_the_pool_is_in_thirds(
    number: int, least: int, shares: tuple[float, float, float]
) -> None:
    split = split_pool({str(i): Images((), Image.open) for i in range(number)}, seed=0, shares=shares, least=least)
    assert min(map(len, split.values())) >= min(least, number // 3)


@pytest.mark.parametrize(
    ("number", "sizes"),
    [(3, (1, 1, 1)), (8, (4, 2, 2)), (15, (5, 5, 5)), (16, (6, 5, 5)), (25, (15, 5, 5)), (40, (26, 6, 8))],
)
def test_a_small_pool_gives_five_classes_to_each_split_before_it_goes_by_shares(
    number: int, sizes: tuple[int, int, int]
) -> None:
    split = split_pool({str(i): Images((), Image.open) for i in range(number)}, seed=0)
    assert tuple(map(len, split.values())) == sizes


SPLIT_OF_16 = {"train": [0, 2, 4, 13, 14, 15], "validation": [1, 3, 10, 11, 12], "test": [5, 6, 7, 8, 9]}


def test_a_split_does_not_change_between_platforms_and_versions() -> None:
    split = split_pool({f"class{i}": Images((), Image.open) for i in range(16)}, seed=0)
    assert {key: sorted(int(name[5:]) for name in classes) for key, classes in split.items()} == SPLIT_OF_16


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0)])
def test_shares_that_do_not_add_up_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="shares: must be positive and add up to 1"):
        split_pool({}, seed=0, shares=shares)


def of_classes(root: Path, **splits: Any) -> Path:
    for split, classes in splits.items():
        for name in classes:
            paint(root / split / name / "1.png")
    return root


KNOWN = {split: sorted(classes) for split, classes in SPECIFICATION.classes.items()}


def test_wordnet_ids_are_names_of_own_classes_unless_most_are_those_of_miniimagenet(tmp_path: Path) -> None:
    """Like tieredImageNet, which has some of miniImageNet's classes among many others, and in other splits."""
    ids = [f"n{i:08d}" for i in range(30)]
    own = of_classes(
        tmp_path, train=[*ids[:15], *KNOWN["test"][:8]], val=ids[15:20], test=[*ids[20:], *KNOWN["train"][:20]]
    )
    dataset = open_dataset(own, size=8)
    assert dataset.name == "folders"
    assert len(dataset.splits["train"].names) == 23
    paint(own / "test" / KNOWN["train"][20] / "1.png")  # 29 of 59
    paint(own / "test" / KNOWN["train"][21] / "1.png")  # 30 of 60
    assert open_dataset(own, size=8).name == "folders"
    paint(own / "test" / KNOWN["train"][22] / "1.png")  # 31 of 61: most
    with pytest.raises(DataError, match="expected miniImageNet, but train has 23 classes instead of 64"):
        open_dataset(own, size=8)


def test_a_pool_of_wordnet_ids_is_split_unless_most_are_those_of_miniimagenet(tmp_path: Path) -> None:
    own = of_classes(tmp_path, pool=[f"n{i:08d}" for i in range(10)] + KNOWN["train"][:5]) / "pool"
    assert [len(found) for found in names(open_dataset(own, size=8)).values()] == [5, 5, 5]


def test_the_look_alike_is_refused_by_name_whatever_its_100_classes_are(tmp_path: Path) -> None:
    ids = [f"n{i:08d}" for i in range(100)]
    with pytest.raises(DataError, match="timm/mini-imagenet"):
        open_dataset(of_classes(tmp_path, train=ids, val=ids, test=ids))


def test_wordnet_ids_in_two_splits_are_refused(tmp_path: Path) -> None:
    ids = [f"n{i:08d}" for i in range(9)]
    with pytest.raises(DataError, match="expected distinct classes in the splits, found n00000003 in more than one"):
        open_dataset(of_classes(tmp_path, train=ids[:4], val=ids[3:6], test=ids[6:]))


@pytest.mark.parametrize("ids", [True, False])
def test_a_cache_called_miniimagenet_must_be_it(tmp_path: Path, ids: bool) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    splits = {
        split: {name if ids else f"label{i:03d}": [image] * 600 for i, name in enumerate(classes)}
        for split, classes in KNOWN.items()
    }
    if ids:
        write_cache(tmp_path / "right", name="miniimagenet", splits=splits)
        assert open_dataset(tmp_path / "right").name == "miniimagenet"
        splits["train"]["n00000001"] = splits["train"].pop(KNOWN["train"][0])
    write_cache(tmp_path / "wrong", name="miniimagenet", splits=splits)
    message = "train has 1 classes that are not its own" if ids else "found the classes of miniimagenet-by-numbers"
    with pytest.raises(DataError, match=f"wrong: expected .*{message}"):
        open_dataset(tmp_path / "wrong")


def test_one_image_too_small_among_many_is_named_once(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_dataset(own, size=28)  # four times the 7 pixels that most images there have
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
    paint(own / "test" / "f" / "tiny.png", (1, 1))
    paint(own / "train" / "b" / "thin.png", (100, 6))
    open_dataset(own, size=28)
    (line,) = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert "2 of 24 images are enlarged more than 4 times to 28 pixels, e.g. b/thin.png (100 x 6 pixels) in" in line
    open_dataset(own, size=28)
    assert len([line for line in caplog.records if line.levelno >= logging.WARNING]) == 1


def test_a_class_folder_without_images_is_named_not_dropped(own: Path) -> None:
    (own / "train" / "barren").mkdir()
    (own / "train" / "barren" / "notes.txt").touch()
    with pytest.raises(DataError, match="barren: expected images that Pillow reads, found none"):
        open_dataset(own)


def test_an_index_of_other_software_does_not_make_a_cache(own: Path) -> None:
    (own / "index.json").write_text("{}")
    assert open_dataset(own, size=8).name == "folders"


def test_a_pool_of_two_classes_cannot_be_split(tmp_path: Path) -> None:
    for name in "ab":
        paint(tmp_path / "p" / name / "1.png")
    with pytest.raises(DataError, match="at least 3 class folders to split, found 2"):
        open_dataset(tmp_path / "p")


def test_a_pool_named_like_imagenet_is_asked_for_its_splits(tmp_path: Path) -> None:
    for name in ("n01532829", "n01558993", "n01704323"):
        paint(tmp_path / "p" / name / "1.png")
    with pytest.raises(DataError, match=r"train, val and test, found 3 class folders side by side\. Move them"):
        open_dataset(tmp_path / "p")


def test_a_second_opening_uses_the_cache(own: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_dataset(own, size=8)
    monkeypatch.setattr("sharp_maml.data.folders.write_cache", None)
    assert open_dataset(own, size=8).digest == first.digest
    assert len([path for path in cache_dir.iterdir() if path.is_dir()]) == 1


def test_a_changed_source_is_read_again(own: Path) -> None:
    first = open_dataset(own, size=8)
    path = own / "train" / "a" / "0.png"
    paint(path, value=255)
    os.utime(path, ns=(0, 1))
    assert open_dataset(own, size=8).digest != first.digest


def test_the_cost_is_told_before_the_cache_is_built(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    open_dataset(own, size=8)
    assert "once: 22 images, at most 0 MB" in caplog.text


def test_the_cache_lies_where_the_argument_says(own: Path, tmp_path: Path, cache_dir: Path) -> None:
    open_dataset(own, size=8, cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert not cache_dir.exists()


def test_without_argument_and_variable_the_cache_lies_in_the_home(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARP_MAML_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_dataset(own, size=8)
    assert (tmp_path / "home" / ".cache" / "sharp_maml").is_dir()


def test_half_the_size_is_the_mean_of_blocks_of_four(mini: Any, write: Write) -> None:
    halved = open_dataset(write("zips", mini), size=42).splits["train"].images
    pixels = np.concatenate([np.stack(images) for images in mini["train"].values()]).astype(float)
    blocks = pixels.reshape(len(pixels), 42, 2, 42, 2, 3).mean((2, 4))
    assert np.abs(halved - blocks).max() <= 0.5


def test_a_size_that_does_not_divide_is_resampled(mini: Any, write: Write) -> None:
    assert open_dataset(write("zips", mini), size=32).splits["test"].images.shape == (9, 32, 32, 3)


def test_a_cache_is_opened_as_it_is(toy: Dataset, tmp_path: Path, cache_dir: Path) -> None:
    assert open_dataset(tmp_path / "toy").digest == toy.digest
    assert open_dataset(tmp_path / "toy", size=4).digest == toy.digest
    assert not cache_dir.exists()


def test_a_cache_reduced_equals_the_source_read_at_that_size(mini: Any, write: Write, cache_dir: Path) -> None:
    directory = write("zips", mini)
    open_dataset(directory)
    native = next(path for path in cache_dir.iterdir() if path.is_dir())
    assert open_dataset(native, size=42).digest == open_dataset(directory, size=42).digest


def test_a_grey_cache_is_reduced_too(tmp_path: Path) -> None:
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 4
    write_cache(tmp_path / "g", name="g", splits={s: {s: [ramp]} for s in ("train", "validation", "test")})
    reduced = open_dataset(tmp_path / "g", size=2)
    np.testing.assert_array_equal(reduced.splits["test"].images[0, ..., 0], [[10, 18], [42, 50]])


def test_a_cache_is_not_enlarged(toy: Dataset, tmp_path: Path) -> None:
    del toy
    with pytest.raises(ValueError, match=r"size: must divide 4, the size of the cache .*; got 8"):
        open_dataset(tmp_path / "toy", size=8)


def test_a_size_below_one_is_refused(own: Path) -> None:
    with pytest.raises(ValueError, match="size: must be at least 1, got 0"):
        open_dataset(own, size=0)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: expected a directory with images, found nothing; check the path"):
        open_dataset(tmp_path / "nowhere")


def test_a_file_in_place_of_a_directory_is_named(own: Path) -> None:
    with pytest.raises(DataError, match="found a file; name the directory that it lies in"):
        open_dataset(own / "train" / "a" / "0.png")


def test_a_directory_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"found thesis\.tex\. See the docstring"):
        open_dataset(tmp_path)


def test_files_hidden_by_the_system_do_not_make_the_source_new(own: Path, cache_dir: Path) -> None:
    open_dataset(own, size=8)
    (own / "train" / ".DS_Store").touch()
    open_dataset(own, size=8)
    assert len([path for path in cache_dir.iterdir() if path.is_dir()]) == 1


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected a data cache, miniImageNet, Omniglot or folders .* an empty directory"
    ):
        open_dataset(tmp_path)


def test_parquet_files_are_not_read_and_the_look_alike_that_comes_so_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00013.parquet").touch()
    with pytest.raises(DataError, match=r"found Parquet files, which are not read; .*timm/mini-imagenet"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("form", ["zips", "folders", "csv", "pickles", "category-pickles", "hdf5"])
def test_an_incomplete_directory_says_what_is_missing(form: str, mini: Any, write: Write) -> None:
    directory = write(form, mini)
    next(path for path in directory.iterdir() if "test" in path.name).rename(directory / "elsewhere")
    with pytest.raises(DataError, match=r"expected three splits as .*, found .*train.* without .*test.*\. Add what"):
        open_dataset(directory)


def test_empty_split_folders_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "p" / split).mkdir(parents=True)
    with pytest.raises(DataError, match="expected one folder of images a class, all side by side, found no images"):
        open_dataset(tmp_path / "p")
