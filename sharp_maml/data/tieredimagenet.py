"""tieredImageNet: 351, 97 and 160 classes of ImageNet, split by what they are kinds of.

It comes as folders of images named by WordNet ids. What has these names and numbers of classes and images is called
`tieredimagenet-by-numbers`, because the ids themselves are not compared; any other classes with WordNet ids are the
user's own, as is a part of it. Read next: `forms.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sharp_maml.base import DataError
from sharp_maml.data.miniimagenet import in_several, is_wordnet_id

SPECIFICATION: Mapping[str, tuple[int, int]] = {
    "train": (351, 448_695),
    "validation": (97, 124_261),
    "test": (160, 206_209),
}
"""Classes and images of each split. Source: Ren et al., "Meta-Learning for Semi-Supervised Few-Shot Classification",
ICLR 2018, table of its appendix."""

BY_NUMBERS = "tieredimagenet-by-numbers"


def resembles(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether splits have WordNet ids for names, and tieredImageNet's numbers of classes and images.

    Args:
        counts: split -> class name -> number of images.
    """
    sizes = {split: (len(classes), sum(classes.values())) for split, classes in counts.items()}
    return sizes == SPECIFICATION and all(is_wordnet_id(name) for classes in counts.values() for name in classes)


def verify(where: Path, counts: Mapping[str, Mapping[str, int]]) -> str:
    """The name of what resembles tieredImageNet.

    Args:
        where: what to call the data in messages.
        counts: split -> class name -> number of images.

    Returns:
        `tieredimagenet-by-numbers`.

    Raises:
        DataError: the numbers are others, or a class is in two splits.
    """
    shared = in_several(counts.values())
    if shared or not resembles(counts):
        wrong = (
            f"{len(shared)} classes are in more than one split, e.g. {shared[0]}" if shared else "the numbers differ"
        )
        expected = ", ".join(f"{n} classes of {images} images" for n, images in SPECIFICATION.values())
        raise DataError(f"{where}: expected tieredImageNet ({expected}), but {wrong}. Get it again from its source")
    return BY_NUMBERS
