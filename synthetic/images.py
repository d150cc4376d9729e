"""Few-shot colour images made on the spot: the embedded data of the `demo` tier, in the form of the data cache.

A class is a random generative program: parts joined under a symmetry, drawn in a stroke, filled with a texture, painted
by a colour law. Its images differ in pose, deformation, light, background and clutter. The splits share the vocabulary
and never a program. Pixels come from raw random words and correctly rounded arithmetic alone (+ - * / and the root,
never a library's cosine or a sum whose order is open), so that they are the same on every machine. To read it in order:
`Program`, `program`, `render`. Read next: `../sharp_maml/data/cache.py` (the form), `../sharp_maml/data/episodes.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sharp_maml.base import DataError
from sharp_maml.data import Dataset, write_cache

CLASSES = {"train": 64, "validation": 16, "test": 20}
SYMMETRIES = {"free": 0, "mirror": 1, "twofold": 2, "threefold": 3, "fourfold": 4, "fivefold": 5}
STROKES = ("solid", "outlined", "hollow", "echo")
TEXTURES = ("plain", "stripes", "checks", "dots", "rings", "contours", "ramp")
LAWS = {"tints": (0.0, 0.0), "neighbours": (0.12, -0.12), "triad": (1 / 3, 2 / 3), "opposites": (0.5, 0.0)}
PARTS = ("ellipse", "box", "capsule", "ring", "triangle", "diamond")
SIZES = range(8, 257)

Field = NDArray[np.float64]  # images x rows x columns, or what broadcasts to that

_GENERATOR = "synthetic-images-1"  # part of every key: another way of drawing must have another name
_CHUNK = 50  # images rendered together: enough to amortise the calls, few enough for the arrays to stay in the cache
_DRAWS = 96  # random numbers kept for an image before those of its pixels; more than `render` takes


@dataclass(frozen=True)
class Program:
    """What makes a class: four words, which no other class has together, and numbers.

    Attributes:
        symmetry: one of `SYMMETRIES`.
        stroke: one of `STROKES`.
        texture: one of `TEXTURES`.
        law: one of `LAWS`: hues of the second colour and of the line, in turns from the first.
        parts: kinds of the parts, each one of `PARTS`.
        places: of each part the centre (x, y), the half-lengths (a, b) and the angle in turns.
        blend: how softly the parts melt into each other.
        frequency: of the texture, in periods a unit length.
        tilt: of the texture, in turns.
        hue: around which the first colours of the images scatter, in turns.
    """

    symmetry: str
    stroke: str
    texture: str
    law: str
    parts: tuple[str, ...]
    places: tuple[tuple[float, ...], ...]
    blend: float
    frequency: float
    tilt: float
    hue: float

    @property
    def name(self) -> str:
        """The four words; unique within a seed."""
        return f"{self.symmetry}-{self.stroke}-{self.texture}-{self.law}"


def program(split: str, index: int, *, seed: int = 0) -> Program:
    """The program of class `index` of a split, a pure function of its arguments.

    The words are dealt without replacement over all splits; the numbers are the class's own.

    Raises:
        ValueError: the split does not exist or has no such class, or the seed is negative.
    """
    _check(split, index, seed)
    deck = list(itertools.product(SYMMETRIES, STROKES, TEXTURES, LAWS))
    position = sum(CLASSES[other] for other in itertools.takewhile(lambda other: other != split, CLASSES)) + index
    dealt = np.argsort(_stream("deck", seed).random_raw(len(deck)), kind="stable")[position]
    symmetry, stroke, texture, law = deck[dealt]
    draw = _Draws(_uniform(_stream("class", seed, split, index).random_raw(64))[None])
    parts, places = [], []
    # Within the wedge that the symmetry repeats, which begins at the y axis.
    wedge = 0.5 / max(SYMMETRIES[symmetry], 0.5)
    for radius in (0.2, 0.4, 0.6):
        parts.append(PARTS[int(draw.one(0, len(PARTS)))])
        r, angle = draw.one(radius - 0.15, radius), draw.one(0, wedge)
        centre = float(r * _cos(angle - 0.25)), float(r * _cos(angle))
        places.append((*centre, draw.one(0.16, 0.45), draw.one(0.1, 0.3), draw.one(0, 1)))
    return Program(
        symmetry,
        stroke,
        texture,
        law,
        tuple(parts),
        tuple(places),
        blend=draw.one(0.02, 0.2),
        frequency=draw.one(1.4, 2.6),
        tilt=draw.one(0, 1),
        hue=draw.one(0, 1),
    )


def render(
    split: str, index: int, instances: Sequence[int], *, size: int = 28, seed: int = 0
) -> NDArray[np.uint8]:
    """Images of one class; each is a pure function of (seed, split, index, its number, size).

    The background, its clutter and the object are painted over each other; then come light and noise. Distances are in
    units of half the image; a signed distance becomes a mask whose edge is one pixel wide.

    Args:
        split: `train`, `validation` or `test`.
        index: class within the split.
        instances: numbers of the images, from 0 without end.
        size: height and width in pixels.
        seed: names a whole data set.

    Returns:
        `len(instances) x size x size x 3`.

    Raises:
        ValueError: an argument is out of range.
    """
    recipe = program(split, index, seed=seed)
    if size not in SIZES:
        raise ValueError(f"size: must be {SIZES[0]} ... {SIZES[-1]} pixels, got {size}")
    if any(number < 0 for number in instances):
        raise ValueError(f"instances: must be at least 0, got {min(instances)}")
    raw = [_stream("image", seed, split, index, i).random_raw(_DRAWS + 3 * size * size) for i in instances]
    numbers = _uniform(np.array(raw, dtype=np.uint64).reshape(len(raw), _DRAWS + 3 * size * size))
    draw, noise = _Draws(numbers[:, :_DRAWS]), numbers[:, _DRAWS:].reshape(-1, size, size, 3)

    axis = (2 * np.arange(size) + 1 - size) / size
    x, y = np.broadcast_arrays(axis[None, None, :], axis[None, :, None])
    pixel = 2 / size

    def paint(canvas: Field, colour: Field, distance: Field) -> Field:
        mask = np.clip(0.5 - distance / pixel, 0, 1)[..., None]
        return canvas + mask * (colour - canvas)

    # Background: two colours across a soft wave.
    u, v = _rotate(x, y, draw(0, 1))
    wave = _cos(draw(0.1, 0.7) * u + draw(0, 1) + draw(0, 0.3) * _cos(draw(0.2, 1.0) * v))
    first, second = (_colour(draw(0, 1), draw(0.0, 0.7), draw(0.15, 0.95)) for _ in range(2))
    canvas = first + (0.5 + 0.5 * wave[..., None]) * (second - first)

    def clutter(canvas: Field) -> Field:
        u, v = _rotate(x - draw(-1, 1), y - draw(-1, 1), draw(0, 1))
        distance = _distance("capsule", u, v, draw(0.0, 0.5), draw(0.06, 0.28))
        return paint(canvas, _colour(draw(0, 1), draw(0.2, 1), draw(0.2, 1)), distance)

    for _ in range(3):
        canvas = clutter(canvas)

    # Pose and deformation: the object's own coordinates of every pixel.
    scale = draw(0.75, 1.15)
    u, v = _rotate(x - draw(-0.25, 0.25), y - draw(-0.25, 0.25), draw(-0.08, 0.08))
    u, v = u / scale, v / (scale * draw(0.8, 1.2))
    u = u + draw(-0.2, 0.2) * v + draw(0, 0.08) * _cos(draw(0.3, 0.8) * v + draw(0, 1))
    body = _body(recipe, u, v, draw) * scale

    hue, contrast = recipe.hue + draw(-0.3, 0.3), draw(0.25, 0.45)
    value = draw(0.45, 0.95)
    shift_second, shift_line = LAWS[recipe.law]
    primary = _colour(hue, draw(0.55, 1), value)
    secondary = _colour(hue + shift_second, draw(0.4, 0.9), np.where(value > 0.7, value - contrast, value + contrast))
    line = _colour(hue + shift_line, draw(0.5, 1), np.where(value > 0.7, 0.12, 0.97))
    fill = primary + _texture(recipe, u, v, body, draw)[..., None] * (secondary - primary)
    width = draw(0.05, 0.08)
    match recipe.stroke:
        case "solid":
            canvas = paint(canvas, fill, body)
        case "outlined":
            canvas = paint(paint(canvas, line, body - width), fill, body + width)
        case "hollow":
            canvas = paint(canvas, fill, np.abs(body) - 1.6 * width)
        case "echo":
            canvas = paint(paint(canvas, fill, body), line, np.abs(body - 3 * width) - width)
    canvas = clutter(canvas)

    # Light from one side, its tint, and noise.
    u, _ = _rotate(x, y, draw(0, 1))
    tint = np.stack([draw(0.75, 1.05) for _ in range(3)], axis=-1)
    canvas = canvas * tint * (1 + draw(0, 0.35) * u)[..., None] + draw(0.02, 0.12)[..., None] * (2 * noise - 1)
    return np.floor(255 * np.clip(canvas, 0, 1) + 0.5).astype(np.uint8)


def _body(recipe: Program, x: Field, y: Field, draw: _Draws) -> Field:
    """Signed distance to the parts' union under the symmetry; every image moves and stretches the parts a little."""
    x, y = _fold(x, y, SYMMETRIES[recipe.symmetry])
    union: Field | None = None
    for kind, (at_x, at_y, a, b, angle) in zip(recipe.parts, recipe.places, strict=True):
        u, v = _rotate(x - at_x - draw(-0.05, 0.05), y - at_y - draw(-0.05, 0.05), angle + draw(-0.04, 0.04))
        part = _distance(kind, u, v, a * draw(0.85, 1.15), b * draw(0.85, 1.15))
        if union is None:
            union = part
        else:
            overlap = np.maximum(recipe.blend - np.abs(union - part), 0)
            union = np.minimum(union, part) - overlap * overlap / (4 * recipe.blend)
    if union is None:
        raise ValueError("a program needs at least one part")
    return union


