"""Lemma 1 on networks: certified counts of stationary points. `python -m theory.networks.counts [--output DIR]`.

Networks are layers of tanh neurons with two to four parameters and fixed output weights, on tasks of two support and
two query samples with rational data; the objective is the query loss after one gradient step on the support loss, with
weight decay on the meta-parameters, and ERM's is the query loss with the same decay. Every stationary point lies in a
ball whose radius is known, so that a count is of the whole space: interval Newton encloses each point, excludes all
else, and the signs of the indices add up to 1, as they must. What it cannot decide within its number of boxes is
undetermined, and not counted.

L1 is an upper bound of the curvature of the support losses anywhere, so that beta L1 = 2 may still be a step that
folds nothing. The search is by Newton from random starts, on the package's `meta_loss`: what it finds must lie in the
certified boxes, and what it does not find shows nothing. The second table is a search alone: how many negative
eigenvalues the stationary points have that Newton finds on larger networks with trained output weights. A search is
not a count: points with small basins are missed, and where a share is large there may be many points or large basins.

Writes a record, a figure and a page. Read next: `neurons.py`, `boxes.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction as Q
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure

from sharp_maml import Result, provenance
from sharp_maml.paper import say
from theory.check.figures import MARKERS
from theory.check.verdicts import commit_of, write_page
from theory.networks.boxes import Count, problems, stationary
from theory.networks.neurons import SHAPES
from theory.networks.search import ROUNDING, Sines, found_in

SAMPLES = 2
RATIOS = {2: (Q(0), Q(1, 2), Q(2), Q(8)), 3: (Q(0), Q(1, 2), Q(2)), 4: (Q(0), Q(1, 2))}
"""beta L1 by number of parameters; 0 is ERM."""
INSTANCES = {2: 5, 3: 2, 4: 1}
TASKS = {2: (1, 2, 3), 3: (1, 2, 3), 4: (1, 2)}


@dataclass(frozen=True)
class Settings:
    """How much is done.

    Attributes:
        share: Share of the instances above, at least one per cell.
        starts: Starts of the search, for every instance.
        index_starts: Starts of the search on larger networks.
        seed: Seed of tasks and starts.
    """

    share: float = 1.0
    starts: int = 64
    index_starts: int = 1000
    seed: int = 220603997


def cells() -> list[dict[str, Any]]:
    """What is counted together: a network, number of tasks, whether support and query agree, and beta L1.

    ERM does not know of support samples, and stands once.
    """
    return [
        {"shape": shape, "tasks": tasks, "shared": shared, "ratio": ratio}
        for shape in SHAPES
        for tasks, shared, ratio in product(TASKS[shape.dim], (True, False), RATIOS[shape.dim])
        if ratio or shared
    ]


def measured(cell: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The instances of a cell: counts, and what the search found."""
    shape, began = cell["shape"], time.process_time()
    count = max(1, round(settings.share * INSTANCES[shape.dim]))
    families = shape.families(settings.seed, count, tasks=cell["tasks"], samples=SAMPLES, shared=cell["shared"])
    these = problems(families, cell["ratio"])
    counts = stationary(these)
    seconds = time.process_time() - began
    found = found_in(these, starts=settings.starts, seed=settings.seed)
    instances = [entry(one, of_search.points) for one, of_search in zip(counts, found, strict=True)]
    return {
        **cell, "shape": shape.name, "dim": shape.dim, "ratio": str(cell["ratio"]), "instances": instances,
        "seconds": seconds,
    }  # fmt: skip


def entry(count: Count, found: np.ndarray[Any, Any]) -> dict[str, Any]:
    """An instance of the record."""
    inside = sum(count.is_near(point, ROUNDING) for point in found)
    return {
        "points": len(count.zeros),
        "minima": count.minima,
        "certified": count.certified,
        "undetermined": list(count.undetermined),
        "boxes": count.boxes,
        "found": len(found),
        "outside": len(found) - inside,
    }


def index_distribution(settings: Settings) -> list[dict[str, Any]]:
    """The indices of one set of three tasks: ERM and MAML with short and long inner steps."""
    sines = Sines(tasks=3, seed=settings.seed)
    return [
        {"beta": beta, **sines.indices(beta, starts=settings.index_starts, seed=settings.seed)}
        for beta in (0.0, 0.05, 0.2)
    ]


