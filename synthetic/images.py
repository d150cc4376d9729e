"""Few-shot colour images made on the spot: the embedded data of the `demo` tier, in the form of the data cache.

A class is a random generative program: parts joined under a symmetry, drawn in a stroke, filled with a texture, painted
by a colour law. Its images differ in pose, deformation, light, background and clutter. The splits share the vocabulary,
never a program. Pixels come from raw random words and correctly rounded arithmetic alone (+ - * / and the root; no
library's cosine, no sum whose order is open), so that they are the same on every machine. To read it in order:
`ClassProgram`, `class_program`, `render_images`. Read next: `../sharp_maml/data/cache.py`, the form of the data.

    python -m synthetic.images DIRECTORY --size 20

The command writes their metadata for data portals beside them, too (`croissant.py`).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sharp_maml import DataError, Dataset, write_cache
from synthetic.croissant import write_croissant

CLASSES = {"train": 64, "validation": 16, "test": 20}
SYMMETRIES = {"free": 0, "mirror": 1, "twofold": 2, "threefold": 3, "fourfold": 4, "fivefold": 5}  # numbers of mirrors
STROKES = ("solid", "outlined", "hollow", "echo")
TEXTURES = ("plain", "stripes", "checks", "dots", "rings", "contours", "ramp")
LAWS = {"tints": (0.0, 0.0), "neighbours": (0.12, -0.12), "triad": (1 / 3, 2 / 3), "opposites": (0.5, 0.0)}
PARTS = ("ellipse", "box", "capsule", "ring", "triangle", "diamond")
SIZES = range(8, 257)

Field = NDArray[np.float64]
"""Numbers over pixels: images x rows x columns (x colours), or what broadcasts to that."""

_GENERATOR = "synthetic-images-1"  # part of every key: another way of drawing must have another name
_CHUNK = 50  # images rendered together: enough to amortise the calls, few enough for their fields to stay in the cache
_DRAWS = 96  # random numbers of an image before those of its pixels; more than are taken


@dataclass(frozen=True)
class ClassProgram:
    """What makes a class: four words, which no other class has together, and numbers. Angles and hues are in turns."""

    symmetry: str
    stroke: str
    texture: str
    law: str  # how far the hues of the second colour and of the line are from the first
    parts: tuple[str, ...]
    places: tuple[tuple[float, float, float, float, float], ...]  # centre x, y; half-lengths along, across; angle
    blend: float  # how softly the parts melt into each other
    frequency: float  # of the texture, in periods a unit length
    tilt: float  # of the texture
    hue: float  # around which the first colours of the images scatter

    @property
    def name(self) -> str:
        """The four words."""
        return f"{self.symmetry}-{self.stroke}-{self.texture}-{self.law}"


def class_program(split: str, index: int, *, seed: int = 0) -> ClassProgram:
    """The program of class `index` of a split: a pure function of its arguments.

    The words are dealt over all splits without replacement; the numbers are the class's own.

    Raises:
        ValueError: the split does not exist or has no such class, or the seed is negative.
    """
    if split not in CLASSES:
        raise ValueError(f"split: must be one of {', '.join(CLASSES)}, got {split!r}")
    if not 0 <= index < CLASSES[split]:
        raise ValueError(f"index: {split} has the classes 0 ... {CLASSES[split] - 1}, got {index}")
    if seed < 0:
        raise ValueError(f"seed: must be at least 0, got {seed}")
    deck = list(itertools.product(SYMMETRIES, STROKES, TEXTURES, LAWS))
    before = sum(CLASSES[other] for other in itertools.takewhile(lambda other: other != split, CLASSES))
    dealt = np.argsort(_stream("deck", seed).random_raw(len(deck)), kind="stable")
    symmetry, stroke, texture, law = deck[dealt[before + index]]

    draw = _Draws(_uniform(_stream("class", seed, split, index).random_raw(32))[None])
    wedge = 0.5 / max(SYMMETRIES[symmetry], 0.5)  # what the mirrors repeat, from the y axis on; without any, all
    parts, places = [], []
    for farthest in (0.2, 0.4, 0.6):
        parts.append(PARTS[int(draw.one(0, len(PARTS)))])
        radius, angle = draw.one(farthest - 0.15, farthest), draw.one(0, wedge)
        centre = float(radius * _cos(angle - 0.25)), float(radius * _cos(angle))
        places.append((*centre, draw.one(0.16, 0.45), draw.one(0.1, 0.3), draw.one(0, 1)))
    blend, frequency, tilt, hue = draw.one(0.02, 0.2), draw.one(1.4, 2.6), draw.one(0, 1), draw.one(0, 1)
    return ClassProgram(symmetry, stroke, texture, law, tuple(parts), tuple(places), blend, frequency, tilt, hue)


def render_images(
    split: str, index: int, instances: Sequence[int], *, size: int = 28, seed: int = 0
) -> NDArray[np.uint8]:
    """Images of one class; each is a pure function of (seed, split, index, its own number, size).

    Background, clutter and object are painted over each other; then come light and noise. Lengths are in halves of the
    image. At another size the same scene is drawn in other pixels.

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
    program = class_program(split, index, seed=seed)
    if size not in SIZES:
        raise ValueError(f"size: must be {SIZES[0]} ... {SIZES[-1]} pixels, got {size}")
    if len(instances) == 0 or min(instances) < 0:
        raise ValueError(f"instances: must be one or more numbers from 0 on, got {list(instances)}")
    words = [_stream("image", seed, split, index, i).random_raw(_DRAWS + 3 * size * size) for i in instances]
    numbers = _uniform(np.stack(words))
    draw, noise = _Draws(numbers[:, :_DRAWS]), numbers[:, _DRAWS:].reshape(-1, size, size, 3)
    axis = (2 * np.arange(size) + 1 - size) / size
    x, y = np.broadcast_arrays(axis[None, None, :], axis[None, :, None])

    canvas = _background(x, y, draw)
    for _ in range(2):
        canvas = _clutter(canvas, x, y, draw)
    canvas = _object(canvas, program, x, y, draw)
    canvas = _clutter(canvas, x, y, draw)

    u, _ = _rotate(x, y, draw(0, 1))
    tint = np.stack([draw(0.75, 1.05) for _ in range(3)], axis=-1)
    light = tint * (1 + draw(0, 0.35) * u)[..., None]
    canvas = canvas * light + draw(0.01, 0.08)[..., None] * (2 * noise - 1)
    return np.floor(255 * np.clip(canvas, 0, 1) + 0.5).astype(np.uint8)


