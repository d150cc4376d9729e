"""What the bound says of trained networks: `python -m theory.networks.certificate CHECKPOINT ... --data DIR`.

The loss of a task is the share of wrong query images after adaptation, in [0, 1]; the reading is that of random tasks
with query sets of their own: the M episodes that a network was trained on are independent, the risk is that of a new
episode of the training classes. The prior is N(x_0, s^2 e^j I) around the initial parameters, which no data have
touched. E F(x + eps; D) is taken by Monte Carlo with Hoeffding's interval, whose upper end enters every bound; it
stands in place of the maximum over the ball, which projected ascent only bounds from below. Writes a record, a figure
and a table. Read next: `pac_bayes.py`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib import style
from matplotlib.figure import Figure
from rich.progress import track

from sharp_maml import (
    CheckpointError,
    Config,
    DataError,
    Dataset,
    Estimate,
    Params,
    Protocol,
    Result,
    build,
    dot,
    episode,
    interval_over_episodes,
    load_checkpoint,
    norm,
    open_dataset,
    provenance,
    trained_params,
)
from sharp_maml.paper import say
from theory.check.verdicts import write_page
from theory.generalization.pac_bayes import complexity, kl_bound, pac_bus, smallest, value, width

DEVIATIONS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""s, fixed before any data are seen; delta is shared among them."""
DELTA = 0.05
FRESH = 1
"""Seed of episodes that no training saw; training takes the configuration's, evaluation one of its own."""


@dataclass(frozen=True)
class Row:
    """The bounds of a network for one deviation.

    Attributes:
        deviation: s.
        radius: alpha of the ball that belongs to it.
        risk: E F(x + eps; D) with its interval.
        ascent: The risk that projected ascent reaches in the ball, on some of the tasks: a lower bound of the maximum.
        root: The theorem's square root.
        theorem: Upper end of the risk plus the root.
        kl: The kl form.
        pac_bus: The bound of Farid and Majumdar.
    """

    deviation: float
    radius: float
    risk: Estimate
    ascent: float
    root: float
    theorem: float
    kl: float
    pac_bus: float


@dataclass(frozen=True)
class Certificate:
    """A network's bounds.

    Attributes:
        name: Name of the checkpoint's run.
        variant: Radii.
        tasks: M.
        dim: d.
        distance: |x - x_0|.
        observed: F(x; D) on some of the training episodes.
        fresh: Risk on new episodes of the training classes, which the bounds are about.
        test: Risk on episodes of the test classes, which they are not about.
        guessing: Risk of guessing.
        rows: One a deviation.
    """

    name: str
    variant: str
    tasks: int
    dim: int
    distance: float
    observed: Estimate
    fresh: Estimate
    test: Estimate
    guessing: float
    rows: tuple[Row, ...]

    @property
    def best(self) -> float:
        """The smallest bound."""
        return min(min(row.theorem, row.kl, row.pac_bus) for row in self.rows)

    @property
    def verdict(self) -> str:
        """What the smallest bound is worth."""
        if self.best >= 1:
            return "vacuous: at least 1"
        return f"vacuous: guessing has {self.guessing:g}" if self.best >= self.guessing else "better than guessing"


