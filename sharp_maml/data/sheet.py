"""A picture of a data set: some images of every class, with its name, split after split."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image, ImageDraw

from sharp_maml.checkpoint import write_atomically
from sharp_maml.data.cache import Dataset

EACH = 5
"""Images of a class."""

_LINE, _GAP = 14, 6
"""Height of a line of text and distance between classes, in pixels."""


def contact_sheet(dataset: Dataset, path: Path) -> None:
    """Draw the first images of every class, and write them as a PNG.

    Args:
        dataset: the images.
        path: the file; its directory is made if need be.

    Raises:
        OSError: the file cannot be written.
    """
    width, height = EACH * dataset.size + _GAP, dataset.size + _LINE + _GAP
    classes = max(len(source.names) for source in dataset.splits.values())
    columns = max(1, round(math.sqrt(classes * height / width)))
    rows = {split: math.ceil(len(source.names) / columns) for split, source in dataset.splits.items()}
    sheet = Image.new("RGB", (columns * width + _GAP, sum(rows.values()) * height + len(rows) * 2 * _LINE), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for split, source in dataset.splits.items():
        draw.text((_GAP, top + _LINE // 2), f"{split}: {len(source.names)} classes", "black")
        top += 2 * _LINE
        for place, (name, start, count) in enumerate(zip(source.names, source.starts, source.counts, strict=True)):
            left, above = _GAP + place % columns * width, top + place // columns * height
            label = name.encode("ascii", "replace").decode()  # what Pillow's own font has
            while draw.textlength(label) > width - _GAP:
                label = label[1:]
            draw.text((left, above), label, "black")
            for i, image in enumerate(source.images[start : start + min(count, EACH)]):
                grey = image.shape[-1] == 1
                sheet.paste(Image.fromarray(image[..., 0] if grey else image), (left + i * dataset.size, above + _LINE))
        top += rows[split] * height
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_atomically(path, content.getvalue())
