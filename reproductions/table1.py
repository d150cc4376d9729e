"""The paper's table, run again: `python -m reproductions.table1 [--tier demo|cpu|paper] [--data DIR] [--seeds N]`.

Trains the cells that `results/` lacks, then builds the table from records alone and prints it with intervals and
verdicts; the same table is written as markdown, LaTeX and a figure. `--tracked` builds it from `reproductions/records/`
instead and trains nothing; `--readme` puts that table into the README. Read next: `specification.py`, `cells.py`,
`format.py`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from reproductions import curves
from reproductions import format as forms
from reproductions.cells import estimate, measure_costs, missing, run_here, run_on_cluster
from reproductions.specification import HERE, MODE, TRACKED, Cell, Row, Table, Tier, cells_of, load
from reproductions.verdicts import LEVEL, decide
from sharp_maml import (
    Config,
    Protocol,
    Record,
    RunDirectoryLock,
    check_protocol,
    interval_over_episodes,
    interval_over_seeds,
    keep_freed_memory,
    open_dataset,
    provenance,
    read_records,
)
from sharp_maml.train import duration
from synthetic import write_images

README = HERE.parent / "README.md"


class TableError(ValueError):
    """Records cannot stand in one table. The message says which, and what to do."""


def accuracies(record: Record, mode: str) -> NDArray[np.float64]:
    """Accuracy of each test episode, in per cent."""
    return 100 * np.asarray(record.accuracies[mode])


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
    """Refuse records that were made with other settings than `table1.toml` has today.

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
        raise TableError(f"{', '.join(stale)}: made with other settings than table1.toml has now; run them again")


def on_other_data(table: Table, tier: Tier, records: Sequence[Record]) -> tuple[Table, Tier]:
    """A tier that was run on other data than it names: under their name, with nothing left of the source to compare.

    Args:
        table: Rows and title.
        tier: Its data have a name that `open_dataset` gives to nothing else.
        records: What is shown; all of the same data.

    Returns:
        Table and tier; as they are, if the data are the tier's.
    """
    if tier.data == "synthetic" or not records or records[0].data_name == tier.data:
        return table, tier
    rows = {row.name: replace(row, source=None, quoted=False) for row in (*table.rows, table.baseline)}
    return (
        replace(
            table,
            title=f"{table.title}, on {records[0].data_name}",
            baseline=rows[table.baseline.name],
            rows=tuple(rows[row.name] for row in table.rows),
        ),
        replace(tier, label=f"not shown to be {tier.data}"),
    )


def build_lines(table: Table, records: Iterable[Record]) -> list[forms.Line]:
    """One line a row, from records alone.

    Args:
        table: Rows and baseline.
        records: Any number of seeds a row; checked before.

    Returns:
        The lines, in the table's order. A row without records has dashes.
    """
    by_row: dict[str, dict[int, Record]] = {row.name: {} for row in table.rows}
    for record in records:
        by_row[record.name][record.seed] = record
    baseline = by_row.get(table.baseline.name, {})
    differences = {
        row.name: [
            float((accuracies(record, MODE) - accuracies(baseline[seed], MODE)).mean())
            for seed, record in sorted(by_row[row.name].items())
            if seed in baseline
        ]
        for row in table.rows
        if row is not table.baseline
    }
    differences = {name: values for name, values in differences.items() if values}
    gains = {row.name: gain for row in table.rows if (gain := printed_gain(row, table)) is not None}
    verdicts = decide(differences, gains) | {table.baseline.name: "baseline"}
    return [
        _line(row, by_row[row.name], differences.get(row.name), gains.get(row.name), verdicts.get(row.name, "—"))
        for row in table.rows
    ]


def printed_gain(row: Row, table: Table) -> float | None:
    """The gain over the baseline that the source prints for a row; None for a quoted value, of another protocol."""
    if row is table.baseline or row.source is None or table.baseline.source is None:
        return None
    return None if row.quoted or table.baseline.quoted else row.source - table.baseline.source


