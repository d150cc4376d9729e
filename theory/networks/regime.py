"""Is the rate's theorem about what is trained? `python -m theory.networks.regime CHECKPOINT ... [--data DIR]`.

The constants, steps and radii that the theorem speaks of are measured at conv4 networks: as they began, and as a
checkpoint has them. Tasks are fixed episodes of the validation classes, with samples drawn anew from the same classes;
the support loss of a task is the mean over support sets of the episode's size, so that a set is a sample of it with
batch norm and all. Everything is in float64.

A measurement at a point refutes a constant that it exceeds, and a step that is too long for the curvature found there.
That a bound or an assumption holds everywhere it cannot show: a ratio of at most 1 means *not refuted here*. Constants
are those of the losses of single samples, the largest over tasks; elsewhere they may be larger, and those of the
expected losses may be smaller. ReLU and max-pooling have kinks, so that neither gradient nor Hessian of such a network
is Lipschitz on all of the space; the quotients say whether that is felt at the length of the steps taken. The theorem's
update is a multiple of the meta-gradient, which Adam's is not: for a network trained by Adam, eta L_F is that of a
plain step of the same eta, the largest of its schedule. An order such as O(1/sqrt T) is neither true nor false at a
single T: what is given is the constant in front of it.

A network is measured once: the same command goes on where it was cut off. Writes a record, a figure and a table. Read
next: `local.py`, `theory/rate/theorem.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy

from sharp_maml import (
    Batch,
    Checkpoint,
    CheckpointError,
    Config,
    DataError,
    Episode,
    Estimate,
    Model,
    Params,
    Protocol,
    Result,
    episode,
    interval_over_seeds,
    keep_freed_memory,
    load_checkpoint,
    meta_gradient,
    norm,
    open_dataset,
    provenance,
    sources,
    trained_params,
    write_atomically,
)
from sharp_maml import (
    network as network_of,
)
from synthetic import Constants
from theory.check.verdicts import commit_of, write_page
from theory.networks.local import SCALES, of_task, of_tasks
from theory.rate.theorem import bias, evaluate, rate, smoothness, variance_fresh, variance_shared

SPLIT = "validation"
IMAGES = Path("results/data/synthetic-images-16-100")
"""Where the demo tier of the table leaves its images."""
INITIAL = "initial"
"""The state of a network before its training."""

QUESTIONS = {
    "step": ("eta L_F", "assumed: a step of at most 1/L_F"),
    "fold": ("beta times the largest inner eigenvalue", "not assumed; above 1 an inner step folds space (Lemma 1)"),
    "L1": (
        "gradient: quotient / abs. eigenvalue",
        "A1: the quotients along a step do not exceed the curvature at its start",
    ),
    "L2": ("Hessian: quotient at step/100 / at step", "A1: a Lipschitz constant does not depend on the length"),
    "smoothness": ("L_F / (kappa^2 Lq + beta L2 L0)", "the formula for L_F"),
    "bias": ("bias / b", "the formula for the bias of the meta-gradient"),
    "informative": ("b / norm of grad F", "above 1 the theorem allows a bias as large as the gradient"),
    "bound": ("G / norm of grad F", "at the longest step allowed; above 1 the rate says nothing here"),
}
"""Ratios of which at most 1 agrees with the theorem: what each is called, and what it is about."""


@dataclass(frozen=True)
class Settings:
    """How a network is measured; the same for all.

    Attributes:
        meta_batches: Sets of as many tasks as an update has; of the first task of each come the constants of a task.
        samples: Support and query sets of every task, in two halves; even, at least 4.
        seed: Seed of tasks and samples.
    """

    meta_batches: int = 4
    samples: int = 8
    seed: int = 220603997

    def __post_init__(self) -> None:
        if self.meta_batches < 1:
            raise ValueError(f"meta_batches must be >= 1, got {self.meta_batches}")
        if self.samples < 4 or self.samples % 2:
            raise ValueError(f"samples must be even and >= 4, got {self.samples}")


class Network:
    """A checkpoint of the trainer, and the tasks at which it is measured.

    Args:
        path: The checkpoint.
        data: The data that it was trained on.

    Raises:
        CheckpointError: It is not a checkpoint of the trainer.
        DataError, ValueError: The data are not those that it was trained on, or the theorem is not about it.
    """

    def __init__(self, path: Path, data: Path) -> None:
        self.checkpoint = load_checkpoint(path)
        self.config = config = config_of(path, self.checkpoint)
        self.dataset = dataset = open_dataset(data, size=config.image_size)
        if dataset.digest != self.checkpoint.metadata["data"]["digest"]:
            raise ValueError(f"{path} was trained on other data than {data}: name those that it was trained on")
        # `elementary`: a Hessian of the meta-loss is a third derivative
        self.model: Model = network_of(config, channels=dataset.channels, form="elementary")
        start = self.model.init(torch.Generator().manual_seed(config.seed))
        self.states = {
            INITIAL: {name: value.double() for name, value in start.items()},
            path.stem: {name: value.double() for name, value in trained_params(self.checkpoint, start).items()},
        }
        exact = partial(
            meta_gradient, self.loss, beta_low=config.beta_low, steps=config.steps, query_loss=self.query_loss
        )
        self.exact = exact
        self.algorithm = partial(
            exact, alpha_low=config.alpha_low, alpha_up=config.alpha_up, perturbation=config.perturbation
        )

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Cross-entropy, the mean over the samples of a batch."""
        pairs = zip(*batch, strict=True)
        return torch.stack([cross_entropy(self.model.logits(params, x, None), y) for x, y in pairs]).mean()

    def query_loss(self, params: Params, task: Episode) -> Tensor:
        """Cross-entropy of the queries, normalised as in the training; the mean over samples."""
        if self.config.batch_norm == "transductive":
            return self.loss(params, task.query)
        triples = zip(*task.query, task.support.inputs, strict=True)
        return torch.stack([cross_entropy(self.model.logits(params, x, c), y) for x, y, c in triples]).mean()

    def task(self, index: int, settings: Settings) -> Episode:
        """The classes of a validation episode with samples of support and query images, `samples x n x ...`."""
        config = self.config
        ways, shots, queries = config.ways, config.shots, config.queries
        images = int(min(self.dataset.splits[SPLIT].counts))
        protocol = Protocol(ways, images - 1, 1)
        whole = episode(self.dataset, SPLIT, protocol, seed=settings.seed, index=index, dtype=torch.float64)
        of_class = torch.cat([half.inputs.reshape(ways, -1, *half.inputs.shape[1:]) for half in whole], 1)
        generator = torch.Generator().manual_seed(settings.seed + index)
        rows = torch.rand(settings.samples, ways, images, generator=generator).argsort(-1)[..., : shots + queries]
        drawn = of_class[torch.arange(ways)[:, None], rows]
        labels = torch.arange(ways).expand(settings.samples, ways)
        return Episode(
            Batch(drawn[:, :, :shots].flatten(1, 2), labels.repeat_interleave(shots, 1)),
            Batch(drawn[:, :, shots:].flatten(1, 2), labels.repeat_interleave(queries, 1)),
        )

    def measured(self, state: str, settings: Settings, description: str = "") -> dict[str, Any]:
        """The constants at one of the states: of the tasks, of the meta-batches, and the norm of the parameters."""
        params, size = self.states[state], self.config.meta_batch
        inner: dict[str, Any] = {"beta_low": self.config.beta_low, "steps": self.config.steps}
        tasks, meta_batches = [], []
        batches = range(settings.meta_batches)
        for b in track(batches, description=description, transient=True, disable=not sys.stderr.isatty()):
            drawn = [self.task(size * b + m, settings) for m in range(size)]
            tasks.append(of_task(self.loss, self.query_loss, params, drawn[0], seed=settings.seed + b, **inner))
            meta_batches.append(
                of_tasks(self.loss, self.query_loss, self.algorithm, self.exact, params, drawn, **inner)
            )
        return {"parameter_norm": float(norm(params)), "tasks": tasks, "meta_batches": meta_batches}


