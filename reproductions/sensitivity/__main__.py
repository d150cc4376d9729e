"""How far choices of the protocol move one number: `python -m reproductions.sensitivity --tier cpu --data DIR`.

Each network has its own JSON, so that a run that was cut off goes on; then come one record and the figure. `make
publish` brings the record into the repository and draws its figure. Read next: `measure.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from reproductions import study
from reproductions.sensitivity.figure import drawn
from reproductions.sensitivity.measure import CHECKPOINTS, judge, shifts
from reproductions.tables.check import TableError
from reproductions.tables.data import prepare_data
from reproductions.tables.lines import printed_gain, signed
from reproductions.tables.records import of_whole_seeds
from reproductions.tables.specification import Table, Tier, cells_of, load
from sharp_maml import NonFiniteError, Result, joint_sources, keep_freed_memory, provenance, write_result
from sharp_maml.paper import save_figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tables, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.sensitivity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(tiers), help="whose networks; default: demo")
    parser.add_argument("--data", type=Path, help="directory of the tier's data, where they are not made on the spot")
    parser.add_argument("--row", default="maml", help="which row of the tier's table; default: maml")
    parser.add_argument("--seeds", type=int, help="training seeds; default: the table's")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    options = parser.parse_args(arguments)
    console = study.console()
    tier = tiers[options.tier]
    table = tables[tier.tables[0]]
    keep_freed_memory()
    try:
        result = _judged(table, tier, options, console)
        path = options.results / "sensitivity" / f"{tier.name}.json"
        figure = path.with_suffix(".png")
        write_result(path, result)
        save_figure(drawn(result.payload), figure)
        for name, estimate in shifts(result.payload["accuracies"]).items():
            console.print(f"{name}: {signed(estimate)}", highlight=False, markup=False)
        console.print(f"record: {path}, figure: {figure}")
    except KeyboardInterrupt:
        console.print("stopped; what was judged is kept: the same command goes on from there")
        return 130
    except (ValueError, OSError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _judged(table: Table, tier: Tier, options: argparse.Namespace, console: Console) -> Result:
    """What is measured of one row's networks."""
    if options.seeds is not None and options.seeds < 1:
        raise TableError(f"--seeds must be >= 1, got {options.seeds}")
    cells = [each for each in cells_of(table, tier, seeds=options.seeds) if each.row.name == options.row]
    if not cells or cells[0].config.method != "sharp-maml":
        adapting = [row.name for row in table.rows if not row.settings.get("method")]
        raise TableError(f"--row must be one of {', '.join(adapting)}, got {options.row!r}")
    cells = of_whole_seeds(cells, options.results, console, CHECKPOINTS)
    data = prepare_data(tier, options.data, options.results)
    origin = provenance(module="reproductions.sensitivity.measure")  # the code may change meanwhile
    judged = {str(cell.seed): judge(cell, data, options.results, console) for cell in cells}
    payload = {
        "tier": tier.name,
        "row": options.row,
        "label": cells[0].row.label,
        "gains": {
            row.label: gain
            for row in table.rows
            if (gain := printed_gain(row, table)) is not None and not row.name.endswith("-chosen")
        },
        "accuracies": {seed: accuracies for seed, (accuracies, _) in judged.items()},
    }
    held = joint_sources([origin["sources"], *(of_seed for _, of_seed in judged.values())])
    return Result("sensitivity", {**origin, "sources": held}, payload)


if __name__ == "__main__":
    sys.exit(main())
