from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharp_maml.base import DataError
from sharp_maml.data import Dataset, cache, open_cache, write_cache

ROOT = Path(__file__).parents[3]


def edit_index(directory: Path, **values: Any) -> None:
    index = json.loads((directory / "index.json").read_text())
    (directory / "index.json").write_text(json.dumps(index | values))


def one_class(images: Any) -> dict[str, dict[str, Any]]:
    return {split: {split: images} for split in ("train", "validation", "test")}


def test_a_cache_gives_back_every_image_of_every_class(toy: Dataset, splits: Any) -> None:
    for split, classes in splits.items():
        source = toy.splits[split]
        assert source.names == tuple(classes)
        for start, count, images in zip(source.starts, source.counts, classes.values(), strict=True):
            np.testing.assert_array_equal(source.images[start : start + count], images)


def test_a_cache_opened_again_is_equal(toy: Dataset, tmp_path: Path) -> None:
    again = open_cache(tmp_path / "toy", verify=True)
    assert again == toy
    assert (again.name, again.size, again.channels) == ("toy", 4, 3)


def test_images_are_memory_mapped_and_read_only(toy: Dataset) -> None:
    images = toy.splits["train"].images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


@settings(max_examples=10, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=4), size=st.integers(1, 6), grey=st.booleans())
def test_counts_and_starts_partition_the_images(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int, grey: bool
) -> None:
    image = np.zeros((size, size, 1 if grey else 3), np.uint8)
    classes = {str(i): [image] * count for i, count in enumerate(counts)}
    splits = dict.fromkeys(("train", "validation", "test"), classes)
    source = write_cache(tmp_path_factory.mktemp("c") / "d", name="n", splits=splits).splits["test"]
    assert source.counts == tuple(counts)
    assert [s + c for s, c in zip(source.starts, source.counts, strict=True)] == [
        *source.starts[1:],
        len(source.images),
    ]


def test_images_may_come_from_a_generator(tmp_path: Path) -> None:
    def three() -> Iterator[Any]:
        yield from (np.full((2, 2, 1), value, np.uint8) for value in range(3))

    splits = {split: {"a": three()} for split in ("train", "validation", "test")}
    assert write_cache(tmp_path / "c", name="n", splits=splits).splits["train"].counts == (3,)


def test_the_digest_depends_on_pixels_name_and_class_names(tmp_path: Path, splits: Any, toy: Dataset) -> None:
    other = {split: {f"{name}x": images for name, images in classes.items()} for split, classes in splits.items()}
    digests = {toy.digest, write_cache(tmp_path / "1", name="other", splits=splits).digest}
    digests.add(write_cache(tmp_path / "2", name="toy", splits=other).digest)
    splits["test"]["m"][0] = 255 - splits["test"]["m"][0]
    digests.add(write_cache(tmp_path / "3", name="toy", splits=splits).digest)
    assert len(digests) == 4


def test_a_complete_cache_is_used_without_reading_the_images_again(tmp_path: Path, toy: Dataset) -> None:
    def unread() -> Iterator[Any]:
        raise AssertionError("read")
        yield

    assert write_cache(tmp_path / "toy", name="toy", splits=one_class(unread())).digest == toy.digest


