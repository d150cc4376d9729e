"""Does the rate hold on a network? `python -m theory.networks.rate [--data DIR]`.

A small network of tanh learns few-shot tasks of images by steps of the core's meta-gradient along minibatches, with the
prescribed step sizes and radii, for MAML and Sharp-MAML up, low and both. What is averaged is the squared norm of the
gradient of the full meta-loss over a fixed set of tasks, exact at every step, so that an average has no error but that
of its seeds. Every seed has a start and samples of its own.

The bound is the theorem's with constants measured at points of a noise-free descent, the largest found; the constants
that hold everywhere are no smaller. So an average below this bound shows that nothing was refuted, and one above it
would show a constant to be too small. A longer descent may meet larger ones, and the bound then falls more slowly than
the theorem's with constants that hold everywhere. The infimum of the meta-loss is taken as 0, which it is at least.
Steps were chosen such that beta_up L_F is below 1 at the smallest horizon, and features such that the loss is about as
curved in all directions: otherwise short runs end before the descent does, and their slope is that of its beginning.

A horizon is measured once: the same command goes on where it was cut off. Writes a record, a figure and a table. Read
next: `embedded.py`, what is measured; `theory/rate/theorem.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure

from sharp_maml import (
    DataError,
    Dataset,
    Result,
    keep_freed_memory,
    open_dataset,
    provenance,
    sources,
    write_atomically,
)
from sharp_maml.paper import COLUMN, say
from theory.check.claim import Item
from theory.check.figures import MARKERS
from theory.check.verdicts import commit_of, write_page
from theory.networks.embedded import PRESCRIBED, Settings, Tasks, measured
from theory.rate.exponents import slope
from theory.runner import horizons

IMAGES = Path("results/data/synthetic-images-16-100")
"""Where the demo tier of the table leaves its images."""
MEASURED_BY = "theory.networks.embedded"
PREDICTED = -0.5
LEVEL = 0.05
"""Level of intervals over seeds."""
LAST = 3
"""Horizons whose slope is given apart."""


def averages(record: Mapping[str, Any], variant: str) -> np.ndarray:
    """The averages of a variant, `H x S`."""
    return np.array([one["averages"][variant] for one in record["horizons"]])


def slopes(record: Mapping[str, Any], variant: str) -> tuple[Item, Item]:
    """The slope of a variant over all horizons, and over the last of them."""
    T, values = [one["T"] for one in record["horizons"]], averages(record, variant)
    first, last = (slope(variant, T[k:], values[k:], predicted=PREDICTED) for k in (0, -LAST))
    return first, last


def shares(record: Mapping[str, Any], variant: str) -> list[float | None]:
    """Mean average over bound at every horizon; None where the step is longer than the theorem allows."""
    means = averages(record, variant).mean(1)
    bounds = [one["bounds"][variant] for one in record["horizons"]]
    return [None if bound is None else float(mean / bound) for mean, bound in zip(means, bounds, strict=True)]


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    record = result.payload
    first, second = (" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:3])
    settings, every = record["settings"], record["horizons"]
    names = [schedule.name for schedule in PRESCRIBED]

    def interval(item: Item) -> str:
        low, high = item.interval(LEVEL)
        return f"{item.measured:.3f} [{low:.3f}, {high:.3f}]"

    lines = [
        "# The rate on a network",
        "",
        first,
        "",
        second,
        "",
        f"{settings['tasks']} tasks of {settings['ways']} classes with {settings['pool']} support and as many query "
        f"images each; {settings['features']} numbers an image, {settings['hidden']} hidden units; {settings['seeds']} "
        f"seeds; {commit_of(result.provenance)}. Intervals are Student's with the bootstrap's standard error over "
        "seeds, 95 per cent.",
        *(["", result.caveat] if result.caveat else []),
        "",
        f"The theorem's slope is {PREDICTED}, that of its leading term.",
        "",
        f"| variant | slope | slope of the last {LAST} horizons | "
        + " | ".join(f"average / bound, T = {one['T']}" for one in every)
        + " |",
        "|---|---|---|" + "---|" * len(every),
    ]
    for name in names:
        ratios = ["step too long" if share is None else f"{share:.3g}" for share in shares(record, name)]
        lines.append(f"| {name} | {' | '.join(map(interval, slopes(record, name)))} | {' | '.join(ratios)} |")
    lines += [
        "",
        "![averages against the horizon](network-rate.png)",
        "",
        "*Averages with two standard errors, and the bound with measured constants, dashed.*",
        "",
        "## Constants",
        "",
        "The largest over tasks and points; sH is a proxy. Delta is the mean of F(x_0) over seeds.",
        "",
        "| T | beta_up L_F | Delta | L0 | L1 | L2 | Lq | sg | sH | sq | norm of grad F at the end of the descent |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in every:
        numbers = [one["step"], one["Delta"], *one["constants"].values(), one["gradients"][-1]]
        lines.append(f"| {one['T']} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
    return "\n".join([*lines, "", f"[Record]({link}).", ""])


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    names = [schedule.name for schedule in PRESCRIBED]
    every = [item.measured for name in names for item in slopes(record, name)[:1]]
    known = [share for name in names for share in shares(record, name) if share is not None]
    beside = (
        f"is {min(known):.2g} to {max(known):.2g} of the bound" if known else "no step is short enough for the bound"
    )
    return (
        f"On a network the average falls with slopes of {min(every):.2f} to {max(every):.2f} (bound: {PREDICTED:g}), "
        f"and {beside}."
    )


def draw(record: Mapping[str, Any]) -> Figure:
    """Averages and bounds against the horizon."""
    T = [one["T"] for one in record["horizons"]]
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(COLUMN, 2.9), layout="constrained")
        axes = figure.subplots()
        for place, schedule in enumerate(PRESCRIBED):
            values = averages(record, schedule.name)
            half = 2 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
            marker = MARKERS[place]
            axes.errorbar(T, values.mean(1), half, label=schedule.name, color=f"C{place}", marker=marker, capsize=2)
            bounds = [one["bounds"][schedule.name] for one in record["horizons"]]
            axes.plot(T, [np.nan if bound is None else bound for bound in bounds], "--", color=f"C{place}")
        anchor = averages(record, PRESCRIBED[0].name).mean(1)[-1]
        axes.plot(T, anchor * (np.array(T) / T[-1]) ** PREDICTED, ":", color="black", label="slope -1/2")
        axes.set(yscale="log", xlabel="T", ylabel=r"$(1/T)\,\sum_t |\nabla F(x_t)|^2$")
        axes.set_xscale("log", base=2)
        figure.legend(loc="outside lower center", ncols=3)
        say(figure, says(record))
    return figure


def measure(dataset: Dataset, settings: Settings, kept: Path) -> list[dict[str, Any]]:
    """Every horizon of the settings; what was measured before is read.

    Args:
        dataset: The images.
        settings: Tasks, network and runs.
        kept: Folder of what was measured, a file a horizon.

    Returns:
        The horizons of the record.

    Raises:
        ValueError: The images are too few for the tasks.
    """
    tasks, code, found = Tasks.embedded(dataset, settings), sources(MEASURED_BY), []
    for T in horizons(settings.largest, settings.smallest):
        # a horizon does not depend on how many there are
        identity = {"T": T, "settings": {**asdict(settings), "largest": None}, "data": dataset.digest, "sources": code}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        place = kept / f"{digest}.json"
        if not place.exists():
            began = time.process_time()
            values = measured(tasks, T, settings)
            write_atomically(place, json.dumps({**values, "seconds": time.process_time() - began}).encode())
            print(f"T = {T}: {time.process_time() - began:.0f} s", flush=True)
        found.append(json.loads(place.read_text(encoding="utf-8")))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.networks.rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Settings()
    parser.add_argument("--data", type=Path, default=IMAGES, help="images (default %(default)s)")
    for name, meaning in {
        "seeds": "independent runs",
        "smallest": "logarithm to the base 2 of the smallest horizon",
        "largest": "of the largest",
        "pool": "support images of a class, and as many query images",
    }.items():
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default {default})")
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default results/theory)")
    options = parser.parse_args(arguments)
    try:
        settings = Settings(seeds=options.seeds, smallest=options.smallest, largest=options.largest, pool=options.pool)
        torch.set_num_threads(1)
        keep_freed_memory()
        origin = provenance(module=MEASURED_BY)  # the code may change meanwhile
        dataset = open_dataset(options.data, size=None)
        found = measure(dataset, settings, options.output / "network-rate")
        payload = {"settings": asdict(settings), "data_digest": dataset.digest, "horizons": found}
        write_page(Result("network-rate", origin, payload), options.output, draw=draw, page=table)
    except KeyboardInterrupt:
        print("stopped; what was measured is kept: the same command goes on from there")
        return 130
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
