"""The one form that all data take: a folder with a memory-mapped uint8 array a split and an index.

A folder appears whole or not at all: it is built beside its place, under a lock, and renamed when complete.
Read next: `episodes.py` (draws from a `Dataset`), `folders.py` (fills caches from what users have).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from sharp_maml.base import DataError

SPLITS = ("train", "validation", "test")
INDEX = "index.json"
SCHEMA = 1

_HEADER_BYTES = 128
_HASH_BYTES = 1 << 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClassImages:
    """The images of one split, class after class.

    Attributes:
        images: `n x height x width x channels`, uint8, memory-mapped and read-only.
        names: class names.
        starts: row of each class's first image.
        counts: images of each class; class `c` is `images[starts[c] : starts[c] + counts[c]]`.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """Three splits with distinct classes, and the digest that names their content in records and decides equality.

    Attributes:
        name: what the images are, e.g. `miniimagenet`.
        digest: sha256 over pixels, classes, splits, name and size.
        size: height and width in pixels.
        channels: 1 (grey) or 3 (RGB).
        splits: `train`, `validation` and `test`.
    """

    name: str
    digest: str
    size: int
    channels: int
    splits: Mapping[str, ClassImages] = field(compare=False, repr=False)


def write_cache(
    directory: str | os.PathLike[str], *, name: str, splits: Mapping[str, Mapping[str, Iterable[NDArray[np.uint8]]]]
) -> Dataset:
    """Write images to `directory` and open it; a complete cache of that name found there is opened as it is.

    Images are streamed, so one is in memory at a time. Any number of processes may call this at once: one builds, the
    others wait for it and open what it built.

    Args:
        directory: where the cache is to lie; it must not exist, or be empty.
        name: what the images are.
        splits: split (`train`, `validation`, `test`) -> class name -> images, each `size x size x channels`, uint8.

    Raises:
        ValueError: `splits` lacks a split, has an empty one, or images that differ in shape.
        DataError: the place cannot be written, is full, or holds something else.
    """
    directory = Path(directory)
    if set(splits) != set(SPLITS):
        raise ValueError(f"splits: expected the keys {', '.join(SPLITS)}, got {', '.join(sorted(splits)) or 'none'}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _lock(directory):
            if not is_cache(directory):
                _build(directory, name, splits)
    except OSError as error:
        raise DataError(
            f"{directory}: cannot write the data cache ({error.strerror or error}). Free space there, remove what is "
            "in the way, or name another place with cache_dir or the environment variable SHARP_MAML_CACHE"
        ) from error
    dataset = open_cache(directory)
    if dataset.name != name:
        raise DataError(f"{directory}: expected a cache of {name}, found one of {dataset.name}; name another directory")
    return dataset


def open_cache(directory: str | os.PathLike[str], *, verify: bool = False) -> Dataset:
    """Open a cache; the images stay on disk until they are used.

    Args:
        directory: a folder made by `write_cache`.
        verify: also read all pixels and compare them with the digest (seconds a gigabyte).

    Raises:
        DataError: the folder is no cache, is damaged, or was written by a newer version.
    """
    directory = Path(directory)
    advice = "remove the folder and build it again"
    try:
        index = json.loads((directory / INDEX).read_bytes())
        if index["schema"] > SCHEMA:
            raise DataError(
                f"{directory}: written by a newer version (schema {index['schema']}, this version reads {SCHEMA}); "
                "upgrade sharp-maml, or build the cache again at another place"
            )
        size, channels = int(index["size"]), int(index["channels"])
        splits = {split: _open_split(directory, split, index["splits"][split], size, channels) for split in SPLITS}
        pixels = {split: str(index["splits"][split]["sha256"]) for split in SPLITS}
        damaged = index["digest"] != _digest(index)
        dataset = Dataset(str(index["name"]), str(index["digest"]), size, channels, splits)
    except FileNotFoundError as error:
        raise DataError(f"{directory}: expected a data cache, but {error.filename} is missing; {advice}") from error
    except DataError:
        raise
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{directory}: the data cache is damaged ({error}); {advice}") from error
    if damaged:
        raise DataError(f"{directory}: {INDEX} does not agree with its own digest; {advice}")
    for split in SPLITS if verify else ():
        if _hash_pixels(splits[split].images) != pixels[split]:
            raise DataError(f"{directory}: the pixels of {split}.npy do not have their recorded digest; {advice}")
    return dataset


def is_cache(directory: Path) -> bool:
    """Whether a complete cache lies there; other data may have an `index.json` too."""
    return all((directory / name).is_file() for name in (INDEX, f"{SPLITS[0]}.npy"))


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory`; the kernel releases it when the process ends, however it ends."""
    with directory.with_name(f".{directory.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("%s: another process builds this data cache; waiting for it", directory)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(directory: Path, name: str, splits: Mapping[str, Mapping[str, Iterable[NDArray[np.uint8]]]]) -> None:
    scratch = directory.with_name(f".{directory.name}.tmp")
    if scratch.exists():  # of a build that was killed: the lock is ours, so nobody is writing to it
        shutil.rmtree(scratch)
    scratch.mkdir()
    try:
        with _progress(f"data cache {directory.name}", splits) as advance:
            entries = {split: _write_split(scratch / f"{split}.npy", splits[split], advance) for split in SPLITS}
        shapes = {tuple(entry.pop("shape")) for entry in entries.values()}
        if len(shapes) > 1:
            raise ValueError(f"splits: all images must have one shape, got {sorted(shapes)}")
        ((size, _, channels),) = shapes
        index = {"schema": SCHEMA, "name": name, "size": size, "channels": channels, "splits": entries}
        with (scratch / INDEX).open("wb") as file:
            file.write(json.dumps(index | {"digest": _digest(index)}, indent=1).encode())
            _sync(file)
        _sync_directory(scratch)
        scratch.replace(directory)
        _sync_directory(directory.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _write_split(
    path: Path, classes: Mapping[str, Iterable[NDArray[np.uint8]]], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Stream one split to an `.npy` file; the header, which names the number of images, goes in last."""
    shape: tuple[int, ...] | None = None
    counts = dict.fromkeys(classes, 0)
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        file.seek(_HEADER_BYTES)
        for label, images in classes.items():
            for image in images:
                shape = shape or image.shape
                square = image.ndim == 3 and image.shape[0] == image.shape[1] and image.shape[2] in (1, 3)
                if image.dtype != np.uint8 or image.shape != shape or not square:
                    raise ValueError(
                        f"splits: class {label} has an image of shape {image.shape} and type {image.dtype}; all must "
                        f"be uint8 and size x size x (1 or 3), like the first of the split, which is {shape}"
                    )
                pixels = np.ascontiguousarray(image).data
                file.write(pixels)
                sha256.update(pixels)
                counts[label] += 1
            if not counts[label]:
                raise ValueError(f"splits: class {label} of {path.stem} has no images")
            advance(counts[label])
        if shape is None:
            raise ValueError(f"splits: {path.stem} has no classes")
        file.seek(0)
        file.write(_npy_header((sum(counts.values()), *shape)))
        _sync(file)
    _log.info("%s: %d classes, %d images", path.stem, len(counts), sum(counts.values()))
    return {
        "names": list(counts),
        "counts": list(counts.values()),
        "shape": shape,
        "sha256": sha256.hexdigest(),
    }


def _open_split(directory: Path, split: str, entry: Mapping[str, Any], size: int, channels: int) -> ClassImages:
    names, counts = tuple(map(str, entry["names"])), tuple(map(int, entry["counts"]))
    expected = (sum(counts), size, size, channels)
    if not names or len(names) != len(set(names)) or len(names) != len(counts) or min(counts) < 1:
        raise ValueError(f"{INDEX} does not give every class of {split} a name of its own and a number of images")
    path = directory / f"{split}.npy"
    with path.open("rb") as file:
        if file.read(_HEADER_BYTES) != _npy_header(expected):
            raise ValueError(f"{path.name} does not begin with the header of the uint8 {expected} that {INDEX} says")
    images = np.memmap(path, np.uint8, "r", offset=_HEADER_BYTES, shape=expected)
    return ClassImages(images, names, tuple(accumulate(counts, initial=0))[:-1], counts)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Header of the `.npy` format 1.0, at a length fixed beforehand so that it can be written after the pixels."""
    start = struct.pack("<6sBBH", b"\x93NUMPY", 1, 0, _HEADER_BYTES - 10)
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
    return start + text.ljust(_HEADER_BYTES - len(start) - 1).encode() + b"\n"


def _digest(index: Mapping[str, Any]) -> str:
    """The digest of all that makes the data what they are; the pixels enter through the sha256 of each split."""
    content = {key: index[key] for key in ("name", "size", "channels", "splits")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash_pixels(images: NDArray[np.uint8]) -> str:
    sha256 = hashlib.sha256()
    rows = max(1, _HASH_BYTES // images[0].size)
    for start in range(0, len(images), rows):
        sha256.update(images[start : start + rows].data)
    return sha256.hexdigest()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _progress(
    label: str, splits: Mapping[str, Mapping[str, Iterable[NDArray[np.uint8]]]]
) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere the log line of each split must do."""
    classes = [images for split in splits.values() for images in split.values()]
    lengths = [len(images) for images in classes if isinstance(images, Sized)]
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=sum(lengths) if len(lengths) == len(classes) else None)
        yield lambda count: bar.advance(task, count)
