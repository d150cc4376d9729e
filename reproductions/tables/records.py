"""Where the records of a table lie: those that the repository tracks, and those that runs have left."""

from __future__ import annotations

from pathlib import Path

from reproductions.study import RECORDS
from reproductions.tables.specification import Table, Tier
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
