"""Is the rate's theorem about what is trained? `python -m theory.networks.regime CHECKPOINT ... [--data DIR]`.

The constants, steps and radii that the theorem speaks of are measured at conv4 networks: as they began, and as each
checkpoint has them. What was measured is kept: the same command goes on where it was cut off, and a start that several
networks share is measured once. Writes a record, a figure and a table; a record that lies there keeps its networks of
other data, so that one command for each data set makes a record of all. Read next: `local.py`, which has the
estimators; `regime_page.py`, which says what is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
    Model,
    Params,
    Protocol,
    Result,
    episode,
    keep_freed_memory,
    load_checkpoint,
    meta_gradient,
    norm,
    open_dataset,
    provenance,
    read_result,
    sources,
    trained_params,
    write_atomically,
)
from sharp_maml import (
    network as network_of,
)
from theory.check.verdicts import write_page
from theory.networks.local import Gradient, of_task, of_tasks
from theory.networks.regime_page import INITIAL, draw, table

SPLIT = "validation"
IMAGES = Path("results/data/synthetic-images-16-100")
"""Where the demo tier of the table leaves its images."""
OUTER = ("optimizer", "beta_up", "schedule")
"""Settings of the outer step, which nothing that is measured depends on."""


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
        # before its training a network has no variant: what it is like is MAML's
        self.configs = {INITIAL: replace(config, alpha_low=0.0, alpha_up=0.0), path.stem: config}

    def gradient(self, config: Config) -> Gradient:
        """The meta-gradient of a configuration."""
        return partial(
            meta_gradient,
            self.loss,
            beta_low=config.beta_low,
            steps=config.steps,
            query_loss=self.query_loss,
            alpha_low=config.alpha_low,
            alpha_up=config.alpha_up,
            perturbation=config.perturbation,
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
        algorithm, exact = self.gradient(self.configs[state]), self.gradient(self.configs[INITIAL])
        tasks, meta_batches = [], []
        batches = range(settings.meta_batches)
        for b in track(batches, description=description, transient=True, disable=not sys.stderr.isatty()):
            drawn = [self.task(size * b + m, settings) for m in range(size)]
            tasks.append(of_task(self.loss, self.query_loss, params, drawn[0], seed=settings.seed + b, **inner))
            meta_batches.append(of_tasks(self.loss, self.query_loss, algorithm, exact, params, drawn, **inner))
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


def measure(path: Path, data: Path, settings: Settings, kept: Path) -> list[dict[str, Any]]:
    """What a checkpoint's network is like as it began and as it is.

    Args:
        path: The checkpoint, `ROW/seedN/STATE.safetensors`.
        data: The data that it was trained on.
        settings: How to measure.
        kept: Folder of what was measured, a file for everything on which that depends.

    Returns:
        Two networks of the record; the first is equal for all checkpoints of one start and one outer step.

    Raises:
        CheckpointError, DataError, ValueError: See `Network`.
    """
    network = Network(path, data)
    metadata, of_row = network.checkpoint.metadata, path.absolute().parent.parent.name
    code, found = sources("theory.networks.local"), []
    for state, config in network.configs.items():
        is_start = state == INITIAL
        row = "all rows" if is_start else of_row
        identity = {
            "name": f"{row}, seed {config.seed}, {state}",
            "row": row,
            "state": state,
            "step": 0 if is_start else metadata["progress"]["step"],
            "tensors_digest": None if is_start else metadata["tensors_digest"],
            "config": config.to_dict(),
            "config_digest": config.digest,
            "data": network.dataset.name,
            "data_digest": network.dataset.digest,
            "settings": asdict(settings),
            "sources": code,
            "trained": None if is_start else metadata["provenance"],
        }
        found.append(identity | _measurement(network, state, identity, kept))
    return found


def _measurement(network: Network, state: str, identity: Mapping[str, Any], kept: Path) -> dict[str, Any]:
    """The constants at a state, the seconds they took and what measured them; read where they were measured before."""
    decisive = {name: identity[name] for name in ("step", "tensors_digest", "data_digest", "settings", "sources")}
    decisive["config"] = {name: value for name, value in identity["config"].items() if name not in OUTER}
    place = kept / f"{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]}.json"
    if not place.exists():
        began, origin = time.perf_counter(), provenance()
        values = network.measured(state, Settings(**identity["settings"]), identity["name"])
        origins = {"measured": origin, "seconds": time.perf_counter() - began}
        write_atomically(place, json.dumps({**origins, **values}).encode())
        print(f"{identity['name']}: {origins['seconds']:.0f} s", flush=True)
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def of_other_data(record: Path, networks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The networks of a record that lie beside those measured now.

    Args:
        record: Where it lies, or would.
        networks: Networks that were measured now, all on one data set.

    Returns:
        Those on other data that were measured in the same way by the same code; of all others it is said that they are
        left out.

    Raises:
        RecordError: The record is damaged.
    """
    if not record.exists():
        return []
    (new, *_), before = networks, read_result(record, "regime").payload["networks"]
    others = [network for network in before if network["data_digest"] != new["data_digest"]]
    same = [network for network in others if all(network[name] == new[name] for name in ("settings", "sources"))]
    if left_out := len(others) - len(same):
        print(f"{record}: {left_out} networks of other data are left out, measured by other code or settings")
    return same


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
        networks: list[Mapping[str, Any]] = []
        for path in options.checkpoints:
            found = measure(path, options.data, settings, options.output / "regime")
            networks += [network for network in found if network not in networks]
        networks += of_other_data(options.output / "regime.json", networks)
        networks.sort(key=lambda network: str(network["data"]))
        payload = {"settings": asdict(settings), "networks": networks}
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
