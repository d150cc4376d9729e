from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharp_maml.base import DataError
from sharp_maml.data import DATA_FORMS, open_dataset
from sharp_maml.data.miniimagenet import SPECIFICATION, verify

Write = Callable[[str, Any], Path]
Counts = dict[str, dict[str, int]]
HERE = Path("here")
DIGEST_42 = "39b7473f653e"


@pytest.fixture
def counts() -> Counts:
    return {split: dict.fromkeys(names, 600) for split, names in SPECIFICATION.classes.items()}


def refused(counts: Counts, message: str) -> None:
    with pytest.raises(DataError, match=f"here: expected miniImageNet, but .*{message}.*Get miniImageNet"):
        verify(HERE, counts)


def test_the_known_classes_are_64_16_and_20_distinct_ones() -> None:
    sizes = {split: len(set(names)) for split, names in SPECIFICATION.classes.items()}
    assert sizes == {"train": 64, "validation": 16, "test": 20}
    assert len(set().union(*SPECIFICATION.classes.values())) == 100


def test_the_right_classes_and_numbers_pass(counts: Counts) -> None:
    verify(HERE, counts)


def test_forms_without_wordnet_ids_pass_by_their_numbers_and_are_called_so(counts: Counts) -> None:
    assert verify(HERE, counts) == "miniimagenet"
    labels = {split: {f"label{i:03d}": 600 for i in range(len(names))} for split, names in counts.items()}
    assert verify(HERE, labels) == "miniimagenet-by-numbers"


@pytest.mark.parametrize("split", SPECIFICATION.classes)
@pytest.mark.parametrize("count", [599, 601])
def test_a_class_with_599_or_601_images_is_named(counts: Counts, split: str, count: int) -> None:
    name = list(counts[split])[3]
    counts[split][name] = count
    refused(counts, f"class {name} of {split} has {count} images instead of 600")


def test_a_missing_class_is_noticed(counts: Counts) -> None:
    del counts["train"]["n01532829"]
    refused(counts, "train has 63 classes instead of 64")


@pytest.mark.parametrize(("one", "other"), [("validation", "test"), ("train", "test"), ("train", "validation")])
def test_swapped_splits_are_named_as_such(counts: Counts, one: str, other: str) -> None:
    counts[one], counts[other] = counts[other], counts[one]
    refused(counts, f"{one} holds the classes of {other}: the splits are swapped")


def test_swapped_splits_without_wordnet_ids_are_told_by_their_numbers(counts: Counts) -> None:
    sizes = {"train": 64, "validation": 20, "test": 16}
    refused(
        {split: {f"label{i}": 600 for i in range(size)} for split, size in sizes.items()},
        "validation holds the classes of test",
    )


def test_overlapping_splits_are_refused(counts: Counts) -> None:
    counts["test"]["n01532829"] = counts["test"].pop("n07613480")
    refused(counts, "1 classes are in more than one split, e.g. n01532829")


def test_a_class_of_another_split_is_refused_and_its_owner_named(counts: Counts) -> None:
    a, b = "n01532829", "n07613480"
    counts["train"][b], counts["test"][a] = counts["train"].pop(a), counts["test"].pop(b)
    refused(counts, f"train has 1 classes that are not its own, e.g. {b}, a class of test")


def test_a_foreign_class_is_refused(counts: Counts) -> None:
    counts["train"]["n99999999"] = counts["train"].pop("n01532829")
    refused(counts, r"train has 1 classes that are not its own, e\.g\. n99999999")


def test_the_look_alike_with_all_100_classes_in_every_split_is_refused_with_the_reason(counts: Counts) -> None:
    every = {name: 500 for classes in counts.values() for name in classes}
    refused({"train": every, "validation": every, "test": every}, "timm/mini-imagenet.*splits share their 100 classes")


def test_the_look_alike_is_known_by_its_100_training_classes_without_wordnet_ids(counts: Counts) -> None:
    counts["train"] = {f"label{i}": 500 for i in range(100)}
    refused(counts, "timm/mini-imagenet")


@pytest.mark.parametrize("form", ["zips", "folders", "csv", "pickles", "category-pickles"])
def test_a_missing_image_is_found_in_every_form(form: str, mini: Any, write: Write) -> None:
    last = list(mini["test"])[-1]
    mini["test"][last] = mini["test"][last][:2]
    if form == "pickles":
        del mini["test"][last]
    with pytest.raises(DataError, match=r"has 2 images instead of 3|test has 2 classes instead of 3|swapped"):
        open_dataset(write(form, mini))


def test_a_refused_data_set_leaves_no_cache(mini: Any, write: Write, cache_dir: Path) -> None:
    mini["validation"], mini["test"] = mini["test"], mini["validation"]
    with pytest.raises(DataError, match="swapped"):
        open_dataset(write("zips", mini))
    assert not cache_dir.exists()


@pytest.mark.data
def test_the_real_validation_split_has_its_known_classes_and_numbers(data_path: Callable[[str], Path]) -> None:
    from contextlib import ExitStack

    directory = data_path("miniimagenet")
    form, parts = next((form, form.find(directory)) for form in DATA_FORMS.values() if len(form.find(directory)) == 3)
    with ExitStack() as stack:
        classes = form.read(parts, stack)["validation"]
        assert {name: len(images) for name, images in classes.items()} == dict.fromkeys(
            SPECIFICATION.classes["validation"], 600
        )
        assert next(iter(classes["n01855672"])).shape == (84, 84, 3)


@pytest.mark.data
@pytest.mark.slow
def test_the_real_data_at_42_pixels_have_their_known_digest(data_path: Callable[[str], Path], tmp_path: Path) -> None:
    dataset = open_dataset(data_path("miniimagenet"), size=42, cache_dir=tmp_path)
    assert {split: len(source.images) for split, source in dataset.splits.items()} == {
        "train": 38400,
        "validation": 9600,
        "test": 12000,
    }
    assert dataset.digest.startswith(DIGEST_42)
