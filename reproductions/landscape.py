"""Is the landscape smoother, on trained networks? `python -m reproductions.landscape [--tier demo] [--seeds N]`.

Each checkpoint of MAML and of the variants of Sharp-MAML is measured on the same fixed training episodes, by the same
two functions: the meta-loss F (after the inner steps of the training, without perturbation) and the mean inner loss R
at the parameters themselves. Both along the same drawn directions, normalised filter by filter to each network.
"Smoother than MAML" is decided for each measure by the difference paired over training seeds. One JSON a checkpoint,
so that a run that was cut off goes on; then one record and the figure. `--tracked` draws from the tracked record alone.
Read next: `sharp_maml/sharpness.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from scipy.stats import ttest_1samp
from torch import Tensor
from torch.nn.functional import cross_entropy

from reproductions.specification import Cell, cells_of, load, read_study
from reproductions.table1 import TableError, prepare_data
from sharp_maml import (
    Batch,
    CheckpointError,
    Config,
    Estimate,
    Params,
    Protocol,
    add_scaled,
    episode,
    epsilon_sharpness,
    filter_normalised_direction,
    hessian,
    hessian_trace,
    holm,
    keep_freed_memory,
    leading_eigenvalues,
    load_checkpoint,
    loss_on_plane,
    meta_loss,
    network,
    norm,
    open_dataset,
    paired_difference,
    provenance,
    trained_params,
    write_atomically,
)

BASELINE = "maml"
ACROSS = 4
"""Planes side by side in the figure."""

TRACKED = Path(__file__).parent / "records" / "landscape"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "landscape.png"
LEVEL = 0.05
"""Holm's bound on the probability of any wrong verdict among all variants and measures."""

MEASURES = {
    "meta_eigenvalue": "leading eigenvalue, Hessian of F",
    "meta_trace": "trace, Hessian of F",
    "inner_eigenvalue": "leading eigenvalue, Hessian of R",
    "inner_trace": "trace, Hessian of R",
    "epsilon_sharpness": "Keskar's sharpness of F, %",
    "rise": "rise of F, random direction",
}
"""What "smooth" is taken to mean, and what the figure calls it: each is smaller where the landscape is smoother."""

