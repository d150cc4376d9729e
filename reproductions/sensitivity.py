"""How far choices of the protocol move one number: `python -m reproductions.sensitivity --tier cpu --data DIR`.

The trained networks of one row are judged again with one choice changed at a time: test steps, batch norm mode,
queries, checkpoint, number of episodes. Nothing is trained. Each shift is a difference on the same networks, one a
training seed, and is drawn beside the gains that the source prints for Sharp-MAML. Each network has its own JSON, so
that a run that was cut off goes on; then come one record and the figure. `--tracked` draws from the tracked record
alone. Read next: `table1.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from rich.console import Console

from reproductions.specification import HERE, MODE, Cell, cells_of, load, read_study
from reproductions.table1 import TableError, prepare_data, printed_gain
from sharp_maml import (
    Dataset,
    Estimate,
    interval_over_seeds,
    keep_freed_memory,
    load_checkpoint,
    open_dataset,
    provenance,
    write_atomically,
)
from sharp_maml.evaluate import evaluate

TRACKED = HERE / "records" / "sensitivity"
FIGURE = HERE.parent / "docs" / "figures" / "sensitivity.png"
REFERENCE = "as in the table"

CHOICES: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "1 test step": {"test_steps": 1},
    "10 test steps": {"test_steps": 10},
    "5 queries a class": {"queries": 5},
    "support-set batch norm": {"modes": ["support"]},
    "the last checkpoint": {"checkpoint": "last"},
    "400 episodes": {"episodes": 400},
    "10,000 episodes": {"episodes": 10_000},
}
"""What is changed, as keywords of `evaluate`; all else is as in the table of the tier."""


def measure(cell: Cell, dataset: Dataset, results: Path, choice: Mapping[str, Any]) -> float:
    """Accuracy of a cell's network with one choice changed, in per cent."""
    settings = {"checkpoint": "best", "episodes": cell.tier.episodes, "modes": [MODE], **choice}
    checkpoint = load_checkpoint(cell.directory(results) / f"{settings.pop('checkpoint')}.safetensors")
    record = evaluate(checkpoint, dataset, name=cell.row.name, split="test", **settings)
    (accuracies,) = record.accuracies.values()
    return 100 * float(np.mean(accuracies))


def shifts(accuracies: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
    """For each choice how far it moves the accuracy, over training seeds, in percentage points.

    Args:
        accuracies: By seed, then by choice, in per cent.

    Returns:
        The estimates by choice, without the reference.
    """
    return {
        name: interval_over_seeds(
            [of_seed[name] - of_seed[REFERENCE] for of_seed in accuracies.values()], unit="points"
        )
        for name in CHOICES
        if name != REFERENCE
    }


def drawn(record: Mapping[str, Any]) -> Figure:
    """The shifts with their intervals over seeds, a point a seed, and the gains that the source prints."""
    moved = shifts(record["accuracies"])
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(8, 1.4 + 0.42 * len(moved)), layout="constrained")
        axes = figure.subplots()
        colour, orange = sns.color_palette("colorblind")[:2]
        for y, (name, estimate) in enumerate(moved.items()):
            own = [of_seed[name] - of_seed[REFERENCE] for of_seed in record["accuracies"].values()]
            axes.plot(own, [y] * len(own), "o", color=colour, alpha=0.35, markersize=4)
            if np.isfinite(estimate.low):
                axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2)
            axes.plot(estimate.mean, y, "D", color=colour, markersize=5)
        for label, gain in record["gains"].items():
            axes.axvline(gain, color=orange, linewidth=1)
            axes.annotate(
                f"{label}: {gain:+.2f}", (gain, -0.9), rotation=90, color=orange, fontsize=7, ha="right", va="top"
            )
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_yticks(range(len(moved)), list(moved))
        axes.set_ylim(len(moved) - 0.5, -1)
        axes.set_xlabel(
            f"shift of the accuracy of {record['label']}, percentage points; lines: gains printed by the source"
        )
    return figure


def read(path: Path) -> dict[str, Any]:
    """A record that `main` wrote.

    Raises:
        FileNotFoundError: It is not there; the message names the command that makes it.
    """
    return read_study(path, f"python -m reproductions.sensitivity --tier {path.stem} --data DIR")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tables, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.sensitivity", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(tiers), help="whose networks; default: demo")
    parser.add_argument("--data", type=Path, help="directory of the tier's data, where they are not made on the spot")
    parser.add_argument("--row", default="maml", help="which row of the tier's table; default: maml")
    parser.add_argument("--seeds", type=int, help="training seeds; default: the table's")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    parser.add_argument("--tracked", action="store_true", help="draw the tracked record's figure, measure nothing")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    tier = tiers[options.tier]
    table = tables[tier.tables[0]]
    keep_freed_memory()
    try:
        if options.tracked:
            path, figure = TRACKED / f"{tier.name}.json", FIGURE
            record = read(path)
        else:
            if options.seeds is not None and options.seeds < 1:
                raise TableError(f"--seeds must be >= 1, got {options.seeds}")
            cells = [each for each in cells_of(table, tier, seeds=options.seeds) if each.row.name == options.row]
            if not cells or cells[0].config.method != "sharp-maml":
                adapting = [row.name for row in table.rows if not row.settings.get("method")]
                raise TableError(f"--row must be one of {', '.join(adapting)}, got {options.row!r}")
            data = prepare_data(tier, options.data, options.results)
            record = {
                "schema": 1,
                **provenance(),
                "tier": tier.name,
                "row": options.row,
                "label": cells[0].row.label,
                "gains": {
                    row.label: gain
                    for row in table.rows
                    if (gain := printed_gain(row, table)) is not None and not row.name.endswith("-chosen")
                },
                "accuracies": {str(cell.seed): _judged(cell, data, options.results, console) for cell in cells},
            }
            path = options.results / "sensitivity" / f"{tier.name}.json"
            write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
            figure = path.with_suffix(".png")
        figure.parent.mkdir(parents=True, exist_ok=True)
        drawn(record).savefig(figure, dpi=150, metadata={"Software": None})
        for name, estimate in shifts(record["accuracies"]).items():
            console.print(f"{name}: {estimate:+.2f}", highlight=False)
        console.print(f"record: {path}, figure: {figure}")
    except KeyboardInterrupt:
        console.print("stopped; what was judged is kept: the same command goes on from there")
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _judged(cell: Cell, data: Path, results: Path, console: Console) -> dict[str, float]:
    """Accuracy of a cell's network by choice; what was judged before is read."""
    directory = cell.directory(results)
    for name in ("best", "last"):
        if not (directory / f"{name}.safetensors").exists():
            raise FileNotFoundError(
                f"{directory / name}.safetensors is missing; train it with: make reproduce-table1 TIER={cell.tier.name}"
            )
    path = directory / "sensitivity.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = before["accuracies"] if before.get("config_digest") == cell.config.digest else {}
    dataset = open_dataset(data, size=cell.config.image_size)
    for name, choice in CHOICES.items():
        if name not in found:
            found[name] = measure(cell, dataset, results, choice)
            console.print(f"{cell.row.name}, seed {cell.seed}, {name}: {found[name]:.2f} %", highlight=False)
            content = {"config_digest": cell.config.digest, "accuracies": found}
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return {name: found[name] for name in CHOICES}


if __name__ == "__main__":
    sys.exit(main())
