"""Where the records of a table lie: those that the repository tracks, and those that runs have left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

from reproductions.study import RECORDS
from reproductions.tables.lines import on_other_data
from reproductions.tables.specification import Cell, Table, Tier, load
from sharp_maml import Record, read_records

TRACKED = RECORDS / "tables"


def tracked_records(table: Table, tier: Tier, tracked: Path = TRACKED) -> list[Record]:
    """The records of a table on a tier that the repository tracks, in its folder of them."""
    files = [path for row in table.rows for path in sorted((tracked / tier.name).glob(f"{row.name}-seed*.json"))]
    return [record for record in read_records(files) if record.protocol["split"] == table.split]


def finished_records(table: Table, tier: Tier, results: Path) -> list[Record]:
    """The records of a table on a tier that runs in a results folder have left."""
    files = [path for row in table.rows for path in sorted(results.glob(f"{tier.name}/{row.name}/seed*/record.json"))]
    return [record for record in read_records(files) if record.protocol["split"] == table.split]


def of_whole_seeds(
    cells: Sequence[Cell], results: Path, console: Console, checkpoints: Sequence[str] = ("best",)
) -> list[Cell]:
    """The cells of those seeds of which all networks are there; the others are named. All cells if there is no such."""
    missing = {
        cell.seed
        for cell in cells
        if not all((cell.directory(results) / f"{name}.safetensors").exists() for name in checkpoints)
    }
    whole = [cell for cell in cells if cell.seed not in missing]
    if whole and missing:
        seeds = ", ".join(map(str, sorted(missing)))
        console.print(f"left out, since networks are missing in {results / cells[0].tier.name}: seeds {seeds}")
    return whole or list(cells)


def tables_run(find: Callable[[Table, Tier], Sequence[Record]]) -> Iterator[tuple[Table, Tier, Sequence[Record]]]:
    """Every table of every tier that has been run, at least in part, with its records.

    A table has been run where a row has a record that no earlier table of the tier has, and that is not the baseline.
    One that was run on other data than the tier's is under their name, and is compared with nothing of the source.

    Args:
        find: `tracked_records` or `finished_records`, of one place.
    """
    tables, tiers = load()
    for tier in tiers.values():
        for place, table in enumerate(map(tables.__getitem__, tier.tables)):
            records = find(table, tier)
            earlier = chain.from_iterable(tables[name].rows for name in tier.tables[:place])
            own = {record.name for record in records} - {table.baseline.name, *(row.name for row in earlier)}
            if own:
                yield *on_other_data(table, tier, records), records
