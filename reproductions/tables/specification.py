"""What `tables.toml` says: tables, rows and tiers, and the configuration and place of each cell.

A cell is one row trained with one seed on one tier. Read next: `cells.py` (how a cell is run), `lines.py` (what becomes
of its record).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from sharp_maml import ADAPTATION, BatchNorm, Config

SPECIFICATION = Path(__file__).with_name("tables.toml")

MODE: BatchNorm = "transductive"
"""The batch norm mode that tables compare in; the other one has a column."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    label: what the table calls it. source: what the source prints for it, in per cent, if anything; `quoted` if the
    source took that from elsewhere. settings: its own. like: the row whose settings in a tier (its radii) it shares.
    """

    name: str
    label: str
    source: float | None = None
    quoted: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""


@dataclass(frozen=True)
class Table:
    """Rows, and the one that the others are compared with.

    split: classes that the accuracies are measured on. settings: of every cell. first_seed: training seeds are
    first_seed, first_seed + 1, ...; what is chosen on a table must not share seeds with the table that reports it.
    seeds: how many, 0 for the tier's number; seeds_of: of single rows.
    """

    name: str
    title: str
    baseline: Row
    rows: tuple[Row, ...]
    split: str = "test"
    settings: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = 0
    seeds: int = 0
    seeds_of: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tier:
    """Data and budget.

    label: what the table stands on. tables: those that are run on it, the first one by default. data: `synthetic` is
    made on the spot, `miniimagenet` is given by the user. seeds: training seeds of a row. episodes: test episodes.
    settings: of every cell; rows: of a row on this tier. images_a_class: of synthetic data. also: other ways to judge
    the same checkpoint, keywords of `evaluate`; what they give are metrics of the record.
    """

    name: str
    label: str
    tables: tuple[str, ...]
    data: str
    seeds: int
    episodes: int
    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    images_a_class: int = 0
    also: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One row, one seed, on a device."""

    table: Table
    row: Row
    tier: Tier
    seed: int
    device: str = "cpu"

    @property
    def config(self) -> Config:
        """Settings of the tier, the table, the row that this is like in the tier, the row, the row in the tier."""
        in_tier = self.tier.rows
        own = {**in_tier.get(self.row.like, {}), **self.row.settings, **in_tier.get(self.row.name, {})}
        shared = {**self.tier.settings, **self.table.settings}
        if own.get("method", "sharp-maml") != "sharp-maml":
            shared = {name: value for name, value in shared.items() if name not in ADAPTATION}
        return Config.from_mapping({**shared, **own, "seed": self.seed, "device": self.device})

    @property
    def words(self) -> list[str]:
        """What names the cell on a command line; `from_words` is the inverse."""
        return [self.table.name, self.row.name, self.tier.name, str(self.seed), self.device]

    @classmethod
    def from_words(cls, table: str, row: str, tier: str, seed: str, device: str) -> Cell:
        """The cell that words name."""
        tables, tiers = load()
        rows = {each.name: each for each in tables[table].rows}
        return cls(tables[table], rows[row], tiers[tier], int(seed), device)

    @property
    def judged(self) -> list[Mapping[str, Any]]:
        """The other ways in which its checkpoint is judged; none where accuracies only choose a setting."""
        adapts = self.config.method == "sharp-maml"
        return [way for way in self.tier.also if self.table.split == "test" and (adapts or "test_steps" not in way)]

    @property
    def evaluations(self) -> int:
        """Episodes that its checkpoint is judged on in all."""
        return self.tier.episodes * (1 + len(self.judged))

    def directory(self, results: Path) -> Path:
        """The run directory."""
        return results / self.tier.name / self.row.name / f"seed{self.seed}"


def cells_of(table: Table, tier: Tier, *, seeds: int | None = None, device: str = "cpu") -> list[Cell]:
    """The cells of a table on a tier, seed by seed, so that every seed that is done is a whole comparison.

    Args:
        table: Rows, and how many seeds they have.
        tier: Data and budget.
        seeds: Training seeds of every row; None means as many as the table or the tier says.
        device: Where they are trained.

    Returns:
        The cells, in the order in which they are trained.
    """
    counts = {row.name: seeds or table.seeds_of.get(row.name, table.seeds or tier.seeds) for row in table.rows}
    return [
        Cell(table, row, tier, table.first_seed + index, device)
        for index in range(max(counts.values()))
        for row in table.rows
        if index < counts[row.name]
    ]


def load(path: Path = SPECIFICATION) -> tuple[dict[str, Table], dict[str, Tier]]:
    """Read tables and tiers by name.

    Args:
        path: The specification.

    Returns:
        Tables and tiers.

    Raises:
        ValueError: An entry is missing, unknown or of the wrong type, or a cell's settings are refused.
    """
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = text.keys() - {"tables", "rows", "tiers"}
        rows = {name: Row(name=name, **entries) for name, entries in text["rows"].items()}
        bare = {name: replace(row, source=None, quoted=False) for name, row in rows.items()}
        tables = {}
        for name, entries in text["tables"].items():
            shown = rows if entries.pop("printed", True) else bare
            own = {"baseline": shown[entries["baseline"]], "rows": tuple(shown[row] for row in entries["rows"])}
            tables[name] = Table(**{**entries, "name": name, **own})
        tiers = {
            name: Tier(
                **{
                    "rows": {},
                    **entries,
                    "name": name,
                    "tables": tuple(entries["tables"]),
                    "also": tuple(entries.get("also", ())),
                }
            )
            for name, entries in text["tiers"].items()
        }
        named = {row.like for row in rows.values() if row.like}.union(
            *(tier.rows for tier in tiers.values()), *(table.seeds_of for table in tables.values())
        )
        unknown |= named - rows.keys() | set().union(*(tier.tables for tier in tiers.values())) - tables.keys()
        everything: tuple[Row | Table | Tier, ...] = (*rows.values(), *tables.values(), *tiers.values())
        wrong = [
            f"{name} of {entry.name}"
            for entry in everything
            for name, kind in get_type_hints(type(entry)).items()
            if not _fits(getattr(entry, name), kind)
        ]
        wrong += [f"rows of {table.name}" for table in tables.values() if not table.rows]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: an entry is missing, unknown or of the wrong form: {error}") from error
    if unknown:
        raise ValueError(f"{path}: unknown entries {', '.join(sorted(unknown))}")
    if wrong:
        raise ValueError(f"{path}: empty or of the wrong type: {', '.join(wrong)}")
    for tier in tiers.values():
        for cell in (cell for name in tier.tables for cell in cells_of(tables[name], tier, seeds=1)):
            try:
                _ = cell.config
            except ValueError as error:
                raise ValueError(f"{path}: {' '.join(cell.words[:3])}: {error}") from error
    return tables, tiers


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as a field is annotated with, and so is all that it contains."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any or origin is UnionType:
        return kind is Any or any(_fits(value, each) for each in inside)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inside[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(each, inside[1]) for each in value.values())
    if isinstance(value, bool):  # which is an int to Python
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
