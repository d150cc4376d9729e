"""What it costs to hand cells to Ray, measured: `python -m reproductions.tables.overhead [--output results]`.

Cells that do nothing go through `run_on_cluster`, as many as are asked for, on a cluster of this machine. What is left
is the scheduler: its start, and what it takes for each cell.
"""

from __future__ import annotations

import argparse
import sys
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


class _Clock(StringIO):
    """Notes when something is said."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def write(self, text: str) -> int:
        self.times.append(time.perf_counter())
        return super().write(text)


def measure(count: int) -> list[float]:
    """Seconds from handing over so many cells that do nothing until the first has ended, and until all have."""
    tables, tiers = load()
    table = tables["table1"]
    cells = cells_of(replace(table, rows=(table.baseline,)), tiers["smoke"], seeds=count, device="cpu")
    clock, place, began = _Clock(), Path(), time.perf_counter()
    run_on_cluster(cells, place, place, cluster="ray", options={}, console=Console(file=clock), work=nothing)
    return [clock.times[0] - began, clock.times[-1] - began]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.tables.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", type=int, default=list(COUNTS), help="default: 1 10 100 1000")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    seconds = {}
    for count in options.cells:
        seconds[str(count)] = measure(count)
        print(f"{count} cells: {seconds[str(count)][1]:.2f} s", flush=True)
    import ray

    path = options.output / "clusters.json"
    origin = provenance(module="reproductions.tables.overhead")
    write_result(path, Result("clusters", origin, {"ray": ray.__version__, "seconds": seconds}))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
