"""Readers of what users have on disk: folders, zips, CSV lists, pickles, HDF5, all turned into class name -> `Images`.

Nothing is unpacked to disk, no pickle may run code, no image may start a program, and a file that is not what its name
says is named as what it is. Read next: `forms.py` (which reader for what).
"""

from __future__ import annotations

import csv
import io
import math
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
from typing import Any, BinaryIO, ClassVar, NamedTuple

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

_FAULTS = (  # what a damaged file leads to in the libraries that read it
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
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


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
    except _FAULTS as error:
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
    except _FAULTS as error:
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
    except _FAULTS as error:
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
        return {label: _array_images(group[label], range(len(group[label])), path) for label in sorted(group)}
    except DataError:
        raise
    except _FAULTS as error:
        raise damaged(path, "an HDF5 file with the group `datasets`", detail=str(error)) from error


def read_pickle(path: Path, stack: ExitStack) -> Classes:
    """A dictionary with `image_data` and `class_dict`, or with `data` and `labels`; it is held in memory whole.

    The second kind names its classes in `catname2label`; in a copy that lacks this they are `label000` and so on.
    """
    del stack
    expected = "a pickled dictionary with image_data and class_dict, or data and labels"
    try:
        with path.open("rb") as file:
            pack = _Unpickler(file).load()
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
    except _FAULTS as error:
        raise damaged(path, expected, detail=f"{type(error).__name__}: {error}") from error
    return {label: _array_images(data, rows[label], path) for label in sorted(rows)}


def _array_images(data: Any, rows: Sequence[int], path: Path) -> Images:
    """Rows of an array of RGB images."""
    if math.prod(shape := getattr(data, "shape", ())[1:]) > 3 * PIXELS:
        raise DataError(f"{path}: expected images of at most {PIXELS:,} pixels, found {shape}; make them smaller")

    def load(row: int) -> Image.Image:
        try:
            image = np.asarray(data[row])
        except _FAULTS as error:
            raise damaged(path, f"to read image {row}", detail=str(error)) from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"{path}: expected uint8 images, height x width x 3, found {image.dtype} {image.shape} at {row}; "
                "this is not one of the releases that can be read"
            )
        return Image.fromarray(image)

    return Images(rows, load)


class _Unpickler(pickle._Unpickler):
    """Makes numpy arrays and plain containers, and refuses to look up anything else: no code of the file can run.

    It is pickle's unpickler in Python, and so is slow for small objects only. The one in C clears memory for as many
    objects as a file of ten bytes says that it has, and gives a forged state to whatever object the file names.
    """

    stack: list[Any]  # these three are pickle's own
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^numpy\._?core\.", "numpy.core.", module)
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"this pickle asks for {module}.{name}; only numpy arrays and plain containers are read, because a "
                "pickle can run code. Nothing was run. Do not trust this file"
            )
        return _ALLOWED[module, name]

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, (_Array, _Type)):
            raise pickle.UnpicklingError(f"a state for {type(made).__name__}, which has none")
        made.__setstate__(state)

    def _bytearray(self) -> None:
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray


class _Type:
    """A type of plain numbers: a forged structure or object type could point anywhere in memory."""

    def __init__(self, code: str, *of_structures: object) -> None:
        del of_structures  # alignment, and whether it is a copy
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biuf":
            raise DataError(f"this pickle holds an array of type {self.dtype}; only plain numbers are read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(of_structures is not None for of_structures in state[2:5]):
            raise ValueError("the type of an array of plain numbers has the state of another one")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(NDArray[Any]):
    """An array that is made empty and then filled, once."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        if self.size:
            raise ValueError("an array is filled twice")
        content = content if isinstance(content, bytes) else content.encode("latin1")  # text in Python 2's pickles
        super().__setstate__((1, shape, kind.dtype, is_fortran, content))


def _empty(*of_no_account: object) -> _Array:
    del of_no_account
    return np.empty(0, np.uint8).view(_Array)


def _from_buffer(content: bytes, kind: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Type, content: bytes | str) -> Any:
    return np.frombuffer(content if isinstance(content, bytes) else content.encode("latin1"), kind.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 writes for bytes; the codec is fixed."""
    del encoding
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "the kind of array that _empty makes in any case",
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}