Verdict = Literal["smoother", "less smooth", "not decided"]


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is measured; the same for all that are compared.

    episodes: training episodes 0, 1, ... of seed `episode_seed`, which no training saw. points: of the plane, a side.
    extent: the plane's half-width, in filter norms. directions, distance: random directions that the rise is a mean
    over, and how far it goes. eigenvalues, probes: of the spectrum. epsilon: of Keskar's box.
    """

    episodes: int = 8
    episode_seed: int = 220603996
    points: int = 21
    extent: float = 1.0
    directions: int = 16
    distance: float = 0.5
    eigenvalues: int = 3
    probes: int = 30
    epsilon: float = 1e-3


SMOKE = Settings(episodes=2, points=5, directions=2, eigenvalues=2, probes=3)


def measure(checkpoint: Path, data: Path, settings: Settings) -> dict[str, Any]:
    """All measures of one checkpoint.

    Args:
        checkpoint: A checkpoint of the trainer, of a variant of Sharp-MAML.
        data: What it was trained on.
        settings: How to measure.

    Returns:
        The measures, the plane, and what they were made from.

    Raises:
        CheckpointError: It is not a checkpoint of the trainer.
        ValueError: The data are not those that it was trained on.
    """
    began = time.perf_counter()
    loaded = load_checkpoint(checkpoint)
    if not {"config", "data", "provenance"} <= loaded.metadata.keys():
        raise CheckpointError(f"{checkpoint} is not a checkpoint of the trainer")
    config = Config.from_mapping(loaded.metadata["config"])
    dataset = open_dataset(data, size=config.image_size)
    if dataset.digest != loaded.metadata["data"]["digest"]:
        raise ValueError(f"{checkpoint} was trained on other data than {data}: name those that it was trained on")
    # `elementary`: a Hessian of the meta-loss is a third derivative
    model = network(config, channels=dataset.channels, form="elementary")
    params = trained_params(loaded, model.init(torch.Generator().manual_seed(config.seed)))
    protocol = Protocol(config.ways, config.shots, config.queries)
    episodes = [
        episode(dataset, "train", protocol, seed=settings.episode_seed, index=index, dtype=torch.float32)
        for index in range(settings.episodes)
    ]

    def loss(x: Params, batch: Batch) -> Tensor:
        return cross_entropy(model.logits(x, batch.inputs, None), batch.targets)

    def meta(x: Params) -> Tensor:
        return meta_loss(loss, x, episodes, beta_low=config.beta_low, steps=config.steps)

    def inner(x: Params) -> Tensor:
        return torch.stack([loss(x, task.support) for task in episodes]).mean()

    generator = torch.Generator().manual_seed(settings.episode_seed)
    plane = tuple(filter_normalised_direction(params, generator) for _ in range(2))
    coordinates = np.linspace(-settings.extent, settings.extent, settings.points).tolist()
    found: dict[str, Any] = {
        "plane": _rounded(loss_on_plane(meta, params, (plane[0], plane[1]), coordinates).tolist()),
        "coordinates": coordinates,
        "rise": _rise(meta, params, settings, generator),
        "epsilon_sharpness": epsilon_sharpness(meta, params, settings.epsilon),
        "parameter_norm": float(norm(params)),
    }
    for name, function in {"meta": meta, "inner": inner}.items():
        operator = hessian(function, params)
        with torch.no_grad():
            found[f"{name}_loss"] = float(function(params))
        found[f"{name}_eigenvalues"] = leading_eigenvalues(operator, settings.eigenvalues)
        found[f"{name}_eigenvalue"] = found[f"{name}_eigenvalues"][0]
        estimated = hessian_trace(operator, settings.probes)
        found[f"{name}_trace"], found[f"{name}_trace_estimate"] = estimated.mean, estimated.to_dict()
    return {
        **found,
        "settings": asdict(settings),
        "seed": config.seed,
        "step": loaded.metadata["progress"]["step"],
        "config_digest": config.digest,
        "data_digest": dataset.digest,
        "trained": loaded.metadata["provenance"],
        "measured": provenance(),
        "seconds": time.perf_counter() - began,
    }


def _rise(
    function: Callable[[Params], Tensor], params: Params, settings: Settings, generator: torch.Generator
) -> float:
    """Mean of f(x + r d) + f(x - r d) - 2 f(x), halved, over random filter-normalised directions d."""
    with torch.no_grad():
        here, rises = float(function(params)), []
        for _ in range(settings.directions):
            direction = filter_normalised_direction(params, generator)
            ends = [function(add_scaled(params, direction, sign * settings.distance)) for sign in (-1, 1)]
            rises.append(float(sum(ends)) / 2 - here)
    return float(np.mean(rises))


def decide(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each variant and measure, whether the landscape is smoother than MAML's.

    The difference of the measure is paired over training seeds: a t-test on each, Holm over all of them at 5 per cent.

    Args:
        cells: What `measure` found, with the `row` of each.

    Returns:
        A line a variant and measure: the paired difference with Student's interval, MAML's mean, the p-value and the
        verdict; one seed decides nothing.
    """
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {BASELINE: {}}
    for cell in cells:
        by_row.setdefault(cell["row"], {})[cell["seed"]] = cell
    lines: list[dict[str, Any]] = []
    for row in list(by_row)[1:]:
        seeds = sorted(by_row[row].keys() & by_row[BASELINE].keys())
        for name in MEASURES if seeds else ():
            mine, base = ([by_row[of][seed][name] for seed in seeds] for of in (row, BASELINE))
            test = ttest_1samp(np.subtract(mine, base), 0) if len(seeds) > 1 else None
            lines.append(
                {
                    "row": row,
                    "measure": name,
                    "difference": paired_difference(mine, base).to_dict(),
                    "maml": float(np.mean(base)),
                    "p": float(test.pvalue) if test is not None and math.isfinite(test.pvalue) else 1.0,
                }
            )
    decided = holm([line["p"] for line in lines], LEVEL) if lines else []
    for line, is_decided in zip(lines, decided, strict=True):
        smaller = line["difference"]["mean"] < 0
        verdict: Verdict = "not decided" if not is_decided else "smoother" if smaller else "less smooth"
        line["verdict"] = verdict
    return lines