def config_of(path: Path, checkpoint: Checkpoint) -> Config:
    """The configuration of a checkpoint whose algorithm is the theorem's, up to the optimizer and inner steps.

    Args:
        path: Where it lies, for messages.
        checkpoint: The checkpoint.

    Returns:
        The configuration.

    Raises:
        CheckpointError: It is not a checkpoint of the trainer.
        ValueError: It was trained by an algorithm of which the theorem does not speak.
    """
    if not {"config", "data", "provenance", "progress"} <= checkpoint.metadata.keys():
        raise CheckpointError(f"{path} is not a checkpoint of the trainer: name one, such as best.safetensors")
    config = Config.from_mapping(checkpoint.metadata["config"])
    box = {"method": "sharp-maml", "inner_params": "all", "first_order": False, "ascent": "gradient", "ascent_every": 1}
    for name, value in box.items():
        if (found := getattr(config, name)) != value:
            raise ValueError(f"{path} has {name} = {found!r}, of which the theorem does not speak: it needs {value!r}")
    return config


def average(values: Sequence[float]) -> Estimate:
    """A mean over tasks or meta-batches with Student's 95 per cent interval."""
    return interval_over_seeds(list(values))


def quotient(found: Mapping[str, Any], constant: str, scale: float) -> float:
    """The largest quotient of a network at a scale, over tasks and both directions."""
    return max(
        float(task[f"{constant} {name} {scale:g}"]) for task in found["tasks"] for name in ("gradient", "random")
    )