def write_images(directory: str | os.PathLike[str], *, size: int = 28, per_class: int = 100, seed: int = 0) -> Dataset:
    """Write the whole data set as a data cache and open it; one that is already there is opened as it is.

    Args:
        directory: where the cache is to lie; it must not exist, be empty, or hold the same data set.
        size: height and width of the images in pixels.
        per_class: images of each class.
        seed: names the data set.

    Raises:
        ValueError: an argument is out of range.
        DataError: the place cannot be written, or holds something else.
    """
    if per_class < 1:
        raise ValueError(f"per_class: must be at least 1, got {per_class}")
    first = render_images("train", 0, [0], size=size, seed=seed)[0]
    splits = {
        split: {
            class_program(split, index, seed=seed).name: _ClassImages(split, index, per_class, size, seed)
            for index in range(classes)
        }
        for split, classes in CLASSES.items()
    }
    dataset = write_cache(directory, name="synthetic-images", splits=splits)
    found = dataset.splits["train"]
    if found.counts[0] != per_class or not np.array_equal(found.images[0], first):
        raise DataError(
            f"{directory}: expected images of size {size}, {per_class} a class, from seed {seed}; found some of "
            f"size {dataset.size}, {found.counts[0]} a class, or of another seed. Remove the folder, or name another"
        )
    return dataset