def drawn(record: Mapping[str, Any]) -> Figure:
    """The planes of one seed side by side, same scale; below, the measures over those of MAML, a point a seed."""
    cells = record["cells"]
    rows = list(dict.fromkeys(cell["row"] for cell in cells))
    first = min(cell["seed"] for cell in cells)
    labels = {row: record["labels"][row] for row in rows}
    planes = {row: next(c for c in cells if c["row"] == row and c["seed"] == first) for row in rows}
    values = np.array([planes[row]["plane"] for row in rows])
    levels = np.geomspace(values.min(), values.max(), 18)
    colours = dict(zip(rows, sns.color_palette("colorblind"), strict=False))
    with sns.axes_style("ticks"):
        columns = min(len(rows), ACROSS)
        high = -(-len(rows) // columns)
        figure = Figure(figsize=(3.1 * columns, 3.2 + 3.4 * high), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.05 * high, 1))  # type: ignore[misc]
        grid = top.subplots(high, columns, sharex=True, sharey=True, squeeze=False)
        axes = grid.flat[: len(rows)]
        for axis in grid.flat[len(rows) :]:
            axis.set_axis_off()
        for axis, row in zip(axes, rows, strict=True):
            at = planes[row]["coordinates"]
            shown = axis.contourf(at, at, np.transpose(planes[row]["plane"]), levels=levels, cmap="viridis", norm="log")
            axis.contour(at, at, np.transpose(planes[row]["plane"]), levels=levels, colors="white", linewidths=0.4)
            axis.plot(0, 0, "+", color="white", markersize=9)
            axis.set(title="\n".join(textwrap.wrap(labels[row], 26)), xlabel="direction 1", aspect="equal")
        for axis in grid[:, 0]:
            axis.set_ylabel("direction 2, in filter norms")
        bar = top.colorbar(shown, ax=grid, shrink=0.9, format="%.2g", label="meta-loss F")
        bar.set_ticks(levels[::4].tolist())
        bar.minorticks_off()
        below = bottom.subplots(1, len(MEASURES), squeeze=False)[0]
        verdicts = {(line["row"], line["measure"]): line["verdict"] for line in record["decisions"]}
        signs = {"smoother": "▼", "less smooth": "▲", "not decided": "?"}
        for axis, (name, title) in zip(below, MEASURES.items(), strict=True):
            for place, row in enumerate(rows):
                mine = [cell[name] for cell in sorted(cells, key=lambda cell: cell["seed"]) if cell["row"] == row]
                axis.plot([place] * len(mine), mine, "o", color=colours[row], alpha=0.5, markersize=4)
                axis.plot([place - 0.3, place + 0.3], [np.mean(mine)] * 2, color=colours[row], linewidth=2)
                if (row, name) in verdicts:
                    mark = signs[verdicts[row, name]]
                    axis.annotate(mark, (place, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=9)
            axis.set_xticks(range(len(rows)), rows, rotation=60)
            axis.set_xlim(-0.6, len(rows) - 0.4)
            axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
            axis.set_title(title.replace(", ", "\n", 1), fontsize=9, pad=14)
        sns.despine(fig=bottom)
    return figure


def terminal(record: Mapping[str, Any]) -> RichTable:
    """The decisions as a table."""
    table = RichTable(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for header in ("variant", "measure", "MAML", "difference \\[95%]", "p", "smoother\nthan MAML?"):
        is_number = header[:1] in "Mdp"
        table.add_column(header, justify="right" if is_number else "left", no_wrap=header != "measure", overflow="fold")
    for line in record["decisions"]:
        difference = Estimate.from_dict(line["difference"])
        table.add_row(
            line["row"],
            MEASURES[line["measure"]],
            f"{line['maml']:.4g}",
            escape(f"{difference.mean:+.3g} [{difference.low:.3g}, {difference.high:.3g}]"),
            f"{line['p']:.2g}",
            line["verdict"],
        )
    return table


def read(path: Path) -> dict[str, Any]:
    """A record that `main` wrote.

    Raises:
        FileNotFoundError: It is not there; the message names the command that makes it.
    """
    return read_study(path, f"make landscape TIER={path.stem}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    tables, tiers = load()
    parser = argparse.ArgumentParser(prog="python -m reproductions.landscape", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tier", default="demo", choices=sorted(tiers), help="whose checkpoints; default: demo")
    parser.add_argument("--data", type=Path, help="directory of miniImageNet, for the tiers cpu and paper")
    parser.add_argument("--seeds", type=int, help="training seeds of every row; default: the table's")
    parser.add_argument("--jobs", type=int, default=2, help="checkpoints that are measured at a time; default: 2")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where runs lie; default: results")
    parser.add_argument("--tracked", action="store_true", help="draw the tracked record's figure, measure nothing")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    tier = tiers[options.tier]
    table = tables["landscape" if "landscape" in tier.tables else tier.tables[0]]
    try:
        if options.tracked:
            record, path, figure = read(TRACKED / f"{tier.name}.json"), TRACKED / f"{tier.name}.json", FIGURE
        else:
            for name in ("seeds", "jobs"):
                if (value := getattr(options, name)) is not None and value < 1:
                    raise TableError(f"--{name} must be >= 1, got {value}")
            every = cells_of(table, tier, seeds=options.seeds)
            cells = [cell for cell in every if cell.config.method == "sharp-maml"]
            settings = SMOKE if tier.name == "smoke" else Settings()
            data = prepare_data(tier, options.data, options.results)
            record = {
                "schema": 1,
                **provenance(),
                "tier": tier.name,
                "labels": {cell.row.name: cell.row.label for cell in cells},
                "settings": asdict(settings),
                "cells": _measured(cells, data, options.results, settings, options.jobs, console),
            }
            record["decisions"] = decide(record["cells"])
            path = options.results / "landscape" / f"{tier.name}.json"
            write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
            figure = path.with_suffix(".png")
        figure.parent.mkdir(parents=True, exist_ok=True)
        drawn(record).savefig(figure, dpi=150, metadata={"Software": None})
        console.print(terminal(record))
        console.print(f"record: {path}, figure: {figure}")
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept: the same command goes on from there")
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measured(
    cells: Sequence[Cell], data: Path, results: Path, settings: Settings, jobs: int, console: Console
) -> list[dict[str, Any]]:
    """What `measure` finds of each cell's best checkpoint; what was found before, by the same settings, is read."""
    found: dict[Path, dict[str, Any]] = {}
    for cell in cells:
        path = cell.directory(results)
        if not (path / "best.safetensors").exists():
            raise FileNotFoundError(
                f"{path / 'best.safetensors'} is missing; train it with: make reproduce-table1 "
                f"TABLE={cell.table.name} TIER={cell.tier.name} SEEDS={len({cell.seed for cell in cells})}"
            )
        if (path / "landscape.json").exists():
            before = json.loads((path / "landscape.json").read_text(encoding="utf-8"))
            if before["settings"] == asdict(settings) and before["config_digest"] == cell.config.digest:
                found[path] = before
    waiting = [cell.directory(results) for cell in cells if cell.directory(results) not in found]
    if waiting:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_process) as pool:
            futures = {path: pool.submit(measure, path / "best.safetensors", data, settings) for path in waiting}
            try:
                for done, (path, future) in enumerate(futures.items(), 1):
                    found[path] = future.result()
                    write_atomically(path / "landscape.json", (json.dumps(found[path]) + "\n").encode())
                    console.print(f"{path}: {found[path]['seconds']:.0f} s, {done} of {len(waiting)} measured")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
    return [{"row": cell.row.name, **found[cell.directory(results)]} for cell in cells]


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops them
    torch.set_num_threads(1)
    keep_freed_memory()


def _rounded(values: Any) -> Any:
    """Five significant digits, for files."""
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.5g}")


if __name__ == "__main__":
    sys.exit(main())
