"""Readers of what users have on disk: folders, zips, CSV lists, pickles, HDF5, all turned into class name -> `Images`.

Nothing is unpacked to disk, no pickle may run code, and a file that is not what its name says is named as what it is.
Read next: `forms.py` (which reader for what).
"""

from __future__ import annotations

import csv
import io
import pickle
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sharp_maml.base import DataError

MEMBER_BYTES = 1 << 28
"""The largest file in an archive that is taken for an image, 256 MiB: 80 million pixels uncompressed."""

_THREADS = 2
_AHEAD = 256  # images decoded at a time: bounds the memory


@dataclass(frozen=True)
class Images:
    """The images of one class, decoded anew whenever they are gone through.

    Attributes:
        keys: one key an image.
        load: makes the image of a key; called from several threads.
    """

    keys: Sequence[Any]
    load: Callable[[Any], Image.Image]

    def __len__(self) -> int:
        """The number of images, known without decoding any."""
        return len(self.keys)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The images in order, `height x width x channels`."""
        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(self.keys), _AHEAD):
                for image in threads.map(self.load, self.keys[start : start + _AHEAD]):
                    yield np.atleast_3d(np.asarray(image))

    def map(self, change: Callable[[Image.Image], Image.Image]) -> Images:
        """The same images, each one changed after it is loaded."""
        load = self.load
        return replace(self, load=lambda key: change(load(key)))


Classes = dict[str, Images]


class Tree(NamedTuple):
    """The image files below a folder or inside a zip.

    where: the folder or the zip.
    names: their relative names, sorted, with forward slashes.
    read: gives the bytes of one.
    """

    where: Path
    names: list[str]
    read: Callable[[str], bytes]

    def images(self, names: Iterable[str], mode: str = "RGB") -> Images:
        """Some of the files as images, converted to a mode of Pillow."""
        return Images(tuple(names), lambda name: decode(self.read(name), f"{self.where}: {name}", mode))


def open_tree(path: Path, stack: ExitStack) -> Tree:
    """The image files below a folder or inside a zip, which is read in place.

    Raises:
        DataError: the zip is damaged, or has a member that would lie outside it, or an image too large to be one.
    """
    if path.is_dir():
        below = (file.relative_to(path).as_posix() for file in path.rglob("*"))
        return Tree(path, _image_names(below), partial(_read_below, path))
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise damaged(path, "a zip archive") from error
    for member in archive.infolist():
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        outside = ".." in parts or parts[:1] == ("/",) or (parts and parts[0].endswith(":"))
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(
                f"{path}: expected plain relative names, found the member {member.filename!r}, which is a link or "
                "points outside the archive; do not trust this file, download it again from its source"
            )
    names = _image_names(archive.namelist())
    for member in map(archive.getinfo, names):
        if member.file_size > MEMBER_BYTES or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{path}: expected images of at most {MEMBER_BYTES >> 20} MiB, stored or deflated, found the member "
                f"{member.filename!r} of {member.file_size >> 20} MiB in compression {member.compress_type}; if these "
                "are your own images, make them smaller or pack them again"
            )
    return Tree(path, names, partial(_read_member, path, archive))


def class_folders(tree: Tree) -> Classes:
    """The classes of a tree in which each folder of images is a class.

    Raises:
        DataError: there are no images, class folders at different depths, or folders without images.
    """
    classes: dict[str, list[str]] = {}
    for name in tree.names:
        classes.setdefault(str(PurePosixPath(name).parent), []).append(name)
    if not classes or len({PurePosixPath(folder).parent for folder in classes}) > 1 or "." in classes:
        found = "images in " + ", ".join(sorted(classes)[:4]) if classes else "no images"
        raise DataError(f"{tree.where}: expected one folder of images a class, all side by side, found {found}")
    top = {PurePosixPath(folder).parts[0] for folder in classes}
    for folder in sorted(tree.where.iterdir()) if tree.where.is_dir() else ():
        if folder.is_dir() and folder.name not in top and not folder.name.startswith("."):
            raise DataError(f"{folder}: expected images that Pillow reads, found none; add them or remove the folder")
    return {PurePosixPath(folder).name: tree.images(names) for folder, names in sorted(classes.items())}


def decode(data: bytes, where: str, mode: str) -> Image.Image:
    """Decode one image.

    Args:
        data: the bytes of its file.
        where: what to call it in messages.
        mode: `RGB` or `L`.

    Raises:
        DataError: the bytes are no whole image, or more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{where}: expected 8 bits a channel, found mode {image.mode}; convert the image")
            return image.convert(mode)
    except DataError:
        raise
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise damaged(where, "an image", data[:512], str(error)) from error


def damaged(where: Path | str, expected: str, head: bytes | None = None, detail: str = "") -> DataError:
    """The error for a file that cannot be read, told by its first bytes."""
    if head is None:
        with Path(where).open("rb") as file:
            head = file.read(512)
    start = head.lstrip().lower()
    if not start:
        found = "an empty file; download it again"
    elif start.startswith((b"<!doctype html", b"<html")):
        found = "an HTML page, as servers send in place of a file (login, quota); download it again, with a browser"
    elif start.startswith(b"version https://git-lfs"):
        found = "a git LFS pointer; run `git lfs pull` in its repository to get the file itself"
    else:
        found = f"a truncated or damaged file{f' ({detail})' if detail else ''}; download it again"
    return DataError(f"{where}: expected {expected}, found {found}")


