"""What a cell's process runs in place of training: importable, because that process was not forked from the tests'."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def work(lines: str, arguments: Sequence[str]) -> None:
    """Run lines of Python, which know their `place`, `data`, `results`, `row` and `seed`; end at a signal as a cell."""
    data, results, _, row, tier, seed, device = arguments
    place = Path(results) / tier / row / f"seed{seed}"

    def stop(*_: object) -> None:
        (place / "saved").write_text("")
        sys.exit(143)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    (place / "started").write_text("")
    exec(
        lines,
        {"place": place, "data": Path(data), "results": Path(results), "row": row, "seed": seed, "device": device},
    )
