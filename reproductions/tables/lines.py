"""A table's lines and the notes below it, from records alone.

Read next: `verdicts.py` (what is said of a row), `forms.py` (the table in its four forms).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reproductions.tables.specification import MODE, Row, Table, Tier
from reproductions.tables.verdicts import LEVEL, decide
from sharp_maml import Config, Estimate, Record, interval_over_episodes, interval_over_seeds


@dataclass(frozen=True)
class Line:
    """One row of the table; numbers in per cent, None where there are no records.

    label: the method. source: the source's accuracy, `quoted` if it took it from elsewhere. accuracy: mean and 95%
    interval over test episodes. seeds: mean and interval over training seeds. support: the same checkpoints with the
    support set's batch norm statistics. difference: paired difference to the baseline, interval over seeds.
    source_difference: what the source prints for it. verdict: see `verdicts.decide`. runs: number of seeds.
    """

    label: str
    source: float | None
    quoted: bool
    accuracy: Estimate | None
    seeds: Estimate | None
    support: Estimate | None
    difference: Estimate | None
    source_difference: float | None
    verdict: str
    runs: int

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `forms.HEADER`."""
        return (
            self.label,
            "—" if self.source is None else f"{self.source:.2f}" + (" (quoted)" if self.quoted else ""),
            _centre(self.accuracy),
            interval(self.seeds),
            _centre(self.support),
            "—" if self.difference is None else signed(self.difference),
            "—" if self.source_difference is None else f"{self.source_difference:+.2f}",
            self.verdict,
            str(self.runs) if self.runs else "—",
        )


def interval(estimate: Estimate | None) -> str:
    """An estimate's interval as it stands in a table, in brackets."""
    if estimate is None:
        return "—"
    if math.isinf(estimate.low):
        return "[one run: no interval]"
    return f"[{estimate.low:.2f}, {estimate.high:.2f}]"


def signed(estimate: Estimate) -> str:
    """A difference with its sign and its interval."""
    return f"{estimate.mean:+.2f} {interval(estimate)}"


def _centre(estimate: Estimate | None) -> str:
    if estimate is None:
        return "—"
    return f"{estimate.mean:.2f} ± {(estimate.high - estimate.low) / 2:.2f}"


def accuracies(record: Record, mode: str) -> NDArray[np.float64]:
    """Accuracy of each test episode, in per cent."""
    return 100 * np.asarray(record.accuracies[mode])


def build_lines(table: Table, records: Iterable[Record]) -> list[Line]:
    """One line per row, from records alone.

    Args:
        table: Rows and baseline.
        records: Any number of seeds per row; checked before.

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
) -> Line:
    if not mine:
        return Line(row.label, row.source, row.quoted, None, None, None, None, gain, "—", 0)
    mean = {mode: np.mean([accuracies(record, mode) for record in mine.values()], axis=0) for mode in (MODE, "support")}
    return Line(
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


def notes(table: Table, tier: Tier, records: Sequence[Record]) -> list[str]:
    """What the table stands on: data, budget, seeds, machine; and how to read the columns."""
    if not records:
        return ["no records"]
    one = Config.from_mapping(records[0].config)
    adapting = [Config.from_mapping(record.config) for record in records if record.config["method"] == "sharp-maml"]
    inner = (
        f"{_counted(adapting[0].steps, 'inner step')} of {adapting[0].beta_low:g}, {adapting[0].test_steps} at test, "
        if adapting
        else ""
    )
    radii = sorted({(c.variant, c.alpha_low, c.alpha_up) for c in adapting if c.variant != "maml"})
    outer = f"{one.optimizer} with step {one.beta_up:g}" + ("" if one.schedule == "constant" else " (cosine to 0)")
    first, budget = records[0], f"{one.meta_batch} episodes a meta-iteration, {one.iterations:,} meta-iterations"
    ran = {commit for record in records for commit in str(record.provenance["commit"]).split(", then ")}
    commits = ", ".join(sorted(commit[:10] for commit in ran))
    machines = ", ".join(sorted({str(record.provenance["device"]) for record in records}))
    threads = " or ".join(_counted(number, "thread") for number in sorted({r.provenance["threads"] for r in records}))
    hours = sum(record.seconds for record in records) / 3600
    lines = [
        f"Data: {tier.label} ({first.data_name}, digest {first.data_digest[:12]}), {one.image_size} pixels.",
        f"Budget: {one.model} with {one.filters} filters, {inner}{budget}, {outer}.",
        "Radii: " + "; ".join(f"{name} {low:g} (low), {up:g} (up)" for name, low, up in radii) + "." if radii else "",
        f"Judged on {first.protocol['episodes']:,} fixed {table.split} episodes of {one.ways} ways, "
        f"{_counted(one.shots, 'shot')} and {one.queries} queries a class; ± is the conventional 95% interval over "
        "episodes. Checkpoints are the best on the validation classes.",
        "Over seeds: Student's 95% interval over training seeds. Difference: paired on the same episodes, 95% over the "
        "seeds that the row and the baseline share, which for a row of fewer seeds is not the difference of the two "
        "accuracies; these are a row's own, and verdicts allow for the number of rows.",
        "Verdict: t-tests on the differences over seeds (for equivalence two one-sided ones, so that a 95% interval "
        f"can reach beyond the margin), each question asked of all rows with Holm's correction at {100 * LEVEL:g}%"
        + (
            "; the gains that the source prints are taken as they are, without their errors, which it does not print; "
            "quoted values are left alone."
            if any(printed_gain(row, table) is not None for row in table.rows)
            else "; nothing is compared with the source."
        ),
        f"Code: commit {commits}; {machines}, {threads} a run; {hours:.2f} hours of training in all.",
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


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