def constants(found: Mapping[str, Any]) -> Constants:
    """The theorem's constants as measured, the largest over tasks; L2 is that along the inner step."""
    largest = {name: max(task[name] for task in found["tasks"]) for name in ("L0", "L1", "Lq", "sg", "sH", "sq")}
    return Constants(L2=quotient(found, "L2", 1.0), **largest)


def root(squares: Sequence[float]) -> tuple[float, float, float]:
    """Root of the mean of estimated squares, which may be negative, and of its interval's ends; 0 for negative ones."""
    of = average(squares)
    mean, low, high = (math.sqrt(max(value, 0.0)) for value in (of.mean, of.low, of.high))
    return mean, low, high


def ratios(found: Mapping[str, Any]) -> dict[str, float | None]:
    """For each question, what was measured over what the theorem asks; at most 1 agrees with it.

    Args:
        found: A network of the record.

    Returns:
        The ratios by question; None for formulas of one inner step where there are several, and for a share of the
        gradient whose square was estimated as negative.
    """
    config, known = found["config"], constants(found)
    beta, eta = config["beta_low"], config["beta_up"]
    largest = max(batch["L_F"] for batch in found["meta_batches"])
    ratio: dict[str, float | None] = dict.fromkeys(QUESTIONS)
    ratio["step"], ratio["fold"] = eta * largest, beta * max(task["high"] for task in found["tasks"])
    ratio["L1"] = max(quotient(found, "L1", scale) for scale in SCALES) / known.L1
    ratio["L2"] = quotient(found, "L2", SCALES[-1]) / known.L2
    if config["steps"] != 1:
        return ratio
    slope, _, _ = root([batch["slope^2"] for batch in found["meta_batches"]])
    values = {"beta": beta, "alpha_up": config["alpha_up"], "alpha_low": config["alpha_low"]}
    formula = evaluate(smoothness, known, beta=beta)
    bound = evaluate(bias, known, **values)
    # cross-entropy is not negative, so that F itself is at least F - inf F
    values |= {
        "Delta": average([batch["loss"] for batch in found["meta_batches"]]).mean,
        "M": config["meta_batch"],
        "T": config["iterations"],
        "eta": min(eta, 1 / formula),
    }
    is_perturbed = config["alpha_up"] > 0 or config["alpha_low"] > 0
    square = evaluate(rate(variance_shared if is_perturbed else variance_fresh), known, **values)
    ratio["smoothness"] = largest / formula
    ratio["bias"] = root([batch["bias^2"] for batch in found["meta_batches"]])[0] / bound
    if slope > 0:
        ratio["informative"], ratio["bound"] = bound / slope, math.sqrt(square) / slope
    return ratio