class Network:
    """A checkpoint with the tasks it was trained on."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        checkpoint = load_checkpoint(path)
        try:
            self.config = Config.from_mapping(checkpoint.metadata["config"])
            self.step = int(checkpoint.metadata["progress"]["step"])
        except KeyError as error:
            raise CheckpointError(f"{path} has no entry {error}: it is not a checkpoint of the trainer") from error
        if dataset.size != self.config.image_size:
            raise ValueError(f"{path} is of {self.config.image_size} pixels, but {dataset.name} has {dataset.size}")
        self.dataset = dataset
        experiment = build(self.config, channels=dataset.channels)
        self.method = experiment.method
        self.start = experiment.init(self.config.seed)
        self.params = trained_params(checkpoint, self.start)
        self.tasks = max(1, self.step * self.config.meta_batch)

    def task(self, index: int, *, split: str = "train", seed: int | None = None) -> Any:
        """An episode: by default, the one that training saw at this index."""
        protocol = Protocol(self.config.ways, self.config.shots, self.config.queries)
        seed = self.config.seed if seed is None else seed
        return episode(self.dataset, split, protocol, seed=seed, index=index, dtype=getattr(torch, self.config.dtype))

    def loss(self, params: Params, task: Any) -> float:
        """Share of wrong query images after adaptation."""
        return 1 - float((self.method.predict(params, task).argmax(-1) == task.query.targets).double().mean())

    def risk(self, count: int, *, split: str = "train", seed: int | None = None) -> Estimate:
        """Mean loss of the network over episodes, with a 95 per cent interval."""
        losses = [self.loss(self.params, self.task(i, split=split, seed=seed)) for i in range(count)]
        return interval_over_episodes(losses)

    def perturbed(self, deviation: float, samples: int, generator: torch.Generator, level: float) -> Estimate:
        """E F(x + eps; D) over pairs of a perturbation and a training episode, with Hoeffding's interval."""
        losses = []
        for _ in range(samples):
            moved = {
                name: value + deviation * torch.randn(value.shape, generator=generator, dtype=value.dtype)
                for name, value in self.params.items()
            }
            index = int(torch.randint(self.tasks, (), generator=generator))
            losses.append(self.loss(moved, self.task(index)))
        mean, half = sum(losses) / samples, math.sqrt(math.log(2 / level) / (2 * samples))
        return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), samples)

    def ascended(self, radius: float, tasks: int, steps: int = 3) -> float:
        """The largest mean loss over some training episodes on the way of projected ascent of the meta-loss."""
        drawn = [self.task(i) for i in range(tasks)]
        params, largest = self.params, 0.0
        for _ in range(steps):
            slope = self.method.gradient(params, drawn).grad
            scale = radius / max(float(norm(slope)), 1e-30)
            moved = {name: params[name] + scale * slope[name] - self.params[name] for name in params}
            shrink = min(1.0, radius / max(float(norm(moved)), 1e-30))
            params = {name: self.params[name] + shrink * moved[name] for name in params}
            largest = max(largest, sum(self.loss(params, task) for task in drawn) / tasks)
        return largest


def certify(network: Network, name: str, *, samples: int, judged: int, seed: int = 0) -> Certificate:
    """The bounds of a network.

    Args:
        network: The network and its tasks.
        name: What to call it.
        samples: Pairs of a perturbation and a task for every deviation.
        judged: Episodes for each risk without perturbation.
        seed: Seed of the perturbations.

    Returns:
        The certificate; each bound holds for all deviations at once with probability 0.95.
    """
    away = {key: network.params[key] - network.start[key] for key in network.params}
    distance = math.sqrt(float(dot(away, away)))
    dim = sum(value.numel() for value in network.params.values())
    level = DELTA / 2 / len(DEVIATIONS)
    generator = torch.Generator().manual_seed(seed)
    tasks = network.tasks
    rows = []
    for deviation in track(DEVIATIONS, description=name, transient=True, disable=not sys.stderr.isatty()):
        risk = network.perturbed(deviation, samples, generator, level)
        radius = deviation / float(value(width, alpha=1.0, d=dim, N=max(2, tasks)))
        root, _ = smallest(complexity, C=1.0, d=dim, x_norm=distance, s=deviation, N=max(2, tasks), delta=level)
        of: dict[str, Any] = {"dim": dim, "deviation": deviation, "confidence": 1 - level}
        rows.append(
            Row(
                deviation,
                radius,
                risk,
                network.ascended(radius, tasks=min(10, tasks)),
                root,
                risk.high + root,
                kl_bound(risk.high, distance, number=tasks, **of).total,
                pac_bus(risk.high, distance, tasks=tasks, stability=0.0, **of).total,
            )
        )
    config = network.config
    return Certificate(
        name,
        f"alpha_low = {config.alpha_low:g}, alpha_up = {config.alpha_up:g}",
        tasks,
        dim,
        distance,
        network.risk(min(judged, tasks)),
        network.risk(judged, seed=FRESH),
        network.risk(judged, split="test", seed=FRESH),
        1 - 1 / config.ways,
        tuple(rows),
    )


