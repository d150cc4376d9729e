"""From a path to a data set: `open_dataset` tells what lies there, and builds the cache when there is none yet.

Also one pool of a user's own classes, which a seed splits. Read next: `forms.py` (what is recognised), `cache.py` (what
becomes of it).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sharp_maml.base import DataError
from sharp_maml.data import miniimagenet
from sharp_maml.data.cache import INDEX, SCHEMA, SPLITS, Dataset, is_cache, open_cache, write_cache
from sharp_maml.data.formats import Classes, Images, class_folders, open_tree
from sharp_maml.data.forms import DATA_FORMS, KNOWN, SIZE, DataForm

SHARES = (0.64, 0.16, 0.20)
WAYS = 5
TOO_SMALL = 4
"""How many times an image may be enlarged without a word: what is smaller is no photograph, but a placeholder."""

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What lies at a path, recognised by names and not yet read.

    kind: what it is, in a word.
    size: in which the images are wanted unless the caller says so.
    paths: files and folders that it consists of.
    read: opens it, and gives the data set's name and its splits.
    """

    kind: str
    size: int
    paths: tuple[Path, ...]
    read: Callable[[ExitStack], tuple[str, Mapping[str, Classes]]]


def open_dataset(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    ways: int = WAYS,
    verify: bool = False,
) -> Dataset:
    """Open the images at `path`; the first time they are decoded into a cache, which takes seconds to minutes.

    Recognised are: a data cache; Omniglot (full or small, zips or folders); miniImageNet as zips of class folders,
    class folders, CSV lists, pickles (two kinds) or HDF5; your own class folders, either in `train`, `validation` (or
    `val`) and `test`, or side by side, when `split_seed` shares them out. Your classes may have WordNet ids: with
    tieredImageNet's numbers of classes and images they are called so; but if most of these ids are miniImageNet's, the
    data are taken for miniImageNet, and refused if they are not, and so is a cache of that name. Forms can be added to
    `DATA_FORMS`. Images become square without regard to their shape: by averaging blocks of pixels where `size` divides
    theirs, else by Pillow's antialiased bilinear filter; a warning names one of those that are enlarged more than four
    times. A cache is opened as it is, or reduced to a `size` that divides its own.

    Args:
        path: a directory.
        size: height and width in pixels; None: 28 for Omniglot, a cache's own, else 84.
        cache_dir: where caches lie; None: the environment variable SHARP_MAML_CACHE, else `~/.cache/sharp_maml`.
        split_seed: how a pool of classes is split, 64, 16 and 20 %.
        ways: classes of an episode: each split of a pool gets as many, and 5, at least, if the pool has enough.
        verify: also read all pixels of a cache that is opened, and compare them with its digest.

    Returns:
        The data set; its name is `miniimagenet`, `miniimagenet-by-numbers` (from files that do not name its classes),
        `tieredimagenet-by-numbers`, `omniglot`, `omniglot-small`, that of a cache, or `folders` for classes of your
        own.

    Raises:
        ValueError: `size` is not positive, or does not divide the size of the cache at `path`.
        DataError: the data are missing, incomplete, damaged or not what they seem; or the cache cannot be written.
    """
    if size is not None and size < 1:
        raise ValueError(f"size: must be at least 1, got {size}")
    directory = Path(path).expanduser()
    if is_cache(directory):
        dataset = _opened(directory, verify)
        if size in (None, dataset.size):
            return dataset
        source = _reduced(directory, dataset, size)
    else:
        source = _recognise(directory, split_seed, max(ways, WAYS))
    size = size or source.size
    root = Path(cache_dir or os.environ.get("SHARP_MAML_CACHE") or "~/.cache/sharp_maml").expanduser()
    entry = root / f"{source.kind}-{size}-{_fingerprint(directory, source.paths)}"
    if is_cache(entry):
        return _opened(entry, verify)
    with ExitStack() as stack:
        name, splits = source.read(stack)
        n = sum(len(images) for classes in splits.values() for images in classes.values())
        _log.info("%s: building %s, once: %d images, at most %.0f MB", directory, entry, n, n * size**2 * 3 / 1e6)
        small: list[str] = []
        resized = {
            split: {
                label: replace(images, load=partial(_square, images, size, f"{label} of {split}", small))
                for label, images in classes.items()
            }
            for split, classes in splits.items()
        }
        dataset = write_cache(entry, name=name, splits=resized)
        if small:
            _log.warning(
                "%s: %d of %d images are enlarged more than %d times to %d pixels, e.g. %s; replace them if they are "
                "not what they should be",
                *(directory, len(small), n, TOO_SMALL, size, min(small)),
            )
        return dataset


