"""Are flat networks more accurate? `python -m reproductions.landscape.flatness --tier cpu [--results DIR]`.

Reads the records of the tier's table and of its landscape, and measures nothing itself. `make publish` draws the figure
of the tracked ones. Read next: `accuracy.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproductions import study
from reproductions.landscape import figures
from reproductions.landscape.accuracy import correlations, gaps, points
from reproductions.landscape.measure import MEASURES
from reproductions.tables.lines import signed
from reproductions.tables.records import finished_records, tracked_records
from reproductions.tables.specification import Tier, load
from sharp_maml import Record, read_result
from sharp_maml.paper import save_figure


def read(tier: Tier, results: Path | None) -> tuple[list[Record], dict[str, Any]]:
    """The records of a tier's table and of its landscape: the tracked ones, or those of a results folder."""
    tables, _ = load()
    table = tables[tier.tables[0]]
    records = tracked_records(table, tier) if results is None else finished_records(table, tier, results)
    path = (results or study.RECORDS) / "landscape" / f"{tier.name}.json"
    return records, dict(read_result(path, "landscape").payload)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    _, tiers = load()
    parser = argparse.ArgumentParser(
        prog="python -m reproductions.landscape.flatness", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--tier", default="cpu", choices=sorted(tiers), help="whose networks; default: cpu")
    parser.add_argument("--results", type=Path, help="where runs lie; default: the repository's own records")
    options = parser.parse_args(arguments)
    console = study.console(highlight=False)
    try:
        records, measured = read(tiers[options.tier], options.results)
        found = points(records, measured)
        if not found:
            raise ValueError(f"tier {options.tier} has no network with both accuracies and measures of its landscape")
        path = (options.results or Path("results")) / "landscape/flatness.png"
        save_figure(figures.accuracy_beside_sharpness(found, measured["labels"]), path)
        for name, r in correlations(found).items():
            console.print(f"accuracy against {MEASURES[name]}: rank correlation within a seed {r:.2f}, {r.n} seeds")
        for row, estimate in gaps(found).items():
            gap = f"{row}: gap from training to test classes, less that of MAML: {signed(estimate)}"
            console.print(gap, markup=False)
        console.print(f"figure: {path}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
