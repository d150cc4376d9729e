"""Readers of what users have on disk: folders, zips, CSV lists, HDF5, all turned into class name -> `Images`.

Nothing is unpacked to disk, no image may start a program, and a file that is not what its name says is named as what it
is. Read next: `pickles.py` (one more reader), `forms.py` (which reader for what).
"""

from __future__ import annotations

import csv
import io
import math
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sharp_maml.base import DataError

MEMBER_BYTES = 1 << 28
"""The largest file in an archive that is taken for an image, 256 MiB: 80 million pixels uncompressed."""

PIXELS = 1 << 25
"""The most pixels of an image: two threads that each hold one decoded and converted, 8 bytes a pixel, need 512 MiB."""

CODECS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take an image for. It knows more, among them EPS, for which it starts Ghostscript."""

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
        """These images, each one changed after it is loaded."""
        load = self.load
        return replace(self, load=lambda key: change(load(key)))


Classes = dict[str, Images]

FAULTS = (
    OSError,
    EOFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""What a damaged file leads to in the libraries that read it."""


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
        return Tree(path, _image_names(below), partial(read_below, path))
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except FAULTS as error:
        raise damaged(path, "a zip archive", detail=str(error)) from error
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
        DataError: the bytes are no whole image, too many pixels, or more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(data), formats=CODECS) as image:
            if image.width * image.height > PIXELS:
                raise DataError(
                    f"{where}: expected at most {PIXELS:,} pixels, found {image.width} x {image.height}; reduce it"
                )
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{where}: expected 8 bits a channel, found mode {image.mode}; convert the image")
            return image.convert(mode)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise damaged(where, "an image", data[:512], f"none of {', '.join(CODECS)}") from error
    except FAULTS as error:
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


def read_below(folder: Path, name: str) -> bytes:
    """The bytes of a file below a folder.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / name}: cannot be read ({error.strerror})") from error


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; no more are unpacked than it says that it has, which `open_tree` checked."""
    try:
        with archive.open(name) as file:
            return file.read(archive.getinfo(name).file_size)
    except FAULTS as error:
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
        if not rows or any(not name or not label for name, label in rows):
            raise ValueError("no rows, or one without filename or label")
    except (KeyError, ValueError, csv.Error) as error:
        raise damaged(path, "a list with the columns filename,label", detail=str(error)) from error
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
    tree = Tree(folder, sorted(present), partial(read_below, folder))
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
        return {label: array_images(group[label], range(len(group[label])), path) for label in sorted(group)}
    except DataError:
        raise
    except FAULTS as error:
        raise damaged(path, "an HDF5 file with the group `datasets`", detail=str(error)) from error


def array_images(data: Any, rows: Sequence[int], path: Path) -> Images:
    """Rows of an array of RGB images, `n x height x width x 3`.

    Raises:
        DataError: the images have too many pixels; or, when one is loaded, it cannot be read or is no RGB image.
    """
    if math.prod(shape := getattr(data, "shape", ())[1:]) > 3 * PIXELS:
        raise DataError(f"{path}: expected images of at most {PIXELS:,} pixels, found {shape}; make them smaller")

    def load(row: int) -> Image.Image:
        try:
            image = np.asarray(data[row])
        except FAULTS as error:
            raise damaged(path, f"to read image {row}", detail=str(error)) from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"{path}: expected uint8 images, height x width x 3, found {image.dtype} {image.shape} at {row}; "
                "this is not one of the releases that can be read"
            )
        return Image.fromarray(image)

    return Images(rows, load)
