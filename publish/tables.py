"""Every table of accuracies that has been run, on one page, with its figures. Read next: `pages.py`, `figures.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from benchmarks import page as bench
from reproductions.tables import curves, forms
from reproductions.tables.check import check, check_settings
from reproductions.tables.lines import Line, build_lines, notes, signed
from reproductions.tables.records import tables_run, tracked_records
from reproductions.tables.specification import MODE, Table, Tier
from sharp_maml import Record, interval_over_seeds
from sharp_maml.paper import save_figure

HEAD = """# The tables, rerun

Every table that has been run, from tracked records in `records/`. Each stands on the data and the budget under it, and
says nothing about others. What a number means: [protocol](protocol.md). What was fixed before miniImageNet's table was
run, and what was known by then: [plan](plan.md). In a terminal:
`python -m reproductions.tables --tier TIER --table TABLE --tracked`.

A trained network of each row of tiers cpu and cpu-42, the best on the validation classes of those that were kept, lies
beside its records, to be judged again or put to use: `sharp-maml evaluate records/tables/cpu/both.safetensors DIR`,
where DIR is miniImageNet, and `sharp-maml adapt` ([tutorial](tutorial.md#from-the-shell)). Matching Nets
with full context embeddings has none there, since its network has more than 200 kB.
"""

BESIDE = {"cpu-42": "cpu", "full-size": "cpu"}
"""A tier, and the one of a smaller budget whose learning curves of the same rows are drawn beside its own."""


@dataclass(frozen=True)
class Shown:
    """A table on a tier, and the records that it is made from."""

    table: Table
    tier: Tier
    records: Sequence[Record]
    beside: Shown | None = None
    """The table whose learning curves are drawn beside its own."""

    @property
    def name(self) -> str:
        """What its figures are called."""
        return f"{self.tier.name}-{self.table.name}"

    @property
    def is_first(self) -> bool:
        """Whether it is the table of its tier that is run where none is named."""
        return self.table.name == self.tier.tables[0]

    @property
    def has_curves(self) -> bool:
        """Whether its learning curves are drawn, which are those of miniImageNet's test tables."""
        return self.tier.data == "miniimagenet" and self.table.split == "test"

    @cached_property
    def lines(self) -> list[Line]:
        """The rows."""
        return build_lines(self.table, self.records)

    @property
    def markdown(self) -> str:
        """Table and notes."""
        below = notes(self.table, self.tier, self.records)
        return forms.markdown(
            f"{self.table.title} ({self.tier.name} tier)", self.table.baseline.label, self.lines, below
        )

    @property
    def judged_otherwise(self) -> str:
        """Paired differences of the same checkpoints with other test steps and batch statistics; empty if none were."""
        steps = [way["test_steps"] for way in self.tier.also if "test_steps" in way]
        if not steps or self.table.split != "test":
            return ""
        ways = {f"{n} test step{'s' * (n > 1)}": f"accuracy_{MODE}, test_steps {n}" for n in steps}
        ways["support-set norm"] = "accuracy_support"
        baseline = self.table.baseline
        others = {record.seed: record.metrics for record in self.records if record.name == baseline.name}
        rows = []
        for row in self.table.rows:
            shared = (each for each in self.records if each.name == row.name and each.seed in others)
            pairs = [(each.metrics, others[each.seed]) for each in shared]
            if row is baseline or not pairs:
                continue
            found = [
                [100 * (one[way].mean - other[way].mean) for one, other in pairs if way in one] for way in ways.values()
            ]
            rows.append(
                [row.label, *(signed(interval_over_seeds(each, unit="points")) if each else "—" for each in found)]
            )
        said = (
            "Other test steps and batch statistics with these checkpoints, secondary and without verdicts: difference"
        )
        return f"{said} to {baseline.label}, 95% over seeds.\n\n{bench.markdown(['Method', *ways], rows)}"

    def draw(self, path: Path) -> None:
        """Accuracies and paired differences, under what the verdicts say."""
        baseline = self.table.baseline.label
        forms.figure(f"{self.tier.label}. {forms.says(baseline, self.lines)}", baseline, self.lines, [], path)

    def draw_curves(self, path: Path) -> None:
        """Learning curves on the validation classes."""
        save_figure(curves.drawn(self._said_of_curves, self.table.rows, self._panels), path)

    @property
    def shows_in_curves(self) -> str:
        """What the figure of its learning curves says, and what it is made from."""
        every = [(each.name, each.seed, each.learning_curve) for records in self._panels.values() for each in records]
        return self._said_of_curves + repr(every)

    @property
    def _said_of_curves(self) -> str:
        said = curves.says(self.table.rows, self.table.baseline, self.records)
        return said if self.beside is None else f"Tier {self.tier.name}: {said[0].lower()}{said[1:]}"

    @property
    def _panels(self) -> dict[str, Sequence[Record]]:
        """The records by their budget's name, which is not said of a single one."""
        if self.beside is None:
            return {"": self.records}
        return {f"tier {each.tier.name}": each.records for each in (self.beside, self)}


def shown(records: Path) -> list[Shown]:
    """Every table that has been run.

    Raises:
        ValueError: Records of a table do not belong together, or are of other settings than it has now.
    """
    every = []
    for table, tier, found in tables_run(partial(tracked_records, tracked=records / "tables")):
        check(found, table.rows)
        check_settings(found, table, tier)
        every.append(Shown(table, tier, found))
    first = {each.tier.name: each for each in every if each.is_first}
    return [replace(each, beside=first.get(BESIDE.get(each.tier.name, ""))) for each in every]


def page(records: Path) -> str:
    """The page: real data first."""
    parts = [HEAD]
    for each in sorted(shown(records), key=lambda each: each.tier.data == "synthetic"):
        parts += [f"## {each.table.title} ({each.tier.name} tier)", each.markdown.split("\n\n", 1)[1].rstrip("\n")]
        parts += [each.judged_otherwise] if each.judged_otherwise else []
        parts.append(f"![{each.table.title}: accuracies and paired differences](figures/{each.name}.png)")
        if each.has_curves:
            parts.append(f"![{each.table.title}: learning curves](figures/{each.name}-curves.png)")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