def contact_sheet(*, seed: int = 0, columns: int = 12, size: int = 48) -> Image.Image:
    """A picture of some classes of every split, one per row under its name."""
    rows = [
        (split, index) for split, count in {"train": 8, "validation": 4, "test": 4}.items() for index in range(count)
    ]
    label, gap = 14, 2
    sheet = Image.new("RGB", (columns * (size + gap) + gap, len(rows) * (size + label + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (split, index) in enumerate(rows):
        top = row * (size + label + gap)
        pen.text((gap, top + 1), f"{split} {index}: {class_program(split, index, seed=seed).name}", fill="black")
        for column, pixels in enumerate(render_images(split, index, range(columns), size=size, seed=seed)):
            sheet.paste(Image.fromarray(pixels), (gap + column * (size + gap), top + label))
    return sheet.quantize(256, dither=Image.Dither.NONE)  # a palette makes a file that a repository can hold


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: write the data set, a contact sheet, or both; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m synthetic.images", description="Make the synthetic images.")
    parser.add_argument("directory", type=Path, nargs="?", help="folder of the data cache to write")
    parser.add_argument("--size", type=int, default=28, help="height and width in pixels (default: %(default)s)")
    parser.add_argument("--per-class", type=int, default=100, help="images of each class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="names the data set (default: %(default)s)")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="picture of some classes to write")
    options = parser.parse_args(arguments)
    if options.directory is None and options.contact_sheet is None:
        parser.error("name a directory, --contact-sheet FILE.png, or both")
    try:
        if options.directory is not None:
            images = options.per_class * sum(CLASSES.values())
            print(f"{images} images, {images * 3 * options.size**2 / 1e6:.0f} MB", file=sys.stderr)
            dataset = write_images(options.directory, size=options.size, per_class=options.per_class, seed=options.seed)
            write_croissant(options.directory, dataset)
            print(f"{options.directory}: {dataset.name}, digest {dataset.digest}")
        if options.contact_sheet is not None:
            options.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(seed=options.seed).save(options.contact_sheet, optimize=True)
            print(options.contact_sheet)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _background(x: Field, y: Field, draw: _Draws) -> Field:
    """Two dull colours across a soft, bent wave."""
    u, v = _rotate(x, y, draw(0, 1))
    wave = _cos(draw(0.1, 0.7) * u + draw(0, 1) + draw(0, 0.3) * _cos(draw(0.2, 1.0) * v))
    first, second = (_colour(draw(0, 1), draw(0, 0.5), draw(0.2, 0.9)) for _ in range(2))
    return first + (0.5 + 0.5 * wave[..., None]) * (second - first)


def _clutter(canvas: Field, x: Field, y: Field, draw: _Draws) -> Field:
    """A bar or a blob of any colour, anywhere."""
    u, v = _rotate(x - draw(-1, 1), y - draw(-1, 1), draw(0, 1))
    distance = _distance("capsule", u, v, draw(0, 0.5), draw(0.04, 0.2))
    return _paint(canvas, _colour(draw(0, 1), draw(0, 0.8), draw(0.2, 0.9)), distance)


def _object(canvas: Field, program: ClassProgram, x: Field, y: Field, draw: _Draws) -> Field:
    """The program's object in a pose of its own, bent, in colours that keep the class's law."""
    scale = draw(0.75, 1.15)
    u, v = _rotate(x - draw(-0.18, 0.18), y - draw(-0.18, 0.18), draw(-0.06, 0.06))
    u, v = u / scale, v / (scale * draw(0.8, 1.2))
    u = u + draw(-0.2, 0.2) * v + draw(0, 0.08) * _cos(draw(0.3, 0.8) * v + draw(0, 1))
    body = _body(program, u, v, draw) * scale

    hue, value, contrast = program.hue + draw(-0.2, 0.2), draw(0.45, 0.95), draw(0.25, 0.45)
    to_second, to_line = LAWS[program.law]
    bright = value > 0.7  # the other colours then are darker, else lighter
    first = _colour(hue, draw(0.55, 1), value)
    second = _colour(hue + to_second, draw(0.4, 0.9), np.where(bright, value - contrast, value + contrast))
    line = _colour(hue + to_line, draw(0.5, 1), np.where(bright, 0.12, 0.97))
    fill = first + _texture(program, u, v, body, draw)[..., None] * (second - first)
    width = draw(0.05, 0.08)
    match program.stroke:
        case "outlined":
            return _paint(_paint(canvas, line, body - width), fill, body + width)
        case "hollow":
            return _paint(canvas, fill, np.abs(body) - 1.6 * width)
        case "echo":
            return _paint(_paint(canvas, fill, body), line, np.abs(body - 3 * width) - width)
    return _paint(canvas, fill, body)  # solid


def _body(program: ClassProgram, x: Field, y: Field, draw: _Draws) -> Field:
    """Signed distance to the union of the parts under the symmetry; each image moves and stretches them a little."""
    x, y = _fold(x, y, SYMMETRIES[program.symmetry])
    union: Field = np.full_like(x, 4.0)  # nothing yet: farther than any part
    for kind, (at_x, at_y, along, across, angle) in zip(program.parts, program.places, strict=True):
        u, v = _rotate(x - at_x - draw(-0.05, 0.05), y - at_y - draw(-0.05, 0.05), angle + draw(-0.04, 0.04))
        part = _distance(kind, u, v, along * draw(0.85, 1.15), across * draw(0.85, 1.15))
        overlap = np.maximum(program.blend - np.abs(union - part), 0)
        union = np.minimum(union, part) - overlap * overlap / (4 * program.blend)
    return union


def _fold(x: Field, y: Field, mirrors: int) -> tuple[Field, Field]:
    """Map the plane to the wedge that the mirrors repeat; they meet at half a turn / `mirrors`, the first is x = 0."""
    if mirrors == 0:
        return x, y
    across_x, across_y = _cos(0.5 / mirrors), -_cos(0.5 / mirrors - 0.25)
    for _ in range(mirrors):  # enough reflections to bring every point home
        x = np.abs(x)
        beyond = 2 * np.maximum(across_x * x + across_y * y, 0)
        x, y = x - beyond * across_x, y - beyond * across_y
    return x, y


def _distance(kind: str, x: Field, y: Field, along: Field, across: Field) -> Field:
    """Signed distance, or nearly that, to a part with these half-lengths; negative inside."""
    match kind:
        case "box":
            return np.maximum(np.abs(x) - along, np.abs(y) - across)
        case "capsule":
            ends = np.maximum(np.abs(x) - along, 0)
            return np.sqrt(ends * ends + y * y) - 0.6 * across
        case "ring":
            return np.abs(np.sqrt(x * x + y * y) - along) - 0.4 * across
        case "triangle":
            return np.maximum(0.866 * np.abs(x) + 0.5 * y, -y) - 0.6 * along
        case "diamond":
            return (np.abs(x) / along + np.abs(y) / across - 1) * 0.8 * np.minimum(along, across)
    u, v = x / along, y / across
    return (np.sqrt(u * u + v * v) - 1) * np.minimum(along, across)  # ellipse


def _texture(program: ClassProgram, x: Field, y: Field, body: Field, draw: _Draws) -> Field:
    """Share of the second colour, 0 ... 1; it moves with the object, and each image has its own phase and period."""
    u, v = _rotate(x, y, program.tilt)
    f, phase = program.frequency * draw(0.9, 1.1), draw(0, 1)
    match program.texture:
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
        case "ramp":
            wave = 0.45 * u
        case _:  # plain
            wave = np.full_like(u, -1.0)
    return np.clip(0.5 + 2 * wave, 0, 1)


def _paint(canvas: Field, colour: Field, distance: Field) -> Field:
    """Put a colour where the signed distance is negative; the edge is one pixel wide."""
    cover: Field = np.clip(0.5 - distance * (canvas.shape[1] / 2), 0, 1)[..., None]
    return canvas + cover * (colour - canvas)


def _colour(hue: Field, saturation: Field, value: Field) -> Field:
    """HSV, the hue in turns and the value cut to 0 ... 1, to RGB along a new last axis."""
    turns = hue[..., None] + np.array([0.0, 2 / 3, 1 / 3])
    pure: Field = np.clip(np.abs((turns - np.floor(turns)) * 6 - 3) - 1, 0, 1)
    return np.clip(value, 0, 1)[..., None] * (1 + saturation[..., None] * (pure - 1))


def _cos(turns: Field | float) -> Field:
    """cos(2 pi turns) to four digits, by a polynomial: libraries differ in the last bit, which would change digests."""
    q = 0.25 - np.abs(turns - np.rint(turns))  # of a turn: cos(2 pi t) = sin(2 pi (1/4 - |t|))
    s = q * q
    return np.asarray(q * (6.28318530718 - s * (41.3417022404 - s * (81.6052492761 - s * 76.7058597531))))


def _rotate(x: Field, y: Field, turns: Field | float) -> tuple[Field, Field]:
    cosine, sine = _cos(turns), _cos(turns - 0.25)
    return cosine * x + sine * y, cosine * y - sine * x


class _Draws:
    """Hands out the columns of a table of uniform numbers, one row per image, each stretched to an interval."""

    def __init__(self, table: Field) -> None:
        self._columns = iter(table.T)

    def __call__(self, low: float, high: float) -> Field:
        """The next column, images x 1 x 1."""
        column: Field = next(self._columns)
        return low + (high - low) * column[:, None, None]

    def one(self, low: float, high: float) -> float:
        """The next column of a table of one row."""
        return float(self(low, high).item())


def _stream(*key: object) -> np.random.Philox:
    """Random words named by a key. What numpy promises to stay the same are a bit generator's raw words alone."""
    digest = hashlib.sha256("/".join(map(str, (_GENERATOR, *key))).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def _uniform(words: NDArray[np.uint64]) -> Field:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class _ClassImages:
    """The images of one class, rendered in chunks while they are read."""

    split: str
    index: int
    count: int
    size: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, self.count, _CHUNK):
            numbers = range(start, min(start + _CHUNK, self.count))
            yield from render_images(self.split, self.index, numbers, size=self.size, seed=self.seed)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