def _line(
    row: Row, mine: Mapping[int, Record], differences: Sequence[float] | None, gain: float | None, verdict: str
) -> forms.Line:
    if not mine:
        return forms.Line(row.label, row.source, row.quoted, None, None, None, None, gain, "—", 0)
    mean = {mode: np.mean([accuracies(record, mode) for record in mine.values()], axis=0) for mode in (MODE, "support")}
    return forms.Line(
        label=row.label,
        source=row.source,
        quoted=row.quoted,
        accuracy=interval_over_episodes(mean[MODE], unit="%"),
        seeds=interval_over_seeds([accuracies(record, MODE).mean() for record in mine.values()], unit="%"),
        support=interval_over_episodes(mean["support"], unit="%"),
        difference=None if differences is None else interval_over_seeds(differences, unit="points"),
        source_difference=gain,
        verdict=verdict,
        runs=len(mine),
    )


def notes(table: Table, tier: Tier, records: Sequence[Record]) -> list[str]:
    """What the table stands on: data, budget, seeds, machine; and how to read the columns."""
    if not records:
        return ["no records"]
    one = Config.from_mapping(records[0].config)
    adapting = [Config.from_mapping(record.config) for record in records if record.config["method"] == "sharp-maml"]
    inner = (
        f"{adapting[0].steps} inner step(s) of {adapting[0].beta_low:g}, {adapting[0].test_steps} at test, "
        if adapting
        else ""
    )
    radii = sorted({(c.variant, c.alpha_low, c.alpha_up) for c in adapting if c.variant != "maml"})
    outer = f"{one.optimizer} with step {one.beta_up:g}" + ("" if one.schedule == "constant" else " (cosine to 0)")
    first, budget = records[0], f"{one.meta_batch} episodes a meta-iteration, {one.iterations:,} meta-iterations"
    ran = {commit for record in records for commit in str(record.provenance["commit"]).split(", then ")}
    commits = ", ".join(sorted(commit[:10] for commit in ran))
    machines = ", ".join(sorted({str(record.provenance["device"]) for record in records}))
    threads = ", ".join(sorted({str(record.provenance["threads"]) for record in records}))
    hours = sum(record.seconds for record in records) / 3600
    lines = [
        f"Data: {tier.label} ({first.data_name}, digest {first.data_digest[:12]}), {one.image_size} pixels.",
        f"Budget: {one.model} with {one.filters} filters, {inner}{budget}, {outer}.",
        "Radii: " + "; ".join(f"{name} {low:g} (low), {up:g} (up)" for name, low, up in radii) + "." if radii else "",
        f"Judged on {first.protocol['episodes']:,} fixed {table.split} episodes of {one.ways} ways, {one.shots} "
        f"shot(s) and {one.queries} queries a class; ± is the conventional 95% interval over episodes. Checkpoints are "
        "the best on the validation classes.",
        "Over seeds: Student's 95% interval over training seeds. Difference: paired on the same episodes, 95% over "
        "seeds.",
        "Verdict: t-tests on the differences over seeds, each question asked of all rows with Holm's correction at "
        f"{100 * LEVEL:g}%"
        + (
            "; the gains that the source prints are taken as they are, though each is of two single runs on 400 "
            "episodes; quoted values are left alone."
            if any(printed_gain(row, table) is not None for row in table.rows)
            else "; nothing is compared with the source."
        ),
        f"Code: commit {commits}; {machines}, {threads} thread(s) a run; {hours:.2f} hours of training in all.",
    ]
    unfinished = [
        f"{record.name}, seed {record.seed}, at step {record.learning_curve[-1]['step']:,}"
        for record in records
        if record.learning_curve and record.learning_curve[-1]["step"] != record.config["iterations"]
    ]
    if unfinished:
        lines.append(f"UNFINISHED, {one.iterations:,} iterations were planned: {'; '.join(unfinished)}.")
    if any(record.provenance["dirty"] for record in records):
        lines.append("DIRTY: some records were made with uncommitted changes; nobody could make them again.")
    return [line for line in lines if line]


def tracked_records(table: Table, tier: Tier) -> list[Record]:
    """The records of a table on a tier that the repository tracks."""
    files = [path for row in table.rows for path in sorted((TRACKED / tier.name).glob(f"{row.name}-seed*.json"))]
    return [record for record in read_records(files) if record.protocol["split"] == table.split]


