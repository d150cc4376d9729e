"""Is the landscape smoother, on trained networks? `python -m reproductions.landscape [--tier demo] [--seeds N]`.

One JSON a checkpoint, so that a run that was cut off goes on; then one record and the figure. `make publish` brings the
record into the repository and draws its figure. Read next: `measure.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from reproductions import study
from reproductions.landscape.decide import BASELINE, decide
from reproductions.landscape.figures import decisions, landscapes
from reproductions.landscape.measure import SMOKE, Settings, measure_all
from reproductions.tables.check import TableError
from reproductions.tables.data import prepare_data
from reproductions.tables.records import of_whole_seeds
from reproductions.tables.specification import Cell, Table, Tier, cells_of, load
from sharp_maml import Result, joint_sources, provenance, read_result, write_result
from sharp_maml.paper import save_figure

_Key = tuple[str, int]
"""Row and seed, which name a cell among those of a table on a tier."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tables, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.landscape", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(tiers), help="whose checkpoints; default: demo")
    parser.add_argument("--data", type=Path, help="directory of miniImageNet, for the tiers cpu and paper")
    parser.add_argument("--seeds", type=int, help="training seeds of every row; default: the table's")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="measure these rows of the table only")
    parser.add_argument(
        "--known", type=Path, metavar="RECORD", help="an earlier record: what it has is not measured again"
    )
    parser.add_argument("--jobs", type=int, default=2, help="checkpoints that are measured at a time; default: 2")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    options = parser.parse_args(arguments)
    console = study.console()
    tier = tiers[options.tier]
    table = tables["landscape" if "landscape" in tier.tables else tier.tables[0]]
    try:
        result = _measured(table, tier, options, console)
        path = options.results / "landscape" / f"{tier.name}.json"
        figure = path.with_suffix(".png")
        write_result(path, result)
        save_figure(landscapes(result.payload), figure)
        console.print(decisions(result.payload))
        console.print(f"record: {path}, figure: {figure}")
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept: the same command goes on from there")
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measured(table: Table, tier: Tier, options: argparse.Namespace, console: Console) -> Result:
    """What is measured of a tier's networks."""
    for name in ("seeds", "jobs"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise TableError(f"--{name} must be >= 1, got {value}")
    cells = [cell for cell in cells_of(table, tier, seeds=options.seeds) if cell.config.method == "sharp-maml"]
    known = list(dict.fromkeys(cell.row.name for cell in cells))
    if unknown := sorted(set(options.rows or known) - set(known)):
        raise TableError(f"unknown rows {unknown}; networks that adapt are those of {known}")
    if options.rows and (BASELINE not in options.rows or len(set(options.rows)) < 2):
        raise TableError(f"--rows must have {BASELINE}, which the others are compared with, and one of those at least")
    wanted = [cell for cell in cells if cell.row.name in (options.rows or known)]
    settings = SMOKE if tier.name == "smoke" else Settings()
    before = _known(options.known, wanted, settings) if options.known else {}
    waiting = of_whole_seeds([cell for cell in wanted if _key(cell) not in before], options.results, console)
    data = prepare_data(tier, options.data, options.results)
    origin = provenance(module="reproductions.landscape.decide")  # the code may change meanwhile
    fresh = measure_all(waiting, data, options.results, settings, options.jobs, console)
    found = before | dict(zip(map(_key, waiting), fresh, strict=True))
    cells = [cell for cell in wanted if _key(cell) in found]
    measured = [found[_key(cell)] for cell in cells]
    held = [cell.pop("sources", None) for cell in measured]  # what is kept of a cut run may be of earlier code
    payload = {
        "tier": tier.name,
        "labels": {cell.row.name: cell.row.label for cell in cells},
        "settings": asdict(settings),
        "cells": measured,
        "decisions": decide(measured),
    }
    return Result("landscape", {**origin, "sources": joint_sources([origin["sources"], *held])}, payload)


def _key(cell: Cell) -> _Key:
    return cell.row.name, cell.seed


def _known(path: Path, cells: Sequence[Cell], settings: Settings) -> dict[_Key, dict[str, Any]]:
    """What an earlier record has of the cells, measured by the same settings, with the sources of that record."""
    result = read_result(path, "landscape")
    digests = {_key(cell): cell.config.digest for cell in cells}
    return {
        key: {**found, "sources": result.provenance["sources"]}
        for found in result.payload["cells"]
        if digests.get(key := (found["row"], found["seed"])) == found["config_digest"]
        and found["settings"] == asdict(settings)
    }


if __name__ == "__main__":
    sys.exit(main())
