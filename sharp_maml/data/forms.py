"""The forms in which data come, and the data sets that are known by their classes.

A form is found by the names of its files, read, and verified, which gives the data set its name; a new one is a
`DataForm` and a line in `DATA_FORMS`. A data set that comes in a form of others is told by its classes: `KNOWN`. Read
next: `folders.py` (`open_dataset`, which chooses the form), `miniimagenet.py` (a known data set).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from sharp_maml.base import DataError
from sharp_maml.data import miniimagenet, omniglot, tieredimagenet
from sharp_maml.data.cache import SPLITS
from sharp_maml.data.formats import Classes, read_csv, read_folders, read_hdf5
from sharp_maml.data.pickles import read_pickle

SIZE = 84

Counts = Mapping[str, Mapping[str, int]]
"""Number of images by split and class."""


class DataForm(NamedTuple):
    """One form in which data lie in a directory.

    name: What to call it in messages.
    parts: What it consists of -> where that lies in the directory; the first name that exists counts.
    read: (parts, stack) -> split -> classes. What it opens goes onto the stack; no image is decoded before it is asked
    for.
    verify: (directory, number of images by split and class) -> the data set's name, or a `DataError`.
    size: Height and width in pixels unless the caller says so.
    beside: Names in the directory of what the parts refer to.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, Path], ExitStack], Mapping[str, Classes]]
    verify: Callable[[Path, Counts], str]
    size: int = SIZE
    beside: tuple[str, ...] = ()

    def find(self, directory: Path) -> dict[str, Path]:
        """The parts that are there."""
        found = {part: [directory / name for name in names] for part, names in self.parts.items()}
        return {part: path for part, paths in found.items() for path in [p for p in paths if p.exists()][:1]}


class Known(NamedTuple):
    """A data set that is known by its classes, in whatever form it comes.

    names: What `verify` may call it; a cache of such a name must be it.
    resembles: Number of images by split and class -> whether these must be it.
    verify: Verification, as a form has it.
    """

    names: Collection[str]
    resembles: Callable[[Counts], bool]
    verify: Callable[[Path, Counts], str]


KNOWN = [
    Known(
        (miniimagenet.NAME, miniimagenet.BY_NUMBERS),
        lambda counts: miniimagenet.resembles(counts.values()),
        miniimagenet.verify,
    ),
    Known((tieredimagenet.BY_NUMBERS,), tieredimagenet.resembles, tieredimagenet.verify),
]


def identify(where: Path, counts: Counts) -> str:
    """The name of classes that may be anybody's: that of the known data set which they resemble, or `folders`.

    Raises:
        DataError: They are not what they resemble, or a class is in two splits.
    """
    for known in KNOWN:
        if known.resembles(counts):
            return known.verify(where, counts)
    if shared := miniimagenet.in_several(counts.values()):
        raise DataError(
            f"{where}: expected distinct classes in the splits, found {shared[0]} in more than one (of "
            f"{len(shared)} such); keep each class in one split only"
        )
    return "folders"


def _splits(
    pattern: str, train: str = "train", validation: tuple[str, ...] = ("val", "validation")
) -> dict[str, tuple[str, ...]]:
    """The parts of a form whose parts are the splits."""
    names = {"train": (train,), "validation": validation, "test": ("test",)}
    return {split: tuple(pattern.format(name) for name in options) for split, options in names.items()}


def _each(
    read: Callable[[Path, ExitStack], Classes],
) -> Callable[[Mapping[str, Path], ExitStack], Mapping[str, Classes]]:
    """The reader of a form whose parts are the splits, from that of one split."""
    return lambda parts, stack: {split: read(parts[split], stack) for split in SPLITS}


def _called(name: str) -> Callable[[Path, Counts], str]:
    """The check of a form whose reader has checked all."""
    return lambda directory, counts: name


DATA_FORMS = {
    **{
        kind: DataForm(
            f"Omniglot as {' and '.join(sorted(sets))} (folders or zips)",
            {each: (each, f"{each}.zip") for each in sets},
            omniglot.read,
            _called(kind),
            omniglot.SIZE,
        )
        for kind, sets in zip(omniglot.NAMES, (omniglot.FULL, omniglot.SMALL), strict=True)
    },
    "zips": DataForm("three splits as zips of class folders", _splits("{}.zip"), _each(read_folders), identify),
    "folders": DataForm("three splits as class folders", _splits("{}"), _each(read_folders), identify),
    "pickles": DataForm(
        "three splits as pickles", _splits("mini-imagenet-cache-{}.pkl"), _each(read_pickle), miniimagenet.verify
    ),
    "hdf5": DataForm("three splits as HDF5 files", _splits("{}_data.hdf5"), _each(read_hdf5), miniimagenet.verify),
    "category-pickles": DataForm(
        "three splits as few-shot-meta-baseline pickles",
        _splits("miniImageNet_category_split_{}.pickle", train="train_phase_train"),
        _each(read_pickle),
        miniimagenet.verify,
    ),
    "csv": DataForm(
        "three splits as CSV lists beside images/", _splits("{}.csv"), _each(read_csv), identify, beside=("images",)
    ),
}
"""Forms by what they are called in the names of caches; of two that are there, the first is taken."""
