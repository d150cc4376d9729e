"""miniImageNet in the split of Ravi and Larochelle: 64, 16 and 20 classes of 600 images, checked by content.

What comes in a file that only miniImageNet comes in, and what resembles it (`resembles`), must be it; any other classes
are the user's own, also where they are named by WordNet ids, such as those of tieredImageNet. Read next: `formats.py`
(how it is read), `forms.py` (which calls both).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sharp_maml.base import DataError


class Specification(NamedTuple):
    """What the splits must hold.

    classes: split -> WordNet ids.
    images: images per class.
    """

    classes: Mapping[str, tuple[str, ...]]
    images: int


TRAIN = """
    n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867 n02091831 n02101006
    n02105505 n02108089 n02108551 n02108915 n02111277 n02113712 n02120079 n02165456 n02457408 n02606052 n02687172
    n02747177 n02795169 n02823428 n02966193 n03017168 n03047690 n03062245 n03207743 n03220513 n03337140 n03347037
    n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605 n03908618 n03924679 n03998194 n04067472
    n04243546 n04251144 n04258138 n04275548 n04296562 n04389033 n04435653 n04443257 n04509417 n04515003 n04596742
    n04604644 n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560 n13133613
"""
VALIDATION = """
    n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792 n03075370 n03417042 n03535780
    n03584254 n03770439 n03773504 n03980874 n09256479
"""
TEST = """
    n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486 n02443484 n02871525 n03127925
    n03146219 n03272010 n03544143 n03775546 n04146614 n04149813 n04418357 n04522168 n07613480
"""
SPECIFICATION = Specification(
    {"train": tuple(TRAIN.split()), "validation": tuple(VALIDATION.split()), "test": tuple(TEST.split())}, images=600
)
LOOK_ALIKE = (
    "this is `timm/mini-imagenet` or a data set like it: its splits share their 100 classes, so they measure ordinary "
    "classification, not learning from few examples of new classes"
)
ADVICE = (
    "Get miniImageNet in the split of Ravi and Larochelle (64, 16 and 20 classes of 600 images); in data of your own, "
    "at most half of the classes with WordNet ids may be miniImageNet's"
)
NAME = "miniimagenet"
BY_NUMBERS = "miniimagenet-by-numbers"


def is_wordnet_id(name: str) -> bool:
    """Whether a class is named as in ImageNet, e.g. `n01532829`."""
    return re.fullmatch(r"n\d{8}", name) is not None


def in_several(splits: Iterable[Iterable[str]]) -> list[str]:
    """The class names that more than one split has, in alphabetical order."""
    return sorted(name for name, times in Counter(chain.from_iterable(splits)).items() if times > 1)


def resembles(classes: Iterable[Iterable[str]]) -> bool:
    """Whether splits are near enough to miniImageNet to be taken for it.

    They are if most of their WordNet ids are miniImageNet's, whatever else is there, or if each split has the same 100
    of them, like the look-alike. tieredImageNet has some of these classes too, among 608.

    Args:
        classes: the class names of each split, or of a pool.
    """
    found = [set(filter(is_wordnet_id, names)) for names in classes]
    ids, known = set().union(*found), set().union(*SPECIFICATION.classes.values())
    alike = len(found) > 1 and len(ids) == len(known) and all(names == ids for names in found)
    return alike or 2 * len(ids & known) > len(ids)


def verify(where: Path | str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Check that the splits are those of miniImageNet; where classes have no WordNet ids, check their numbers only.

    Args:
        where: what to call the data in messages.
        counts: split -> class name -> number of images.

    Returns:
        What the data may be called: `miniimagenet`, or `miniimagenet-by-numbers` if a class has no WordNet id.

    Raises:
        DataError: naming the first thing that is wrong: a look-alike, shared, swapped, missing or foreign classes, or a
            class with too few or too many images.
    """
    wrong = _first_fault(counts, SPECIFICATION)
    if wrong:
        raise DataError(f"{where}: expected miniImageNet, but {wrong}. {ADVICE}")
    return NAME if all(is_wordnet_id(name) for names in counts.values() for name in names) else BY_NUMBERS


def _first_fault(counts: Mapping[str, Mapping[str, int]], specification: Specification) -> str | None:
    expected, images = specification
    found = {split: {name for name in classes if is_wordnet_id(name)} for split, classes in counts.items()}
    shared = in_several(found.values())
    every = set().union(*expected.values())
    if len(counts["train"]) == len(every) or (shared and all(set(shared) == names for names in found.values())):
        return LOOK_ALIKE
    if shared:
        return f"{len(shared)} classes are in more than one split, e.g. {shared[0]}"
    for split, classes in counts.items():
        wanted = set(expected[split])
        for other, names in expected.items():
            if other != split and len(classes) == len(names) and found[split] <= set(names):
                return f"{split} holds the classes of {other}: the splits are swapped"
        if len(classes) != len(wanted):
            return f"{split} has {len(classes)} classes instead of {len(wanted)}"
        if foreign := sorted(found[split] - wanted):
            owner = next((f", a class of {other}" for other, names in expected.items() if foreign[0] in names), "")
            return f"{split} has {len(foreign)} classes that are not its own, e.g. {foreign[0]}{owner}"
        for name, count in classes.items():
            if count != images:
                return f"class {name} of {split} has {count} images instead of {images}"
    return None