def form_of(path: str | os.PathLike[str]) -> str:
    """In which form the images at `path` lie, in words: told by the names of files and folders, nothing is opened.

    Args:
        path: a directory.

    Returns:
        The name of the `DataForm`, or `a data cache`, or that it is one pool of classes.

    Raises:
        DataError: there is no directory, or nothing in it that is recognised.
    """
    directory = Path(path).expanduser()
    if is_cache(directory):
        return "a data cache"
    kind = _recognise(directory, 0, WAYS).kind
    return DATA_FORMS[kind].name if kind in DATA_FORMS else "one pool of class folders, which a seed shares out"


def split_pool(
    classes: Classes,
    *,
    seed: int,
    shares: tuple[float, float, float] = SHARES,
    least: int = WAYS,
    where: Path | str = "pool",
) -> dict[str, Classes]:
    """Share classes out to train, validation and test; a pool too small for `least` in each is cut into thirds.

    Which split a class is in depends on the seed and the names only, not on the platform or the order of the files.

    Args:
        classes: all classes.
        seed: another seed, another split.
        shares: of the classes, for train, validation and test; they add up to 1.
        least: classes that each split gets at least, if there are three times as many.
        where: what to call the pool in messages.

    Raises:
        ValueError: the shares are not three positive numbers that add up to 1.
        DataError: fewer than three classes.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares: must be positive and add up to 1, got {shares}")
    if len(classes) < len(SPLITS):
        raise DataError(f"{where}: expected at least 3 class folders to split, found {len(classes)}; add classes")
    order = sorted(classes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    least = min(least, len(order) // len(SPLITS))
    test = min(max(least, round(shares[2] * len(order))), len(order) - 2 * least)
    validation = min(max(least, round(shares[1] * len(order))), len(order) - least - test)
    train = len(order) - validation - test
    names = {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }
    return {split: {name: classes[name] for name in sorted(members)} for split, members in names.items()}


def _opened(directory: Path, verify: bool) -> Dataset:
    """Open a cache; what has the name of a known data set must be it."""
    dataset = open_cache(directory, verify=verify)
    counts = {split: dict(zip(held.names, held.counts, strict=True)) for split, held in dataset.splits.items()}
    for known in KNOWN:
        if dataset.name in known.names and (name := known.verify(directory, counts)) != dataset.name:
            raise DataError(
                f"{directory}: expected a cache of {dataset.name}, found the classes of {name}; remove the folder and "
                "build it again"
            )
    return dataset


def _recognise(directory: Path, split_seed: int, least: int) -> Source:
    """Tell by the names of files and folders what lies in a directory."""
    if not directory.is_dir():
        found = "a file; name the directory that it lies in" if directory.exists() else "nothing; check the path"
        raise DataError(f"{directory}: expected a directory with images, found {found}")
    there = {kind: form.find(directory) for kind, form in DATA_FORMS.items()}
    kind = max(there, key=lambda kind: len(there[kind]) / len(DATA_FORMS[kind].parts))  # the first of the most complete
    form, paths = DATA_FORMS[kind], there[kind]
    if len(paths) == len(form.parts):
        beside = [directory / name for name in form.beside]
        return Source(kind, form.size, (*paths.values(), *beside), partial(_read_form, directory, form, paths))
    if paths:
        lacking = [" or ".join(names) for part, names in form.parts.items() if part not in paths]
        raise DataError(
            f"{directory}: expected {form.name}, found {', '.join(p.name for p in paths.values())} "
            f"without {' and '.join(lacking)}. Add what is missing"
        )
    if next(directory.rglob("*.parquet"), None):
        raise DataError(
            f"{directory}: expected miniImageNet or folders of images, found Parquet files, which are not read; if "
            f"{miniimagenet.LOOK_ALIKE}. {miniimagenet.ADVICE}"
        )
    pool = tuple(sorted(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if pool:
        return Source(f"pool{split_seed}-least{least}", SIZE, pool, partial(_read_pool, directory, split_seed, least))
    names = sorted(p.name for p in directory.iterdir())
    raise DataError(
        f"{directory}: expected a data cache, miniImageNet, Omniglot or folders of images, found "
        f"{', '.join(names[:5]) or 'an empty directory'}. See the docstring of open_dataset"
    )


def _read_form(
    directory: Path, form: DataForm, paths: Mapping[str, Path], stack: ExitStack
) -> tuple[str, Mapping[str, Classes]]:
    splits = form.read(paths, stack)
    counts = {split: {label: len(images) for label, images in classes.items()} for split, classes in splits.items()}
    return form.verify(directory, counts), splits


def _read_pool(directory: Path, seed: int, least: int, stack: ExitStack) -> tuple[str, Mapping[str, Classes]]:
    classes = class_folders(open_tree(directory, stack))
    if miniimagenet.resembles([classes]):
        raise DataError(
            f"{directory}: expected the splits of miniImageNet in folders train, val and test, found {len(classes)} "
            f"class folders side by side. Move them into these folders. {miniimagenet.ADVICE}"
        )
    return "folders", split_pool(classes, seed=seed, least=least, where=directory)


def _reduced(directory: Path, dataset: Dataset, size: int) -> Source:
    """A cache as the source of a smaller one."""
    if dataset.size % size:
        raise ValueError(f"size: must divide {dataset.size}, the size of the cache {directory}; got {size}")

    def read(stack: ExitStack) -> tuple[str, Mapping[str, Classes]]:
        del stack
        return dataset.name, {
            split: {
                name: Images(range(start, start + count), partial(_row, source.images))
                for name, start, count in zip(source.names, source.starts, source.counts, strict=True)
            }
            for split, source in dataset.splits.items()
        }

    return Source("reduced", size, (directory / INDEX,), read)


def _row(images: NDArray[np.uint8], row: int) -> Image.Image:
    return Image.fromarray(images[row, ..., 0] if images.shape[-1] == 1 else images[row])


def _square(images: Images, size: int, where: str, small: list[str], key: Any) -> Image.Image:
    """Load an image and resize it without regard to its shape; one much smaller than `size` is noted in `small`."""
    image = images.load(key)
    if min(image.size) * TOO_SMALL < size:
        small.append(f"{key} ({image.width} x {image.height} pixels) in class {where}")
    return square(image, size)


def square(image: Image.Image, size: int) -> Image.Image:
    """An image of any shape as one of `size` x `size` pixels, as `open_dataset` makes it."""
    if image.width == image.height and image.width % size == 0:
        return image.reduce(image.width // size)
    return image.resize((size, size), Image.Resampling.BILINEAR)  # Pillow's: it averages where it shrinks


def _fingerprint(directory: Path, paths: Iterable[Path]) -> str:
    """Changes when a file is added, removed or written anew, and with the form of the cache."""
    files = sorted((file.relative_to(directory).as_posix(), file.stat()) for path in paths for file in _files(path))
    content = [SCHEMA, *((name, status.st_size, status.st_mtime_ns) for name, status in files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    below = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return below if path.is_dir() else iter([path])
