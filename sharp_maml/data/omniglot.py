"""Omniglot: handwritten characters, white on black, each one in four rotations that count as classes of their own.

Read in its full form (`images_background`, `images_evaluation`) or in the small one (`images_background_small1`,
`images_background_small2`), as zips or folders. Splits go by alphabet. Read next: `formats.py` (reads the files),
`forms.py` (where it is registered).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from operator import methodcaller
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from sharp_maml.base import DataError
from sharp_maml.data.formats import Classes, Images, Tree, open_tree

NAMES = ("omniglot", "omniglot-small")
SIZE = 28
DRAWINGS = 20
FULL = ("images_background", "images_evaluation")
SMALL = ("images_background_small2", "images_background_small1")
CHARACTERS: Mapping[str, int] = {
    "images_background": 964,
    "images_evaluation": 659,
    "images_background_small1": 136,
    "images_background_small2": 156,
}
# Every sixth of the thirty background alphabets in alphabetical order: a choice made here, as there is no usual one.
FULL_VALIDATION = (
    "Balinese",
    "Early_Aramaic",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Mkhedruli_(Georgian)",
    "Tifinagh",
)
# The alphabet of small1 with the fewest characters of those that small2 lacks; Balinese and Korean stay for the test.
SMALL_VALIDATION = ("Early_Aramaic",)
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def read(sets: Mapping[str, Path], stack: ExitStack) -> dict[str, Classes]:
    """The splits, by alphabet: the first set trains, the second tests, one of them also validates.

    In the full form train is the background set without `FULL_VALIDATION`, and test the evaluation set. In the small
    form train is small2; of small1 the alphabets that small2 has too (Greek, Latin) are dropped, `SMALL_VALIDATION`
    validates and the rest tests.

    Raises:
        DataError: a set lacks characters or drawings.
    """
    (first, one), (_, two) = ((name, _alphabets(name, path, stack)) for name, path in sets.items())
    if first == FULL[0]:
        validation = {alphabet: one.pop(alphabet) for alphabet in FULL_VALIDATION}
    else:
        two = {alphabet: classes for alphabet, classes in two.items() if alphabet not in one}
        validation = {alphabet: two.pop(alphabet) for alphabet in SMALL_VALIDATION}
    splits = {"train": one, "validation": validation, "test": two}
    return {split: _with_rotations(alphabets) for split, alphabets in splits.items()}


def _alphabets(name: str, path: Path, stack: ExitStack) -> dict[str, Classes]:
    """Alphabet -> character -> drawings of one set."""
    tree = open_tree(path, stack)
    drawings: dict[tuple[str, str], list[str]] = {}
    for file in tree.names:
        alphabet, character = ("", "", *PurePosixPath(file).parts)[-3:-1]
        drawings.setdefault((alphabet, character), []).append(file)
    wrong = [f"{'/'.join(key)} has {len(files)} drawings" for key, files in drawings.items() if len(files) != DRAWINGS]
    if wrong or len(drawings) != CHARACTERS[name]:
        raise DataError(
            f"{path}: expected {CHARACTERS[name]} characters of {DRAWINGS} drawings, found {len(drawings)} characters"
            f"{f', {wrong[0]}' if wrong else ''}. Unpack or download the set again"
        )
    alphabets: dict[str, Classes] = {}
    for (alphabet, character), files in sorted(drawings.items()):
        alphabets.setdefault(alphabet, {})[character] = drawings_of(tree, files)
    return alphabets


def drawings_of(tree: Tree, names: Iterable[str]) -> Images:
    """Some files of a tree as drawings, in grey: white on black, as networks see them."""
    return tree.images(names, "L").map(ImageOps.invert)


def _with_rotations(alphabets: Mapping[str, Classes]) -> Classes:
    classes: Classes = {}
    for alphabet, characters in alphabets.items():
        for character, images in characters.items():
            classes[f"{alphabet}/{character}@0"] = images
            for degrees, turn in _TURNS.items():
                classes[f"{alphabet}/{character}@{degrees}"] = images.map(methodcaller("transpose", turn))
    return classes
