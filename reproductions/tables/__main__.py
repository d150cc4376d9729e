"""The paper's table, run again: `python -m reproductions.tables [--tier demo|cpu|paper] [--data DIR] [--seeds N]`.

Trains the cells that `results/` lacks, then builds the table from records alone and prints it with intervals and
verdicts; the same table is written as markdown, LaTeX and a figure. `--tracked` builds it from `records/tables/`
instead and trains nothing. Read next: `specification.py`, `train.py`, `lines.py`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from reproductions import study
from reproductions.tables import curves, forms
from reproductions.tables.check import TableError, check, check_settings
from reproductions.tables.clusters import run_on_cluster, scheduler_option
from reproductions.tables.lines import build_lines, notes, on_other_data
from reproductions.tables.records import TRACKED, tracked_records
from reproductions.tables.specification import Table, Tier, cells_of, load
from reproductions.tables.train import Run, require_device, train_here, train_missing
from sharp_maml import Record, keep_freed_memory, provenance


@dataclass(frozen=True)
class Surroundings:
    """What the command stands on, besides its arguments.

    tables, tiers: the specification. tracked: the repository's records. gpus: how many this machine has. is_dirty:
    whether the code has uncommitted changes. run: what trains cells in place of this machine's processes or a
    scheduler's.
    """

    tables: Mapping[str, Table]
    tiers: Mapping[str, Tier]
    tracked: Path
    gpus: int
    is_dirty: bool
    run: Run | None = None

    @classmethod
    def here(cls) -> Surroundings:
        """The surroundings that this repository has on this machine."""
        tables, tiers = load()
        is_dirty = bool(provenance()["dirty"])
        return cls(tables, tiers, TRACKED, torch.cuda.device_count(), is_dirty)


def main(arguments: Sequence[str] | None = None, around: Surroundings | None = None) -> int:
    """Command line; see `--help`."""
    around = around or Surroundings.here()
    options = _parser(around).parse_args(arguments)
    console = study.console()
    keep_freed_memory()
    for signum in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores Ctrl-C unless told otherwise
        signal.signal(signum, signal.default_int_handler)  # the cells save and end
    try:
        table, tier = _chosen(options, around)
        if options.tracked:
            records = tracked_records(table, tier, around.tracked)
        else:
            records = _trained(table, tier, options, around, console)
        check(records, table.rows, allow_dirty=options.allow_dirty)
        check_settings(records, table, tier)
        _show(*on_other_data(table, tier, records), records, options, around, console)
    except KeyboardInterrupt:
        console.print("stopped; every cell has saved its state: the same command goes on from there")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser(around: Surroundings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reproductions.tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(around.tiers), help="data and budget; default: demo")
    parser.add_argument("--table", choices=sorted(around.tables), help="which rows; default: the tier's own")
    parser.add_argument(
        "--data",
        type=Path,
        help="directory of the data, for the tiers that do not make their own",
    )
    parser.add_argument("--seeds", type=int, help="training seeds of every row; default: the table's")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="train and show these rows of the table only")
    parser.add_argument("--jobs", type=int, default=2, help="cells that are trained at a time; default: 2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:NUMBER; default: cpu")
    parser.add_argument("--cluster", help="hand the cells to slurm or local (extra `cluster`), or ray (extra `ray`)")
    parser.add_argument(
        "--cluster-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="timeout_min=600 gpus_per_node=1, or address=HOST:6379",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    parser.add_argument("--tracked", action="store_true", help="build from records/tables, train nothing")
    parser.add_argument("--allow-dirty", action="store_true", help="accept records of uncommitted code")
    return parser


def _chosen(options: argparse.Namespace, around: Surroundings) -> tuple[Table, Tier]:
    """The table, with the rows that were asked for, and the tier; what options cannot mean is refused."""
    tier = around.tiers[options.tier]
    table = around.tables[options.table or tier.tables[0]]
    if table.name not in tier.tables:
        raise TableError(f"table {table.name} is not run on tier {tier.name}, which has {', '.join(tier.tables)}")
    for name in ("seeds", "jobs"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise TableError(f"--{name} must be >= 1, got {value}")
    if not options.rows:
        return table, tier
    unknown = sorted(set(options.rows) - {row.name for row in table.rows})
    if unknown:
        raise TableError(f"unknown rows {unknown}; {table.name} has {[row.name for row in table.rows]}")
    return replace(table, rows=tuple(row for row in table.rows if row.name in options.rows)), tier


def _trained(
    table: Table, tier: Tier, options: argparse.Namespace, around: Surroundings, console: Console
) -> list[Record]:
    """Train what is missing; the records of all cells."""
    if not options.cluster:
        require_device(options.device, around.gpus)
    if around.is_dirty and not options.allow_dirty:
        raise TableError(
            "the working tree has uncommitted changes, and records must say which code made them: commit or stash "
            "them, or pass --allow-dirty (the table will then say so)"
        )
    cells = cells_of(table, tier, seeds=options.seeds, device=options.device)
    run = around.run or _run(options, around.gpus, console)
    return train_missing(cells, options.data, options.results, run=run, console=console)


def _run(options: argparse.Namespace, gpus: int, console: Console) -> Run:
    """A scheduler's processes, or those of this machine."""
    if options.cluster:
        own = dict(map(scheduler_option, options.cluster_options))
        return partial(run_on_cluster, cluster=options.cluster, options=own, console=console)
    return partial(train_here, jobs=options.jobs, gpus=gpus, console=console, began=time.perf_counter())


def _show(
    table: Table,
    tier: Tier,
    records: Sequence[Record],
    options: argparse.Namespace,
    around: Surroundings,
    console: Console,
) -> None:
    """Print the table and write its forms."""
    lines, below = build_lines(table, records), notes(table, tier, records)
    title, where = f"{table.title} ({tier.name} tier)", options.results / tier.name
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{table.name}.md").write_text(forms.markdown(title, table.baseline.label, lines, below), encoding="utf-8")
    (where / f"{table.name}.tex").write_text(forms.latex(title, table.baseline.label, lines, below), encoding="utf-8")
    forms.figure(title, table.baseline.label, lines, below, where / f"{table.name}.png")
    curves.draw(title, table.rows, records, where / f"{table.name}-curves.png")
    console.print(forms.terminal(title, table.baseline.label, lines, below, console.width))
    if not options.tracked:
        _show_tracked(table, tier, {record.data_name for record in records}, around.tracked, console)
    ends = (".md", ".tex", ".png", "-curves.png")
    console.print(f"written: {', '.join(str(where / f'{table.name}{end}') for end in ends)}")


def _show_tracked(table: Table, tier: Tier, data: Container[str], tracked: Path, console: Console) -> None:
    """Beside a fresh table, what the repository's own records of the same data say."""
    records = [record for record in tracked_records(table, tier, tracked) if record.data_name in data]
    if records:
        lines = build_lines(table, records)
        shown = "; ".join(f"{line.label} {line.accuracy:.2f}" for line in lines if line.accuracy is not None)
        console.print(f"the repository's tracked records for comparison: {shown}")


if __name__ == "__main__":
    sys.exit(main())
