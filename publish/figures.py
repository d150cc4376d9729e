"""Every figure that the repository draws from its records; each holds the digest of what it was drawn from.

Pixels differ from machine to machine, digests do not: a figure is out of date when its digest is another one than that
of its records. After a change of how it is drawn, delete it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from benchmarks import figure as speed
from publish import landscapes, tables
from reproductions.landscape.figures import accuracy_beside_sharpness
from reproductions.landscape.figures import landscapes as planes_and_measures
from reproductions.sensitivity.figure import drawn
from sharp_maml import read_result, write_atomically
from sharp_maml.paper import save_figure
from theory.check import calibration
from theory.check.claim import Verdict
from theory.check.figures import draw
from theory.check.verdicts import record
from theory.networks import certificate, counts, regime_page
from theory.networks import rate as network_rate

KEY = "Records"
"""The entry of a PNG file that holds the digest."""


class Drawing(NamedTuple):
    """A figure: the text of the records it shows, and what draws it into a file."""

    shows: str
    draw: Callable[[Path], object]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(self.shows.encode()).hexdigest()[:16]


def drawings(root: Path, verdicts: Sequence[Verdict]) -> dict[Path, Drawing]:
    """Every figure by its path.

    Args:
        root: The checkout whose `records` are drawn.
        verdicts: The verdicts of its claims.
    """
    records, theory, figures = root / "records", root / "docs/theory", root / "docs/figures"
    every = {
        theory / f"figures/{verdict.claim.id}.png": Drawing(str(record(verdict)), partial(_claim, verdict))
        for verdict in verdicts
    }
    for kind, draw_payload in {
        "calibration": calibration.draw,
        "certificate": certificate.draw,
        "counts": counts.draw,
        "regime": regime_page.draw,
        "network-rate": network_rate.draw,
    }.items():
        result = read_result(records / f"theory/{kind}.json", kind)
        every[theory / f"{kind}.png"] = Drawing(str(result), partial(_drawn, draw_payload, result.payload))
    result = read_result(records / "bench/speed.json", "speed")
    every[figures / "performance.png"] = Drawing(str(result), partial(_drawn, speed.draw, result.payload))
    for path in sorted((records / "sensitivity").glob("*.json")):
        result = read_result(path, "sensitivity")
        every[figures / f"sensitivity-{path.stem}.png"] = Drawing(str(result), partial(_drawn, drawn, result.payload))
    for of in landscapes.measured(records):
        of_tier, payload = figures / f"landscape-{of.tier.name}.png", of.result.payload
        every[of_tier] = Drawing(str(of.result), partial(_drawn, planes_and_measures, payload))
        if of.points:
            beside = partial(accuracy_beside_sharpness, of.points)
            shows = repr(of.points) + repr(payload["labels"])
            every[figures / f"flatness-{of.tier.name}.png"] = Drawing(shows, partial(_drawn, beside, payload["labels"]))
    for each in tables.shown(records):
        every[figures / f"{each.name}.png"] = Drawing(each.markdown, each.draw)
        if each.has_curves:
            every[figures / f"{each.name}-curves.png"] = Drawing(each.shows_in_curves, each.draw_curves)
    return every


def digest_of(path: Path) -> str | None:
    """The digest that a figure holds; None if there is no figure, or none in it."""
    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(KEY)


def write(path: Path, drawing: Drawing) -> None:
    """Draw a figure, with the digest of its records."""
    drawing.draw(path)
    write_atomically(path, stamped(path.read_bytes(), drawing.digest))


def stamped(png: bytes, digest: str) -> bytes:
    """A PNG file with a chunk of text more, after its header."""
    text = f"tEXt{KEY}\0{digest}".encode()
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    header = 8 + 25  # signature, and the chunk IHDR
    return png[:header] + chunk + png[header:]


def _claim(verdict: Verdict, path: Path) -> None:
    draw(verdict, path.parent)


def _drawn(drawn_of: Callable[[Mapping[str, Any]], Figure], payload: Mapping[str, Any], path: Path) -> None:
    save_figure(drawn_of(payload), path)