def certificates_of(payload: Mapping[str, Any]) -> list[Certificate]:
    """The certificates that a payload holds."""
    return [
        Certificate(
            **{
                **one,
                **{name: Estimate.from_dict(one[name]) for name in ("observed", "fresh", "test")},
                "rows": tuple(Row(**{**row, "risk": Estimate.from_dict(row["risk"])}) for row in one["rows"]),
            }
        )
        for one in payload["networks"]
    ]


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    certificates = certificates_of(result.payload)
    lines = [
        "# The bound for trained networks",
        "",
        " ".join((__doc__ or "").split("\n\n")[1].split()).removesuffix(" Read next: `pac_bayes.py`."),
        "",
        f"Every bound holds with probability {1 - DELTA:g} for all s at once. The divergence of a network that "
        "moved by |x - x_0| is at most |x - x_0|^2 / (2 s^2); it must be far below M for a bound to say anything. An s "
        "that makes it so moves the d parameters by s sqrt d, which it may not bear: compare the columns.",
        "",
        *([result.caveat, ""] if result.caveat else []),
        "| network | d | M | moved by | risk on its tasks | on new tasks | on test classes | smallest bound | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in certificates:
        lines.append(
            f"| {one.name} ({one.variant}) | {one.dim} | {one.tasks} | {one.distance:.2f} | {one.observed.mean:.3f} | "
            f"{one.fresh.mean:.3f} | {one.test.mean:.3f} | {one.best:.3f} | {one.verdict} |"
        )
    for one in certificates:
        lines += [
            "",
            f"## {one.name}",
            "",
            "| s | alpha | E F(x + eps; D) | ascent in the ball, some tasks | square root | theorem | kl | PAC-BUS |",
            "|---|---|---|---|---|---|---|---|",
            *(
                f"| {row.deviation:g} | {row.radius:.3g} | {interval(row.risk)} | >= {row.ascent:.3f} "
                f"| {row.root:.3g} | {row.theorem:.3g} | {row.kl:.4g} | {row.pac_bus:.3g} |"
                for row in one.rows
            ),
        ]
    return "\n".join([*lines, "", "![certificate](certificate.png)", "", f"[Record]({link}).", ""])


def interval(estimate: Estimate) -> str:
    """Mean and interval."""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def says(certificates: Sequence[Certificate]) -> str:
    """What the figure says, in a sentence."""
    known, least = sum(one.best < one.guessing for one in certificates), min(one.best for one in certificates)
    return (
        f"The bound says something of {known} of {len(certificates)} trained networks: the smallest is {least:.3f}, "
        f"and guessing has {certificates[0].guessing:g}."
    )


def draw(payload: Mapping[str, Any]) -> Figure:
    """Risk under Gaussian perturbation, and what the bounds are made of."""
    certificates = certificates_of(payload)
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, one in enumerate(certificates):
            colour = f"C{place}"
            s = [row.deviation for row in one.rows]
            left.plot(s, [row.risk.mean for row in one.rows], "o-", color=colour, label=one.name)
            left.fill_between(
                s,
                [row.risk.low for row in one.rows],
                [row.risk.high for row in one.rows],
                color=colour,
                alpha=0.12,
                lw=0,
            )
            left.axhline(one.observed.mean, color=colour, lw=0.8, ls=":")
            right.plot(s, [row.root for row in one.rows], "o-", color=colour, label=one.name)
        left.axhline(certificates[0].guessing, color="0.4", ls="--", lw=1, label="guessing")
        left.set(xscale="log", xlabel="s", ylabel="E F(x + eps; D); dotted: without eps", ylim=(0, 1))
        right.axhline(1, color="0.4", ls="--", lw=1, label="vacuous above")
        right.set(xscale="log", yscale="log", xlabel="s", ylabel="square root of the theorem")
        for axes in (left, right):
            axes.legend()
        say(figure, says(certificates))
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.networks.certificate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, help="checkpoints of the trainer, such as best.safetensors"
    )
    parser.add_argument("--data", required=True, help="the data that they were trained on")
    parser.add_argument("--samples", type=int, default=600, help="perturbations for each deviation (default 600)")
    parser.add_argument("--judged", type=int, default=300, help="episodes for each plain risk (default 300)")
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default results/theory)")
    options = parser.parse_args(arguments)
    if options.samples < 1 or options.judged < 2:
        print(f"error: samples must be >= 1 and judged >= 2, got {options.samples}, {options.judged}", file=sys.stderr)
        return 2
    certificates, origin = [], provenance(module="theory.networks.certificate")  # the code may change meanwhile
    try:
        for path in options.checkpoints:
            size = Config.from_mapping(load_checkpoint(path).metadata["config"]).image_size
            network = Network(path, open_dataset(options.data, size=size))
            name = path.parent.parent.name or path.stem
            certificates.append(certify(network, name, samples=options.samples, judged=options.judged))
            print(f"{name}: smallest bound {certificates[-1].best:.3f}, {certificates[-1].verdict}", flush=True)
    except (CheckpointError, DataError, OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    payload = {"delta": DELTA, "networks": [asdict(one) for one in certificates]}
    write_page(Result("certificate", origin, payload), options.output, draw=draw, page=table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
