"""What it costs to hand cells to Ray, measured: `python -m reproductions.tables.overhead [--output results]`.

Cells that do nothing go through `run_on_cluster`, as many as are asked for, on a cluster of this machine. What is left
is the scheduler: its start, and what it takes for each cell.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from reproductions.tables.clusters import run_on_cluster
from reproductions.tables.specification import cells_of, load
from sharp_maml import Result, provenance, write_result

COUNTS = (1, 10, 100, 1000)
"""How many cells are handed over at once."""


def nothing(words: Sequence[str]) -> None:
    """A cell's work."""


def measure(count: int) -> float:
    """Seconds of handing over so many cells that do nothing, and of waiting for them."""
    tables, tiers = load()
    table = tables["table1"]
    cells = cells_of(replace(table, rows=(table.baseline,)), tiers["smoke"], seeds=count, device="cpu")
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        run_on_cluster(
            cells, Path(place), Path(place), cluster="ray", options={}, console=Console(file=StringIO()), work=nothing
        )
        return time.perf_counter() - began


def table(result: Result) -> str:
    """The seconds by number of cells, in markdown, and what the first cell takes is taken off the others."""
    seconds = result.payload["seconds"]
    first = seconds["1"]
    lines = ["| cells | seconds in all | milliseconds for each cell after the first |", "|--:|--:|--:|"]
    for count, took in seconds.items():
        each = f"{1000 * (took - first) / (int(count) - 1):.1f}" if int(count) > 1 else "—"
        lines.append(f"| {int(count):,} | {took:.1f} | {each} |")
    origin = result.provenance
    commit = f"commit {origin['commit'][:10]}" if origin["commit"] else "no commit"
    said = f"{origin['device']}, Ray {result.payload['ray']}; {commit}{', with changes' if origin['dirty'] else ''}."
    return "\n".join([*lines, "", " ".join(filter(None, [said, result.caveat]))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.tables.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", type=int, default=list(COUNTS), help="default: 1 10 100 1000")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    seconds = {}
    for count in options.cells:
        seconds[str(count)] = measure(count)
        print(f"{count} cells: {seconds[str(count)]:.2f} s", flush=True)
    import ray

    path = options.output / "clusters.json"
    origin = provenance(module="reproductions.tables.overhead")
    write_result(path, Result("clusters", origin, {"ray": ray.__version__, "seconds": seconds}))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