def _fold(x: Field, y: Field, order: int) -> tuple[Field, Field]:
    """Map the plane to the wedge that mirrors of the given order repeat; 0 leaves it as it is."""
    for _ in range((order + 1) // 2 + (order > 0)):
        x = np.abs(x)
        if order > 1:  # Reflect what lies beyond the wedge's second mirror, half a turn / order away from the first.
            normal_x, normal_y = _cos(0.5 / order), -_cos(0.5 / order - 0.25)
            beyond = 2 * np.maximum(normal_x * x + normal_y * y, 0)
            x, y = x - beyond * normal_x, y - beyond * normal_y
    return x, y


def _distance(kind: str, x: Field, y: Field, a: Field, b: Field) -> Field:
    """Signed distance (or nearly that) to a part with half-lengths `a` along and `b` across; negative inside."""
    match kind:
        case "ellipse":
            return (np.sqrt((x / a) * (x / a) + (y / b) * (y / b)) - 1) * np.minimum(a, b)
        case "box":
            return np.maximum(np.abs(x) - a, np.abs(y) - b)
        case "capsule":
            along = np.maximum(np.abs(x) - a, 0)
            return np.sqrt(along * along + y * y) - 0.6 * b
        case "ring":
            return np.abs(np.sqrt(x * x + y * y) - a) - 0.4 * b
        case "triangle":
            return np.maximum(0.866 * np.abs(x) + 0.5 * y, -y) - 0.6 * a
        case "diamond":
            return (np.abs(x) / a + np.abs(y) / b - 1) * 0.8 * np.minimum(a, b)
    raise ValueError(f"kind: must be one of {', '.join(PARTS)}, got {kind!r}")


def _texture(recipe: Program, x: Field, y: Field, body: Field, draw: _Draws) -> Field:
    """Share of the second colour, 0 ... 1; it moves with the object, and its phase and period vary."""
    u, v = _rotate(x, y, recipe.tilt)
    f, phase = recipe.frequency * draw(0.9, 1.1), draw(0, 1)
    match recipe.texture:
        case "plain":
            wave: Field = -np.ones_like(u)
        case "stripes":
            wave = _cos(f * u + phase)
        case "checks":
            wave = _cos(0.75 * f * u + phase) * _cos(0.75 * f * v)
        case "dots":
            wave = _cos(f * u + phase) + _cos(f * v) - 0.7
        case "rings":
            wave = _cos(f * np.sqrt(u * u + v * v) + phase)
        case "contours":
            wave = _cos(2 * f * body)
        case _:  # ramp
            return np.clip(0.5 + 0.9 * u, 0, 1)
    return np.clip(0.5 + 2 * wave, 0, 1)


def _colour(hue: Field, saturation: Field, value: Field) -> Field:
    """HSV to RGB, hue in turns; images x 1 x 1 x 3."""
    third = np.array([0.0, 2 / 3, 1 / 3])
    turn = hue[..., None] + third
    pure = np.clip(np.abs((turn - np.floor(turn)) * 6 - 3) - 1, 0, 1)
    return np.clip(value, 0, 1)[..., None] * (1 + saturation[..., None] * (pure - 1))


def _cos(turns: Field | float) -> Field:
    """cos(2 pi turns) to four digits, by a polynomial: libraries differ in the last bit, which would show in digests."""
    quarter = 0.25 - np.abs(turns - np.rint(turns))  # cos(2 pi t) = sin(2 pi (1/4 - |t|))
    s = quarter * quarter
    cosine: Field = quarter * (6.28318530718 - s * (41.3417022404 - s * (81.6052492761 - s * 76.7058597531)))
    return cosine


def _rotate(x: Field, y: Field, turns: Field | float) -> tuple[Field, Field]:
    c, s = _cos(turns), _cos(turns - 0.25)
    return c * x + s * y, c * y - s * x


class _Draws:
    """Hands out the columns of a table of uniform numbers, one row an image, each stretched to an interval."""

    def __init__(self, table: Field) -> None:
        self._columns = iter(table.T)

    def __call__(self, low: float, high: float) -> Field:
        """The next column, images x 1 x 1."""
        column: Field = low + (high - low) * next(self._columns)[:, None, None]
        return column

    def one(self, low: float, high: float) -> float:
        """The next column of a table of one row."""
        return float(self(low, high).item())


def _stream(*key: object) -> np.random.Philox:
    """Raw random words named by a key: of a bit generator numpy promises only these to stay the same."""
    digest = hashlib.sha256("/".join(map(str, (_GENERATOR, *key))).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def _uniform(words: NDArray[np.uint64]) -> Field:
    numbers: Field = (words >> np.uint64(11)) * 2.0**-53
    return numbers


def _check(split: str, index: int, seed: int) -> None:
    if split not in CLASSES:
        raise ValueError(f"split: must be one of {', '.join(CLASSES)}, got {split!r}")
    if not 0 <= index < CLASSES[split]:
        raise ValueError(f"index: {split} has the classes 0 ... {CLASSES[split] - 1}, got {index}")
    if seed < 0:
        raise ValueError(f"seed: must be at least 0, got {seed}")


class _ClassImages(Sequence[NDArray[np.uint8]]):
    """The images of one class, rendered in chunks while they are read."""

    def __init__(self, split: str, index: int, count: int, size: int, seed: int) -> None:
        self._make = lambda numbers: render(split, index, numbers, size=size, seed=seed)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number):
        return self._make(range(self._count)[number : number + 1])[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, self._count, _CHUNK):
            yield from self._make(range(self._count)[start : start + _CHUNK])
