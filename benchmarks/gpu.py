"""What a GPU makes of the package: `python -m benchmarks.gpu DATA`, an hour on one by estimate.

Runs the tests that need a GPU, and trains on the paper tier's settings: each variant with 1 and 5 inner steps in every
mode, for iterations a second and memory; a few iterations in float64 with and without graphs, for what they change; and
the first thousand of MAML and Sharp-MAML both with graphs. Each run is a process of its own, so that memory and kernels
are its own. What is done is kept, and is not done again by the same code on the same device: the command goes on where
it was stopped. Without a GPU it says so and ends with 2. Read next: `page.py`, which shows the record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track

from benchmarks import page
from reproductions.study import ROOT
from reproductions.tables.specification import Cell
from sharp_maml import (
    CheckpointError,
    Config,
    Dataset,
    Result,
    build,
    load_checkpoint,
    open_dataset,
    provenance,
    write_atomically,
    write_result,
)
from sharp_maml.train import train

VARIANTS = ("maml", "low", "up", "both")
MODES: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"compile": True},
    "graphs": {"cuda_graphs": True},
    "graphs, TF32": {"cuda_graphs": True, "precision": "tf32"},
}
COMPARED: dict[str, dict[str, Any]] = {"eager": {}, "eager again": {}, "graphs": {"cuda_graphs": True}}
TRAINED = ("maml", "both")


class Run(NamedTuple):
    """A training run: which part of the record it is of, what it is there, and its settings."""

    part: str
    variant: str
    mode: str
    config: Config

    def place(self, folder: Path) -> Path:
        """Its run directory."""
        return folder / "-".join((self.part, self.variant, self.mode)).replace(", ", "-").replace(" ", "-")


def runs(configs: Mapping[str, Config], *, speed: int = 300, compared: int = 20, trained: int = 1000) -> list[Run]:
    """All runs.

    Args:
        configs: The settings of each variant.
        speed: Meta-iterations of a run whose speed is measured, the first third of them not counted.
        compared: Meta-iterations of a run whose parameters are compared.
        trained: Meta-iterations of a run for its own sake, with the validations of its settings.

    Returns:
        The runs, those that are trained for their own sake last.
    """

    def short(config: Config, iterations: int, **settings: Any) -> Config:
        rare: dict[str, Any] = {"validate_every": iterations, "checkpoint_every": iterations, "validation_episodes": 1}
        return replace(config, iterations=iterations, **rare, **settings)

    found = [
        Run("speed", f"{variant}-{steps}", mode, short(config, speed, steps=steps, **settings))
        for variant, config in configs.items()
        for steps in (1, 5)
        for mode, settings in MODES.items()
    ]
    for variant in TRAINED:
        for mode, settings in COMPARED.items():
            exact = short(configs[variant], compared, dtype="float64", **settings)
            found.append(Run("equality", variant, mode, exact))
    whole = [replace(configs[variant], iterations=trained, cuda_graphs=True) for variant in TRAINED]
    return found + [Run("training", variant, "graphs", config) for variant, config in zip(TRAINED, whole, strict=True)]


def done(run: Run, data: Path, folder: Path) -> dict[str, Any]:
    """What a run gives: see `work`. It is made in a process of its own, or was made before; a part of one is dropped.

    Returns:
        Its numbers; or an `error`, and then it is tried again when the command is given again.
    """
    place = run.place(folder)
    path = place / "row.json"
    if not path.exists():
        shutil.rmtree(place, ignore_errors=True)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                process.submit(work, run.config, data, place).result()
        except Exception as error:  # of a device that nobody has seen; the other runs may yet be done
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def work(config: Config, data: Path, place: Path) -> None:
    """Train, and leave in `row.json` how fast the last two thirds of the iterations were, and what came out.

    Args:
        config: The settings.
        data: Where the images are.
        place: The run directory, which is new.
    """
    state = train(config, open_dataset(data, size=config.image_size), place)
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds"] for line in lines if "loss" in line]
    late = seconds[len(seconds) // 3 :]
    row = {
        "iterations": state.step,
        "iterations_per_second": len(late) / sum(late),
        "seconds": state.seconds,
        "gib": state.peak_memory_bytes / 2**30,
        "loss": state.curve[-1]["loss"],
        "validation_accuracy": state.curve[-1]["validation_accuracy"],
    }
    write_atomically(place / "row.json", json.dumps(row).encode())


def apart(one: Run, other: Run, dataset: Dataset, folder: Path) -> float:
    """How far the parameters of two runs are apart at their ends, relative to how far the first has come."""
    ends = [load_checkpoint(run.place(folder) / "last.safetensors").tensors for run in (one, other)]
    begin = build(replace(one.config, device="cpu"), channels=dataset.channels).init(one.config.seed)
    first, second, start = (
        torch.cat([values[f"{prefix}{name}"].flatten() for name in begin])
        for values, prefix in ((ends[0], "params/"), (ends[1], "params/"), (begin, ""))
    )
    return float((second - first).norm() / (first - start).norm())


def measure(
    configs: Mapping[str, Config], data: Path, output: Path, origin: Mapping[str, Any], **lengths: int
) -> Result:
    """Run the tests, and do all runs that were not done before; the record is written after each.

    Args:
        configs: The settings of each variant.
        data: Where the images are.
        output: The record; runs are kept beside it.
        origin: The provenance.
        **lengths: See `runs`.

    Returns:
        The record.
    """
    of_all = configs[TRAINED[0]]
    dataset = open_dataset(data, size=of_all.image_size)  # decoded once, before the others read it
    payload: dict[str, Any] = {
        "data": {"name": dataset.name, "digest": dataset.digest},
        "whole": of_all.iterations,
        "tests": device_tests(),
    }
    result = Result("gpu", origin, payload)
    same = json.dumps([origin, dataset.digest, {name: config.digest for name, config in configs.items()}, lengths])
    folder = output.with_suffix("") / hashlib.sha256(same.encode()).hexdigest()[:12]
    for run in track(runs(configs, **lengths), description="runs", transient=True):
        row = done(run, data, folder)
        if run.part == "equality" and run.mode != "eager" and "error" not in row:
            try:
                row["apart"] = apart(run._replace(mode="eager"), run, dataset, folder)
            except CheckpointError as error:
                row = {"error": str(error)}
        payload.setdefault(run.part, {}).setdefault(run.variant, {})[run.mode] = row
        write_result(output, result)
    return result


def device_tests() -> dict[str, Any]:
    """Run the tests that need a GPU: the exit code of pytest, and its last line without the time that it took."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--require=gpu", "-q", "tests"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = (found.stdout.splitlines() or [""])[-1]
    return {"exit_code": found.returncode, "said": last.split(" in ")[0].strip("= ")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Test, measure, write the record and print its page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="miniImageNet, in any form that the package reads")
    parser.add_argument("--output", type=Path, default=Path("results/bench/gpu.json"), help="the record; runs beside")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(
            "error: torch finds no CUDA device: make gpu on a machine with one, TORCH=cuda if need be", file=sys.stderr
        )
        return 2
    configs = {variant: Cell.from_words("table1", variant, "paper", "0", "cuda").config for variant in VARIANTS}
    origin = provenance("cuda", module="benchmarks.gpu")  # the code may change meanwhile
    try:
        result = measure(configs, options.data, options.output, origin)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(page.gpu_page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
