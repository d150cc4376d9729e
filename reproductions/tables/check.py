"""Records that do not belong in one table are refused. Read next: `lines.py`, which makes lines of the others."""

from __future__ import annotations

from collections.abc import Sequence

from reproductions.tables.specification import Cell, Row, Table, Tier
from sharp_maml import Record


class TableError(ValueError):
    """Records cannot stand in one table. The message says which, and what to do."""


def check(records: Sequence[Record], rows: Sequence[Row], *, allow_dirty: bool = False) -> None:
    """Refuse records that do not belong in one table.

    All must share data, test episodes and protocol (an entry that a row's own settings name is that row's subject and
    may differ), and each must come from a commit without uncommitted changes.

    Args:
        records: What is to stand in the table.
        rows: Its rows.
        allow_dirty: Accept records of uncommitted code; the caller then says so under the table.

    Raises:
        TableError: They do not belong together; the message names the records and the entries.
    """
    own = {row.name: row.settings for row in rows}
    seen: set[tuple[str, int]] = set()
    for record in records:
        name = f"{record.name} (seed {record.seed})"
        if record.name not in own:
            raise TableError(f"{name}: no row of this table has that name; its rows are {', '.join(own)}")
        if (record.name, record.seed) in seen:
            raise TableError(f"{name}: there are two records of it; delete one")
        if lacking := {"transductive", "support"} - record.accuracies.keys():
            raise TableError(f"{name}: lacks batch norm mode {', '.join(lacking)}; run it again")
        seen.add((record.name, record.seed))

    def common(record: Record) -> dict[str, object]:
        subject = set(own[record.name]) | ({"test_steps"} if record.protocol["test_steps"] is None else set())
        entries = {"data": record.data_digest, "test episodes": record.episodes_digest, **record.protocol}
        return {key: value for key, value in entries.items() if key not in subject}

    for first, other in ((a, b) for a in records for b in records):
        left, right = common(first), common(other)
        for key in left.keys() & right.keys():
            if left[key] != right[key]:
                raise TableError(
                    f"{first.name} (seed {first.seed}) and {other.name} (seed {other.seed}) differ in {key}: "
                    f"{left[key]} and {right[key]}; one table needs one protocol: delete the record that is wrong, "
                    "and run the command again"
                )
    dirty = [f"{record.name} (seed {record.seed})" for record in records if record.provenance["dirty"]]
    if dirty and not allow_dirty:
        raise TableError(
            f"{', '.join(dirty)}: made with uncommitted changes, so nobody could make them again. Commit, delete their "
            "directories and run again, or pass --allow-dirty: the table will then say so"
        )


def check_settings(records: Sequence[Record], table: Table, tier: Tier) -> None:
    """Refuse records that were made with other settings than `tables.toml` has today.

    Raises:
        TableError: Names them.
    """
    rows = {row.name: row for row in table.rows}
    stale = [
        f"{record.name} (seed {record.seed})"
        for record in records
        if record.config_digest != Cell(table, rows[record.name], tier, record.seed).config.digest
    ]
    if stale:
        raise TableError(f"{', '.join(stale)}: made with other settings than tables.toml has now; run them again")