def _image_names(names: Iterable[str]) -> list[str]:
    suffixes = Image.registered_extensions()
    paths = ((name, PurePosixPath(name)) for name in names)
    return sorted(
        name
        for name, path in paths
        if path.suffix.lower() in suffixes and not any(part.startswith((".", "__MACOSX")) for part in path.parts)
    )


def _read_below(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / name}: cannot be read ({error.strerror})") from error


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; no more are unpacked than it says that it has, which `open_tree` checked."""
    try:
        with archive.open(name) as file:
            return file.read(archive.getinfo(name).file_size)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"to read {name}", b"PK", str(error)) from error


def read_folders(path: Path, stack: ExitStack) -> Classes:
    """The class folders below a folder or inside a zip."""
    return class_folders(open_tree(path, stack))


def read_csv(path: Path, stack: ExitStack) -> Classes:
    """A list of `filename,label`, whose files lie in `images/` beside it."""
    del stack
    folder = path.with_name("images")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["filename"], row["label"]) for row in csv.DictReader(file)]
        if not rows:
            raise ValueError("no rows")
    except (KeyError, ValueError, csv.Error) as error:
        raise damaged(path, "a list with the columns filename,label") from error
    present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    absent = [name for name, _ in rows if name not in present]
    if absent:
        raise DataError(
            f"{path}: expected its {len(rows)} files in {folder}, found {len(rows) - len(absent)}; {absent[0]} is not "
            "there. Complete the folder"
        )
    classes: dict[str, list[str]] = {}
    for name, label in sorted(rows):
        classes.setdefault(label, []).append(name)
    tree = Tree(folder, sorted(present), partial(_read_below, folder))
    return {label: tree.images(names) for label, names in sorted(classes.items())}


def read_hdf5(path: Path, stack: ExitStack) -> Classes:
    """The file of torchmeta: one array `n x height x width x 3` a class, in the group `datasets`."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path}: reading HDF5 needs h5py; install the extra: pip install 'sharp-maml[hdf5]'"
        ) from error
    try:
        group = stack.enter_context(h5py.File(path, "r"))["datasets"]
        return {label: _array_images(group[label], range(len(group[label])), path) for label in sorted(group)}
    except (OSError, KeyError, TypeError) as error:
        raise damaged(path, "an HDF5 file with the group `datasets`", detail=str(error)) from error


def read_pickle(path: Path, stack: ExitStack) -> Classes:
    """A dictionary with `image_data` and `class_dict`, or with `data` and `labels`; it is held in memory whole.

    The second kind names its classes in `catname2label`; in a copy that lacks this they are `label000` and so on.
    """
    del stack
    expected = "a pickled dictionary with image_data and class_dict, or data and labels"
    try:
        with path.open("rb") as file:
            pack = _Unpickler(file, encoding="latin1").load()
        if "image_data" in pack:
            data, rows = pack["image_data"], {str(label): list(rows) for label, rows in pack["class_dict"].items()}
        else:
            data, rows = pack["data"], {}
            names = {int(label): str(name) for name, label in pack.get("catname2label", {}).items()}
            for row, label in enumerate(map(int, pack["labels"])):
                rows.setdefault(names.get(label, f"label{label:03d}"), []).append(row)
        if any(not 0 <= row < len(data) for row in chain(*rows.values())):
            raise ValueError("it lists images that it does not hold")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _PICKLE_FAULTS as error:
        raise damaged(path, expected, detail=f"{type(error).__name__}: {error}") from error
    return {label: _array_images(data, rows[label], path) for label in sorted(rows)}


def _array_images(data: Any, rows: Sequence[int], path: Path) -> Images:
    """Rows of an array of RGB images."""

    def load(row: int) -> Image.Image:
        image = np.asarray(data[row])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"{path}: expected uint8 images, height x width x 3, found {image.dtype} {image.shape} at {row}; "
                "this is not one of the releases that can be read"
            )
        return Image.fromarray(image)

    return Images(rows, load)


class _Unpickler(pickle.Unpickler):
    """Makes numpy arrays and plain containers, and refuses to look up anything else: no code of the file can run."""

    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^numpy\._?core\.", "numpy.core.", module)
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"this pickle asks for {module}.{name}; only numpy arrays and plain containers are read, because a "
                "pickle can run code. Nothing was run. Do not trust this file"
            )
        return _ALLOWED[module, name]


def _dtype(code: str, align: object, copy: object) -> np.dtype[Any]:
    """A type of plain numbers: a forged structure or object type could point anywhere in memory.

    It is a copy in any case, as the state that follows is written into it, and made without the old form of `align`.
    """
    del align, copy
    kind = np.dtype(code, copy=True)
    if kind.kind not in "biuf":
        raise DataError(f"this pickle holds an array of type {kind}; only plain numbers are read")
    return kind


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 writes for bytes; the codec is fixed."""
    del encoding
    return text.encode("latin1")


_PICKLE_FAULTS = (  # whatever a damaged stream of opcodes can lead to
    pickle.UnpicklingError,
    EOFError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
_PLAIN = np.zeros(1, np.uint8)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _PLAIN.__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): _PLAIN.__reduce_ex__(5)[0],
    ("numpy.core.multiarray", "scalar"): _PLAIN[0].__reduce__()[0],
    ("_codecs", "encode"): _encode,
}