def test_a_cache_of_another_name_is_not_taken_for_this_one(tmp_path: Path, toy: Dataset, splits: Any) -> None:
    del toy
    with pytest.raises(DataError, match="expected a cache of other, found one of toy"):
        write_cache(tmp_path / "toy", name="other", splits=splits)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images"),
        ([np.zeros((2, 2, 3))], "float64"),
        ([np.zeros((2, 3, 3), np.uint8)], r"\(2, 3, 3\)"),
        ([np.zeros((2, 2), np.uint8)], r"\(2, 2\)"),
        ([np.zeros((2, 2, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)], r"\(4, 4, 3\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_cache(tmp_path / "c", name="n", splits=one_class(images))
    assert [path.name for path in tmp_path.iterdir()] == [".c.lock"]


def test_splits_of_different_sizes_are_refused(tmp_path: Path) -> None:
    splits = one_class([np.zeros((2, 2, 3), np.uint8)])
    splits["test"] = {"a": [np.zeros((4, 4, 3), np.uint8)]}
    with pytest.raises(ValueError, match="one shape"):
        write_cache(tmp_path / "c", name="n", splits=splits)


def test_a_split_without_classes_is_refused(tmp_path: Path, splits: Any) -> None:
    with pytest.raises(ValueError, match="test has no classes"):
        write_cache(tmp_path / "c", name="n", splits=splits | {"test": {}})


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="splits: expected the keys train, validation, test, got none"):
        write_cache(tmp_path / "c", name="n", splits={})


def test_a_full_disk_is_named_with_path_and_remedy_and_leaves_nothing(
    tmp_path: Path, splits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match=r"c: cannot write .*No space left on device.*Free space.*SHARP_MAML_CACHE"):
        write_cache(tmp_path / "c", name="n", splits=splits)
    assert [path.name for path in tmp_path.iterdir()] == [".c.lock"]


def test_a_read_only_place_is_named_with_path_and_remedy(
    tmp_path: Path, splits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(DataError, match=r"c: cannot write .*Read-only file system.*name another place with cache_dir"):
        write_cache(tmp_path / "c", name="n", splits=splits)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, splits: Any) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*remove what is in the way"):
        write_cache(tmp_path / "c", name="n", splits=splits)
    assert (tmp_path / "c" / "thesis.tex").exists()


def test_a_build_waits_for_the_one_that_holds_the_lock_and_says_so(
    tmp_path: Path, splits: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with cache._lock(tmp_path / "c"):
        thread = threading.Thread(target=write_cache, args=(tmp_path / "c",), kwargs={"name": "n", "splits": splits})
        thread.start()
        while "another process builds this data cache" not in caplog.text:
            thread.join(0.05)
        assert thread.is_alive()
        assert not cache.is_cache(tmp_path / "c")
    thread.join()
    assert cache.is_cache(tmp_path / "c")


SCRIPT = """
import os, sys, time, numpy as np
from pathlib import Path
from sharp_maml.data import write_cache
place, deed = Path(sys.argv[1]), sys.argv[2]
def images():
    yield np.zeros((2, 2, 3), np.uint8)
    if deed == "die":
        os.kill(os.getpid(), 9)
    with (place.parent / "builds").open("a") as file:
        file.write("x")
    time.sleep(0.5)
write_cache(place, name="n", splits={s: {"a": images() if s == "train" else [np.zeros((2, 2, 3), np.uint8)]}
                                     for s in ("train", "validation", "test")})
"""


def start(place: Path, deed: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(place), deed], cwd=ROOT)


@pytest.mark.slow
def test_of_two_processes_that_start_at_once_one_builds_and_both_succeed(tmp_path: Path) -> None:
    processes = [start(tmp_path / "c", "build") for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert (tmp_path / "builds").read_text() == "x"
    open_cache(tmp_path / "c", verify=True)


def test_a_killed_build_leaves_nothing_complete_and_the_next_one_succeeds(tmp_path: Path) -> None:
    assert start(tmp_path / "c", "die").wait(120) == -9
    assert (tmp_path / ".c.tmp").is_dir()
    with pytest.raises(DataError, match=r"index\.json is missing"):
        open_cache(tmp_path / "c")
    write_cache(tmp_path / "c", name="n", splits=one_class([np.zeros((2, 2, 3), np.uint8)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.lock", "c"]


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path, toy: Dataset) -> None:
    del toy
    edit_index(tmp_path / "toy", schema=cache.SCHEMA + 1)
    with pytest.raises(DataError, match=r"newer version.*upgrade"):
        open_cache(tmp_path / "toy")


@pytest.mark.parametrize(
    "values", [{"size": 8}, {"splits": {}}, {"schema": None}, {"channels": "x"}, {"name": "other"}, {"digest": "0"}]
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, toy: Dataset, values: dict[str, Any]) -> None:
    del toy
    edit_index(tmp_path / "toy", **values)
    with pytest.raises(DataError, match="build it again"):
        open_cache(tmp_path / "toy")


def test_an_index_cut_off_is_refused(tmp_path: Path, toy: Dataset) -> None:
    del toy
    index = tmp_path / "toy" / "index.json"
    index.write_bytes(index.read_bytes()[:50])
    with pytest.raises(DataError, match="damaged"):
        open_cache(tmp_path / "toy")


def test_an_array_cut_off_is_refused(tmp_path: Path, splits: Any) -> None:
    write_cache(tmp_path / "c", name="n", splits=splits)
    os.truncate(tmp_path / "c" / "test.npy", 200)
    with pytest.raises(DataError, match="damaged"):
        open_cache(tmp_path / "c")


def test_a_missing_array_is_named(tmp_path: Path, toy: Dataset) -> None:
    del toy
    (tmp_path / "toy" / "train.npy").unlink()
    with pytest.raises(DataError, match=r"train\.npy is missing"):
        open_cache(tmp_path / "toy")


def test_verify_finds_a_single_flipped_byte(tmp_path: Path, toy: Dataset) -> None:
    del toy
    path = tmp_path / "toy" / "validation.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_cache(tmp_path / "toy")
    with pytest.raises(DataError, match=r"pixels of validation\.npy"):
        open_cache(tmp_path / "toy", verify=True)
