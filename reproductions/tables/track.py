"""Finished runs of a tier, and their copies in the repository. Read next: `records.py`, which finds them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reproductions.tables.specification import Cell, Tier, load
from sharp_maml import Record, load_checkpoint, read_records, save_checkpoint, write_record


def finished(tier: Tier, results: Path) -> list[tuple[Path, Record]]:
    """Run directory and record of every cell of a tier that has been trained and judged.

    Raises:
        ValueError: A record is of uncommitted code, of a run that was cut off, or of no row or other settings of the
            tier's tables: the repository tracks what can be made again. The message names it.
    """
    tables, _ = load()
    known = {
        (row.name, table.split): (row, table) for table in map(tables.__getitem__, tier.tables) for row in table.rows
    }
    found = []
    for path in sorted((results / tier.name).glob("*/seed*/record.json")):
        (record,) = read_records(path)
        key = (record.name, record.protocol["split"])
        if key not in known:
            raise ValueError(f"{path}: no table of tier {tier.name} has a row {record.name} on {key[1]} classes")
        row, table = known[key]
        if record.config_digest != Cell(table, row, tier, record.seed).config.digest:
            raise ValueError(f"{path}: made with other settings than {record.name} has now; run it again")
        if record.provenance["dirty"] is not False:
            raise ValueError(f"{path}: made with uncommitted changes, so nobody could make it again")
        if record.learning_curve[-1]["step"] != record.config["iterations"]:
            raise ValueError(f"{path}: the run was cut off; train it to its last iteration")
        found.append((path.parent, record))
    return found


def write_network(run: Path, path: Path) -> None:
    """Write the parameters of a run's best checkpoint, with all that is known of the run."""
    checkpoint = load_checkpoint(run / "best.safetensors")
    params = {name: value for name, value in checkpoint.tensors.items() if name.startswith("params/")}
    path.unlink(missing_ok=True)  # git has the one before
    save_checkpoint(path, tensors=params, metadata=checkpoint.metadata)


def copy(runs: Sequence[tuple[Path, Record]], place: Path, *, networks: bool = False) -> list[str]:
    """Write the records of runs as `<row>-seed<k>.json`, and the best network of each row if asked for.

    Args:
        runs: What `finished` found.
        place: The folder of the tier's records.
        networks: Write also, as `<row>.safetensors`, the network with the highest accuracy on the validation classes,
            of those that lie beside their records: parameters without the optimizer's state, which `sharp-maml
            evaluate` reads.

    Returns:
        What was written, a line each.
    """
    for _, record in runs:
        write_record(place / f"{record.name}-seed{record.seed}.json", record)
    told = [f"{place}: {len(runs)} records"] if runs else []
    judged = [
        (run, record)
        for run, record in runs
        if networks and record.protocol["split"] == "test" and (run / "best.safetensors").exists()
    ]
    for name in sorted({record.name for _, record in judged}):
        run, record = max((each for each in judged if each[1].name == name), key=lambda each: _best(each[1]))
        path = place / f"{name}.safetensors"
        write_network(run, path)
        told.append(f"{path}: seed {record.seed}, {path.stat().st_size / 1000:.0f} kB")
    return told


def _best(record: Record) -> float:
    """The highest accuracy on the validation classes that the run had."""
    return max(point["validation_accuracy"] or 0.0 for point in record.learning_curve)
