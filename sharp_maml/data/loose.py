"""Images outside a data set, which become the pixels that training would have made of them.

Read next: `formats.py` (the files), `folders.py` (`square`), `../classify.py` (what is done with them).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharp_maml.base import DataError
from sharp_maml.data import omniglot
from sharp_maml.data.folders import square
from sharp_maml.data.formats import Images, Tree, class_folders, open_tree, read_below


class Pixels(NamedTuple):
    """What a network takes for an image.

    dataset: name of the data set that it was trained on: drawings of Omniglot are white on black.
    size: height and width in pixels.
    channels: 1 (grey) or 3 (RGB).
    """

    dataset: str
    size: int
    channels: int

    def of(self, tree: Tree, names: Iterable[str]) -> NDArray[np.uint8]:
        """Some files of a tree as `n x size x size x channels`.

        Raises:
            DataError: a file cannot be read, or is no whole image.
        """
        return np.stack(list(self._converted(tree, names).map(partial(square, size=self.size))))

    def _converted(self, tree: Tree, names: Iterable[str]) -> Images:
        if self.dataset in omniglot.NAMES:
            return omniglot.drawings_of(tree, names)
        return tree.images(names, "L" if self.channels == 1 else "RGB")


def labelled_images(folder: str | Path, pixels: Pixels) -> dict[str, NDArray[np.uint8]]:
    """The images of a folder with a sub-folder for each class.

    Args:
        folder: a directory; every class has one image or more.
        pixels: what to make of an image.

    Returns:
        Class name -> `n x size x size x channels`, in the order of the names.

    Raises:
        DataError: there is no such folder, it has no classes, one of them no images, or an image is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing; check the path"
        raise DataError(f"{folder}: expected a folder with a sub-folder of images for each class, found {found}")
    with ExitStack() as stack:
        tree = open_tree(folder, stack)
        return {name: pixels.of(tree, images.keys) for name, images in class_folders(tree).items()}


def unlabelled_images(paths: Iterable[str | Path], pixels: Pixels) -> tuple[list[str], NDArray[np.uint8]]:
    """Images that are named one by one, and all that lie below folders.

    Args:
        paths: files and folders.
        pixels: what to make of an image.

    Returns:
        Their paths, those of a folder in the order of their names; and `n x size x size x channels`.

    Raises:
        DataError: a path is not there, a folder has no images, or an image is damaged.
    """
    trees = [_tree(Path(path)) for path in paths]
    names = [str(tree.where / name) for tree in trees for name in tree.names]
    return names, np.concatenate([pixels.of(tree, tree.names) for tree in trees])


def _tree(path: Path) -> Tree:
    """All images below a folder, or a file alone."""
    if not path.is_dir():
        return Tree(path.parent, [path.name], partial(read_below, path.parent))
    with ExitStack() as stack:
        tree = open_tree(path, stack)
    if not tree.names:
        raise DataError(f"{path}: expected images that Pillow reads, found none")
    return tree