def finished_records(table: Table, tier: Tier, results: Path) -> list[Record]:
    """The records of a table on a tier that runs in a results folder have left."""
    files = [path for row in table.rows for path in sorted(results.glob(f"{tier.name}/{row.name}/seed*/record.json"))]
    return [record for record in read_records(files) if record.protocol["split"] == table.split]


def write_forms(
    title: str, baseline: str, lines: Sequence[forms.Line], below: Sequence[str], directory: Path, stem: str
) -> None:
    """Write the table as markdown, LaTeX and a figure."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{stem}.md").write_text(forms.markdown(title, baseline, lines, below), encoding="utf-8")
    (directory / f"{stem}.tex").write_text(forms.latex(title, baseline, lines, below), encoding="utf-8")
    forms.figure(title, baseline, lines, below, directory / f"{stem}.png")


def prepare_data(tier: Tier, data: Path | None, results: Path) -> Path:
    """The path of a tier's data; images of the demo tier are made here, once.

    Raises:
        TableError: The tier needs data that were not given.
    """
    if tier.data != "synthetic":
        if data is None:
            raise TableError(
                f"tier {tier.name} needs {tier.data}: name its directory with --data DIR (make ... DATA=DIR). The "
                "forms that are read are listed in sharp_maml/data/forms.py; nothing is downloaded"
            )
        return data
    if data is not None:
        raise TableError(f"tier {tier.name} makes its own images; leave --data out, or choose --tier cpu or paper")
    size = Config.from_mapping(tier.settings).image_size
    directory = results / "data" / f"synthetic-images-{size}-{tier.images_a_class}"
    if not directory.exists():
        write_images(directory, size=size, per_class=tier.images_a_class)
    return directory


def check_data(cells: Sequence[Cell], to_run: Sequence[Cell], data: Path, results: Path, console: Console) -> None:
    """Refuse given data that the cells cannot be run on, or have not been; say it if they are not the tier's.

    Raises:
        ValueError: The data cannot be read, or a split is too small for a cell's episodes.
        TableError: There are records of other data.
    """
    config = cells[0].config
    given = open_dataset(data, size=config.image_size, ways=config.ways)
    for cell in to_run:
        check_protocol(given, Protocol(cell.config.ways, cell.config.shots, cell.config.queries))
    for record in read_records([cell.directory(results) / "record.json" for cell in cells if cell not in to_run]):
        if record.data_digest != given.digest:
            raise TableError(
                f"{results / cells[0].tier.name} has records of other data ({record.data_name}, digest "
                f"{record.data_digest[:12]}) than {data} ({given.name}, digest {given.digest[:12]}): choose another "
                "--results"
            )
    if given.name != cells[0].tier.data:
        console.print(
            f"{data}: {given.name}, not {cells[0].tier.data}; the table says so and is not compared with the source"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tables, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.table1", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(tiers), help="data and budget; default: demo")
    parser.add_argument("--table", choices=sorted(tables), help="which rows; default: the tier's own")
    parser.add_argument(
        "--data",
        type=Path,
        help="directory of the data, for the tiers that do not make their own",
    )
    parser.add_argument("--seeds", type=int, help="training seeds of every row; default: the table's")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="train and show these rows of the table only")
    parser.add_argument("--jobs", type=int, default=2, help="cells that are trained at a time; default: 2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:NUMBER; default: cpu")
    parser.add_argument("--cluster", help="hand the cells to a scheduler: slurm, or local (needs the extra `cluster`)")
    parser.add_argument(
        "--cluster-options", nargs="+", default=[], metavar="KEY=VALUE", help="such as timeout_min=600 gpus_per_node=1"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    parser.add_argument("--tracked", action="store_true", help="build from reproductions/records, train nothing")
    parser.add_argument("--readme", action="store_true", help="with --tracked: put the table into README.md")
    parser.add_argument("--allow-dirty", action="store_true", help="accept records of uncommitted code")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else forms.WIDTH)
    keep_freed_memory()
    for signum in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores Ctrl-C unless told otherwise
        signal.signal(signum, signal.default_int_handler)  # the cells save and end
    tier = tiers[options.tier]
    table = tables[options.table or tier.tables[0]]
    try:
        if table.name not in tier.tables:
            raise TableError(f"table {table.name} is not run on tier {tier.name}, which has {', '.join(tier.tables)}")
        for name in ("seeds", "jobs"):
            if (value := getattr(options, name)) is not None and value < 1:
                raise TableError(f"--{name} must be >= 1, got {value}")
        if options.readme and not options.tracked:
            raise TableError("--readme goes with --tracked: the README shows tracked records only")
        if options.rows:
            unknown = sorted(set(options.rows) - {row.name for row in table.rows})
            if unknown:
                raise TableError(f"unknown rows {unknown}; {table.name} has {[row.name for row in table.rows]}")
            table = replace(table, rows=tuple(row for row in table.rows if row.name in options.rows))
        records = tracked_records(table, tier) if options.tracked else _train(table, tier, options, console)
        check(records, table.rows, allow_dirty=options.allow_dirty)
        check_settings(records, table, tier)
        table, tier = on_other_data(table, tier, records)
        lines = build_lines(table, records)
        title = f"{table.title} ({tier.name} tier)"
        below = notes(table, tier, records)
        where = options.results / tier.name
        write_forms(title, table.baseline.label, lines, below, where, table.name)
        curves.draw(title, table.rows, records, where / f"{table.name}-curves.png")
        console.print(forms.terminal(title, table.baseline.label, lines, below, console.width))
        if not options.tracked:
            _show_tracked(table, tier, console, {record.data_name for record in records})
        ends = (".md", ".tex", ".png", "-curves.png")
        console.print(f"written: {', '.join(str(where / f'{table.name}{end}') for end in ends)}")
        if options.readme:
            text = forms.markdown(title, table.baseline.label, lines, below)
            README.write_text(forms.put_between(README.read_text(encoding="utf-8"), "table1", text), encoding="utf-8")
    except KeyboardInterrupt:
        console.print("stopped; every cell has saved its state: the same command goes on from there")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _require_device(device: str) -> None:
    """Refuse a GPU that this machine does not have."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number if number.isdecimal() else 0) >= (there := torch.cuda.device_count()):
        raise TableError(f"--device {device}: there is no such device here ({there} CUDA devices); choose cpu")