def paired(record: Mapping[str, Any]) -> dict[tuple[str, int, bool, str], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Instances of MAML with those of ERM on the same query samples, by network, tasks, shared, and beta L1."""
    erm = {(cell["shape"], cell["tasks"]): cell["instances"] for cell in record["cells"] if cell["ratio"] == "0"}
    return {
        (cell["shape"], cell["tasks"], cell["shared"], cell["ratio"]): list(
            zip(cell["instances"], erm[cell["shape"], cell["tasks"]], strict=True)
        )
        for cell in record["cells"]
        if cell["ratio"] != "0"
    }


def tally(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], what: str) -> dict[str, int]:
    """In how many pairs MAML has fewer, as many and more `points` or `minima`; the rest is not certified."""
    found = Counter(
        ("as many", "more", "fewer")[int(np.sign(maml[what] - erm[what]))] if maml["certified"] and erm["certified"]
        else "undetermined"
        for maml, erm in pairs
    )  # fmt: skip
    return {name: found[name] for name in ("fewer", "as many", "more", "undetermined")}


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    record = result.payload
    _, first, second, *_ = (" ".join(part.split()) for part in (__doc__ or "").split("\n\n"))
    instances = [(cell, one) for cell in record["cells"] for one in cell["instances"]]
    certified = [one for _, one in instances if one["certified"]]
    lines = [
        "# Stationary points of networks, counted",
        "",
        first,
        "",
        second,
        "",
        f"{len(instances)} instances, of which {len(certified)} are certified and {len(instances) - len(certified)} "
        f"undetermined; {commit_of(result.provenance)}. The search found {sum(one['found'] for one in certified)} of "
        f"the {sum(one['points'] for one in certified)} certified points, more than were certified in "
        f"{sum(one['found'] > one['points'] for one in certified)} instances, and "
        f"{sum(one['outside'] for one in certified)} points outside of the certified boxes.",
        "",
        *([result.caveat, ""] if result.caveat else []),
        "## MAML against ERM",
        "",
        "In how many instances MAML has fewer, as many and more stationary points than ERM, and the same of minima; "
        "*mean* is that of the certified instances.",
        "",
        "| network | M | support = query | beta L1 | points: mean MAML / ERM | fewer | as many | more | minima: "
        "fewer | as many | more | undetermined |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (shape, tasks, shared, ratio), pairs in paired(record).items():
        known = [pair for pair in pairs if all(one["certified"] for one in pair)]
        means = " / ".join(f"{np.mean([pair[i]['points'] for pair in known]):.3g}" for i in (0, 1)) if known else ""
        points, minima = tally(pairs, "points"), tally(pairs, "minima")
        numbers = [points[name] for name in ("fewer", "as many", "more")]
        numbers += [minima[name] for name in ("fewer", "as many", "more", "undetermined")]
        lines.append(
            f"| {shape} | {tasks} | {'yes' if shared else 'no'} | {ratio} | {means} | {' | '.join(map(str, numbers))} |"
        )
    left = [(cell, reason) for cell, one in instances for reason in one["undetermined"]]
    lines += ["", "## Undetermined", ""]
    lines += [
        f"- {cell['shape']}, M = {cell['tasks']}, support {'=' if cell['shared'] else 'not'} query, beta L1 = "
        f"{cell['ratio']}: {reason}"
        for cell, reason in left
    ] or ["Nothing."]
    lines += [
        "",
        "## Indices, by a search",
        "",
        "One hidden layer of three tanh neurons with ten trained parameters on three tasks (sines). *Ended* are the "
        "starts from which Newton's method ended at a stationary point; of these, by the number of negative "
        "eigenvalues of the Hessian: how many, and in brackets how many different values of the objective they have. A "
        "search is not a count, and Newton's method prefers no index.",
        "",
        "| beta | starts | ended | by index: starts (different values) |",
        "|---|---|---|---|",
    ]
    for row in record["indices"]:
        by_index = ", ".join(f"{i}: {n} ({row['distinct'][i]})" for i, n in row["by_index"].items())
        lines.append(f"| {row['beta'] or '0 (ERM)'} | {row['starts']} | {row['ended']} | {by_index} |")
    return "\n".join([*lines, "", "![counts and indices](counts.png)", "", f"[Record]({link}).", ""])


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    of_ratio: dict[str, Counter[str]] = {}
    for key, pairs in paired(record).items():
        of_ratio.setdefault(key[-1], Counter()).update(tally(pairs, "points"))
    shares = [
        f"{found['more']} of {found['fewer'] + found['as many'] + found['more']} networks at beta L1 = {ratio}"
        for ratio, found in of_ratio.items()
    ]
    return f"MAML has more stationary points than ERM on {', '.join(shares)}."


def draw(record: Mapping[str, Any]) -> Figure:
    """Differences of the counts against beta L1, and the indices found."""
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, shape in enumerate(dict.fromkeys(cell["shape"] for cell in record["cells"])):
            known = [
                (float(Q(key[-1])), maml["points"] - erm["points"])
                for key, pairs in paired(record).items()
                for maml, erm in pairs
                if key[0] == shape and maml["certified"] and erm["certified"]
            ]
            at = Counter(known)
            x, y = (np.array([pair[i] for pair in at]) for i in (0, 1))
            sizes = [4.0 * n for n in at.values()]
            left.scatter(x * 1.06 ** (place - 2), y, sizes, color=f"C{place}", marker=MARKERS[place], label=shape)
        left.axhline(0, color="black", ls="--", lw=0.8)
        left.set(xscale="log", xlabel="beta L1", ylabel="points of MAML less those of ERM")
        left.set_xticks([0.5, 2, 8], ["1/2", "2", "8"], minor=False)
        left.set_xticks([], minor=True)
        for place, row in enumerate(record["indices"]):
            share = {int(i): n / row["ended"] for i, n in row["by_index"].items()}
            right.plot(list(share), list(share.values()), marker=MARKERS[place], label=f"beta = {row['beta']:g}")
        right.set(xlabel="negative eigenvalues", ylabel="share of the starts that ended")
        right.legend()
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        say(figure, says(record))
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.networks.counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Settings()
    parser.add_argument("--share", type=float, default=defaults.share, help="of the instances (default %(default)s)")
    parser.add_argument(
        "--index-starts", type=int, default=defaults.index_starts, help="of the index search (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    settings = Settings(share=options.share, index_starts=options.index_starts)
    torch.set_num_threads(1)
    origin, began = provenance(module="theory.networks.counts"), time.process_time()
    found = []
    for cell in cells():
        found.append(measured(cell, settings))
        known = sum(one["certified"] for one in found[-1]["instances"])
        name = f"{found[-1]['shape']}, M = {cell['tasks']}, shared {cell['shared']}, beta L1 = {cell['ratio']}"
        print(f"{name}: {known} of {len(found[-1]['instances'])}, {found[-1]['seconds']:.1f} s", flush=True)
    payload = {
        "settings": asdict(settings), "cells": found, "indices": index_distribution(settings),
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip
    write_page(Result("counts", origin, payload), options.output, draw=draw, page=table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
