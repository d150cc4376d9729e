"""The reader of pickled data sets, by an unpickler that makes arrays and plain containers and runs no code of the file.

Read next: `formats.py` (the other readers), `forms.py` (which reader for what).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from sharp_maml.base import DataError
from sharp_maml.data.formats import FAULTS, Classes, array_images, damaged


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
    except (*FAULTS, pickle.UnpicklingError) as error:
        raise damaged(path, expected, detail=f"{type(error).__name__}: {error}") from error
    return {label: array_images(data, rows[label], path) for label in sorted(rows)}


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