def _train(table: Table, tier: Tier, options: argparse.Namespace, console: Console) -> list[Record]:
    """Train what is missing; the records of all cells."""
    if not options.cluster:
        _require_device(options.device)
    if provenance()["dirty"] and not options.allow_dirty:
        raise TableError(
            "the working tree has uncommitted changes, and records must say which code made them: commit or stash "
            "them, or pass --allow-dirty (the table will then say so)"
        )
    cells = cells_of(table, tier, seeds=options.seeds, device=options.device)
    (options.results / tier.name).mkdir(parents=True, exist_ok=True)
    with RunDirectoryLock(options.results / tier.name):
        to_run = missing(cells, options.results)
        if options.data is not None and tier.data != "synthetic":
            check_data(cells, to_run, options.data, options.results, console)
        if to_run:
            began = time.perf_counter()
            data = prepare_data(tier, options.data, options.results)
            if options.cluster:
                own = dict(map(_option, options.cluster_options))
                run_on_cluster(to_run, data, options.results, cluster=options.cluster, options=own, console=console)
            else:
                costs = measure_costs(to_run, data)
                ready = f"data ready after {duration(time.perf_counter() - began)}"
                console.print(f"{estimate(to_run, options.results, costs, options.jobs)}; {ready}")
                run_here(to_run, data, options.results, costs=costs, jobs=options.jobs, console=console)
    return read_records([cell.directory(options.results) / "record.json" for cell in cells])


def _option(text: str) -> tuple[str, object]:
    """Name and value of a `name=value` text; what is not a TOML value is text."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise TableError(f"--cluster-options must be KEY=VALUE, got {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _show_tracked(table: Table, tier: Tier, console: Console, data: Container[str]) -> None:
    """Beside a fresh table, what the repository's own records of the same data say."""
    tracked = [record for record in tracked_records(table, tier) if record.data_name in data]
    if tracked:
        lines = build_lines(table, tracked)
        shown = "; ".join(f"{line.label} {line.accuracy:.2f}" for line in lines if line.accuracy is not None)
        console.print(f"the repository's tracked records for comparison: {shown}")


if __name__ == "__main__":
    sys.exit(main())
