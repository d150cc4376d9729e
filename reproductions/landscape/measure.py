"""The measures of a trained network's landscape, and many networks in processes. Read next: `decide.py`."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy

from reproductions.study import rounded
from reproductions.tables.specification import Cell
from sharp_maml import (
    Batch,
    Checkpoint,
    CheckpointError,
    Config,
    Dataset,
    Params,
    Protocol,
    add_scaled,
    end_with_parent,
    episode,
    epsilon_sharpness,
    filter_normalised_direction,
    hessian,
    hessian_trace,
    keep_freed_memory,
    leading_eigenvalues,
    load_checkpoint,
    loss_on_plane,
    meta_loss,
    network,
    norm,
    open_dataset,
    provenance,
    sources,
    trained_params,
    write_atomically,
)
from sharp_maml.evaluate import EVALUATION_SEED

MEASURES = {
    "meta_eigenvalue": "leading eigenvalue, Hessian of F",
    "meta_trace": "trace, Hessian of F",
    "inner_eigenvalue": "leading eigenvalue, Hessian of R",
    "inner_trace": "trace, Hessian of R",
    "epsilon_sharpness": "Keskar's sharpness of F, %",
    "rise": "rise of F, random direction",
}
"""What "smooth" is taken to mean, and what the figure calls it: each is smaller where the landscape is smoother."""

Function = Callable[[Params], Tensor]


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is measured; the same for all that are compared.

    episodes: training episodes 0, 1, ... of seed `episode_seed`, which no training saw. points: of the plane, a side.
    extent: the plane's half-width, in filter norms. directions, distance: random directions that the rise is a mean
    over, and how far it goes. eigenvalues, probes: of the spectrum. epsilon: of Keskar's box.
    """

    episodes: int = 8
    episode_seed: int = EVALUATION_SEED
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
    began, code = time.perf_counter(), sources("reproductions.landscape.measure")  # the code may change meanwhile
    loaded = load_checkpoint(checkpoint)
    if not {"config", "data", "provenance"} <= loaded.metadata.keys():
        raise CheckpointError(f"{checkpoint} is not a checkpoint of the trainer")
    config = Config.from_mapping(loaded.metadata["config"])
    dataset = open_dataset(data, size=config.image_size)
    if dataset.digest != loaded.metadata["data"]["digest"]:
        raise ValueError(f"{checkpoint} was trained on other data than {data}: name those that it was trained on")
    functions, params = _functions(loaded, config, dataset, settings)
    meta = functions["meta"]
    generator = torch.Generator().manual_seed(settings.episode_seed)
    plane = tuple(filter_normalised_direction(params, generator) for _ in range(2))
    coordinates = np.linspace(-settings.extent, settings.extent, settings.points).tolist()
    found: dict[str, Any] = {
        "plane": rounded(loss_on_plane(meta, params, (plane[0], plane[1]), coordinates).tolist(), 5),
        "coordinates": coordinates,
        "rise": _rise(meta, params, settings, generator),
        "epsilon_sharpness": epsilon_sharpness(meta, params, settings.epsilon),
        "parameter_norm": float(norm(params)),
    }
    for name, function in functions.items():
        found |= {f"{name}_{key}": value for key, value in _spectrum(function, params, settings).items()}
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
        "sources": code,
    }


def _functions(
    checkpoint: Checkpoint, config: Config, dataset: Dataset, settings: Settings
) -> tuple[dict[str, Function], Params]:
    """The meta-loss and the mean inner loss on the episodes that all networks share, and the network's parameters."""
    # `elementary`: a Hessian of the meta-loss is a third derivative
    model = network(config, channels=dataset.channels, form="elementary")
    params = trained_params(checkpoint, model.init(torch.Generator().manual_seed(config.seed)))
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

    return {"meta": meta, "inner": inner}, params


def _spectrum(function: Function, params: Params, settings: Settings) -> dict[str, Any]:
    """A function's value at the parameters, the leading eigenvalues of its Hessian, and the trace."""
    operator = hessian(function, params)
    with torch.no_grad():
        value = float(function(params))
    eigenvalues = leading_eigenvalues(operator, settings.eigenvalues)
    trace = hessian_trace(operator, settings.probes)
    return {
        "loss": value,
        "eigenvalues": eigenvalues,
        "eigenvalue": eigenvalues[0],
        "trace": trace.mean,
        "trace_estimate": trace.to_dict(),
    }


def _rise(function: Function, params: Params, settings: Settings, generator: torch.Generator) -> float:
    """Mean of f(x + r d) + f(x - r d) - 2 f(x), halved, over random filter-normalised directions d."""
    with torch.no_grad():
        here, rises = float(function(params)), []
        for _ in range(settings.directions):
            direction = filter_normalised_direction(params, generator)
            ends = [function(add_scaled(params, direction, sign * settings.distance)) for sign in (-1, 1)]
            rises.append(float(sum(ends)) / 2 - here)
    return float(np.mean(rises))


def measure_all(
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
    end_with_parent()
    torch.set_num_threads(1)
    keep_freed_memory()
