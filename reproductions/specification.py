"""What `table1.toml` says: tables, rows and tiers, and the configuration and place of each cell.

A cell is one row trained with one seed on one tier. Read next: `cells.py` (how missing cells are run), `table1.py` (the
table).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharp_maml import Config

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A row: its label, what the source prints (per cent; None where it prints nothing), and its own settings."""

    name: str
    label: str
    settings: Mapping[str, Any]
    source: float | None = None
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """Rows, and the one that the others are compared with."""

    title: str
    baseline: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Tier:
    """Data and budget.

    label: what the table stands on. data: `synthetic` is made on the spot, `miniimagenet` is given by the user.
    comparable: whether accuracies themselves can be compared with the source's. seeds: training seeds 0 ... seeds-1.
    episodes: test episodes. settings: of every cell; rows: of a row on this tier. images_a_class: of synthetic data.
    """

    name: str
    label: str
    data: str
    comparable: bool
    seeds: int
    episodes: int
    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    images_a_class: int = 0


@dataclass(frozen=True)
class Cell:
    """One row, one seed."""

    row: Row
    tier: Tier
    seed: int

    @property
    def config(self) -> Config:
        """Settings of the tier, then of the row, then of the row in the tier."""
        own = {**self.row.settings, **self.tier.rows.get(self.row.name, {})}
        return Config.from_mapping({**self.tier.settings, **own, "seed": self.seed})

    def directory(self, results: Path) -> Path:
        """The run directory."""
        return results / self.tier.name / self.row.name / f"seed{self.seed}"


def load(path: Path = HERE / "table1.toml") -> tuple[dict[str, Table], dict[str, Tier]]:
    """Read tables and tiers by name.

    Args:
        path: The specification.

    Returns:
        Tables and tiers.

    Raises:
        ValueError: An entry is missing or unknown.
    """
    text = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        rows = {name: Row(name=name, **entries) for name, entries in text["rows"].items()}
        tables = {
            name: Table(entries["title"], rows[entries["baseline"]], tuple(rows[row] for row in entries["rows"]))
            for name, entries in text["tables"].items()
        }
        tiers = {name: Tier(name=name, **{"rows": {}, **entries}) for name, entries in text["tiers"].items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error} is missing, unknown or of the wrong form") from error
    return tables, tiers