def groups(record: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The networks by row and state: those that differ by the training seed alone."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for network in record["networks"]:
        found.setdefault(f"{network['row']}, {network['state']}", []).append(network)
    return found


def shown(values: Sequence[float]) -> str:
    """The range of a ratio over seeds, bold where any exceeds 1."""
    if not values:
        return "unknown"
    low, high = (f"{float(f'{value:.2g}'):g}" for value in (min(values), max(values)))
    text = low if low == high else f"{low} to {high}"
    return f"**{text}**" if max(values) > 1 else text


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    record = result.payload
    first, second = (" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:3])
    settings = record["settings"]
    by_group = groups(record)
    lines = [
        "# The regime of trained networks",
        "",
        first,
        "",
        second,
        "",
        f"{settings['meta_batches']} meta-batches, {settings['samples']} samples of every task; "
        f"{commit_of(result.provenance)}. "
        "Intervals are Student's, 95 per cent, over meta-batches or over the first task of each.",
        *(["", result.caveat] if result.caveat else []),
        "",
        "## What holds, and by what factor it does not",
        "",
        "Each number is what was measured over what the theorem asks; its range is that over training seeds, and it is "
        "bold where it exceeds 1. kappa = 1 + beta L1; b bounds the bias and G the root of the mean squared gradient "
        "(`theory/rate/theorem.py`), both with the constants measured here. Unknown are formulas of one inner step "
        "where there are several, and shares of a gradient whose square was estimated as negative. Rows of one seed "
        "begin as the same network: eigenvalues, quotients and L_F of their initial states are one measurement.",
        "",
        f"| ratio | | above 1 in | {' | '.join(by_group)} |",
        "|---|---|---|" + "---|" * len(by_group),
    ]
    of_group = [[ratios(network) for network in networks] for networks in by_group.values()]
    for name, (ratio, about) in QUESTIONS.items():
        columns = [[value for one in of if (value := one[name]) is not None] for of in of_group]
        known = [value for column in columns for value in column]
        above = f"{sum(value > 1 for value in known)} of {len(known)}"
        lines.append(f"| {ratio} | {about} | {above} | {' | '.join(map(shown, columns))} |")
    lines += [
        "",
        "![ratios and quotients](regime.png)",
        "",
        "*Left: how the quotients of the Hessian grow as the length of the difference shrinks, largest over tasks and "
        "directions; a Lipschitz Hessian would bound them. Right: the ratios of the table, a point a network.*",
        "",
        "## Steps and radii",
        "",
        "Radii and the longest inner step over the norm of the parameters, and the constants in front of the orders "
        "that the theorem prescribes.",
        "",
        "| network | step | optimizer | alpha_low / norm | alpha_up / norm | inner step / norm | beta_low sqrt T | "
        "beta_up sqrt T | alpha_up sqrt T | alpha_low |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in record["networks"]:
        config, length = network["config"], network["parameter_norm"]
        numbers = [
            config["alpha_low"] / length,
            config["alpha_up"] / length,
            max(task["step"] for task in network["tasks"]) / length,
            *(config[name] * math.sqrt(config["iterations"]) for name in ("beta_low", "beta_up", "alpha_up")),
            config["alpha_low"],
        ]
        cells = [f"{network['step']} of {config['iterations']}", f"{config['optimizer']}, {config['schedule']}"]
        cells += [f"{number:.3g}" for number in numbers]
        lines.append(f"| {network['name']} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Numbers of the tasks",
        "",
        "Means over tasks. Eigenvalues are of the Hessian of one support loss; L2 is the larger of the two quotients "
        "along the inner step and a random direction of its length; sH is a proxy, off by a factor of at most sqrt 2.",
        "",
        "| network | smallest eigenvalue | largest | L2 | L0 | Lq | norm of support gradient | sg | sH | sq |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in record["networks"]:
        tasks = network["tasks"]
        every = [[task[name] for task in tasks] for name in ("low", "high", "L0", "Lq", "slope", "sg", "sH", "sq")]
        every.insert(2, [max(task["L2 gradient 1"], task["L2 random 1"]) for task in tasks])
        lines.append(f"| {network['name']} | {' | '.join(f'{average(values):.3g}' for values in every)} |")
    lines += [
        "",
        "## Numbers of the meta-objective",
        "",
        "Means over meta-batches. Bias and gradient are roots of mean squares, each made of two halves of the samples "
        "so that their noise cancels; the intervals hold the Monte Carlo error. With N samples in a half, about one "
        "part in N of the bias is missed. The bias is to the theorem's F, whose inner step follows the expected "
        "support loss; of the mean over support sets of one size, MAML's meta-gradient has no bias by definition.",
        "",
        "| network | F | smallest eigenvalue | largest | norm of grad F | norm of the bias | bias / gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in record["networks"]:
        batches = network["meta_batches"]
        estimates = " | ".join(f"{average([one[name] for one in batches]):.3g}" for name in ("loss", "low", "high"))
        (slope, *of_slope), (error, *of_error) = (root([one[key] for one in batches]) for key in ("slope^2", "bias^2"))
        lines.append(
            f"| {network['name']} | {estimates} | {slope:.3g} [{of_slope[0]:.2g}, {of_slope[1]:.2g}] | "
            f"{error:.3g} [{of_error[0]:.2g}, {of_error[1]:.2g}] | {shown([error / slope] if slope else [])} |"
        )
    return "\n".join([*lines, "", f"[Record]({link}).", ""])


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Quotients of the Hessian against the length, and all ratios."""
    by_group = groups(record)
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        for place, (name, networks) in enumerate(by_group.items()):
            colour = f"C{place}"
            for network in networks:
                label = name if network is networks[0] else None
                left.plot(SCALES, [quotient(network, "L2", scale) for scale in SCALES], "o-", color=colour)
                known = [(i, value) for i, value in enumerate(ratios(network).values()) if value]
                height = np.array([i for i, _ in known]) + 0.09 * (place - (len(by_group) - 1) / 2)
                right.plot([value for _, value in known], height, "o", color=colour, label=label)
        left.set(xscale="log", yscale="log", xlabel="length, in inner steps", ylabel="quotient of the Hessian")
        right.axvline(1, color="0.4", ls="--", lw=1)
        right.set(xscale="log", xlabel="measured / what the theorem asks", ylim=(len(QUESTIONS) - 0.5, -0.5))
        right.set_yticks(range(len(QUESTIONS)), [ratio for ratio, _ in QUESTIONS.values()])
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path, metadata={"Software": None})


def measure(path: Path, data: Path, settings: Settings, kept: Path) -> dict[str, dict[str, Any]]:
    """What a checkpoint's network is like as it began and as it is; what was measured before is read.

    Args:
        path: The checkpoint.
        data: The data that it was trained on.
        settings: How to measure.
        kept: Folder of what was measured, a file per state of a network.

    Returns:
        Two networks of the record, by a digest of all that they depend on.

    Raises:
        CheckpointError, DataError, ValueError: See `Network`.
    """
    network = Network(path, data)
    config, metadata = network.config, network.checkpoint.metadata
    row, code, found = path.absolute().parent.parent.name, sources("theory.networks.local"), {}
    for state in network.states:
        identity = {
            "name": f"{row}, seed {config.seed}, {state}",
            "row": row,
            "state": state,
            "step": 0 if state == INITIAL else metadata["progress"]["step"],
            "tensors_digest": None if state == INITIAL else metadata["tensors_digest"],
            "config": config.to_dict(),
            "config_digest": config.digest,
            "data_digest": network.dataset.digest,
            "settings": asdict(settings),
            "sources": code,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        place = kept / f"{digest}.json"
        if not place.exists():
            began, origin = time.perf_counter(), provenance()
            values = network.measured(state, settings, str(identity["name"]))
            origins = {"trained": metadata["provenance"], "measured": origin, "seconds": time.perf_counter() - began}
            write_atomically(place, json.dumps({**identity, **origins, **values}).encode())
            print(f"{identity['name']}: {origins['seconds']:.0f} s", flush=True)
        found[digest] = json.loads(place.read_text(encoding="utf-8"))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.networks.regime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Settings()
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoints such as maml/seed0/best.safetensors")
    parser.add_argument("--data", type=Path, default=IMAGES, help="what they were trained on (default %(default)s)")
    parser.add_argument(
        "--meta-batches", type=int, default=defaults.meta_batches, help="sets of tasks (default %(default)s)"
    )
    parser.add_argument("--samples", type=int, default=defaults.samples, help="of every task (default %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default results/theory)")
    options = parser.parse_args(arguments)
    try:
        if not options.checkpoints:
            raise ValueError("no checkpoint is named: give some, such as results/demo/maml/seed0/best.safetensors")
        settings = Settings(options.meta_batches, options.samples)
        torch.set_num_threads(1)
        keep_freed_memory()
        origin = provenance(module="theory.networks.local")  # the code may change meanwhile
        networks: dict[str, dict[str, Any]] = {}
        for path in options.checkpoints:
            networks |= measure(path, options.data, settings, options.output / "regime")
        payload = {"settings": asdict(settings), "networks": list(networks.values())}
        write_page(Result("regime", origin, payload), options.output, draw=draw, page=table)
    except KeyboardInterrupt:
        print("stopped; what was measured is kept: the same command goes on from there")
        return 130
    except (CheckpointError, DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
