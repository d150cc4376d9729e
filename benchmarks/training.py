"""Does the fast path train as well as the plain loop? `python -m benchmarks.training DATA`.

Trains MAML and Sharp-MAML both (one inner step, conv4-32, 42 pixels) three times per seed: with the package's
meta-gradient, with that of `plain.py`, and once more with that of `plain.py` on the episodes of each iteration in the
reverse order. Data, start and optimizer are the same; float32 rounding is not, and training amplifies it. The third run
shows by how much: rounding is all that sets it apart from the second. All are judged by the package on the same
validation episodes, and differences are taken episode by episode, after the mean over seeds. A run that was cut off
goes on when the command is given again. Read next: `page.py`, which shows the record.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plain import plain_meta_gradient
from benchmarks.work import ALPHA
from sharp_maml import (
    Config,
    Episode,
    MetaGradient,
    Params,
    Result,
    build,
    joint_sources,
    load_checkpoint,
    open_dataset,
    paired_difference,
    provenance,
    sources,
    trained_params,
    write_atomically,
    write_result,
)
from sharp_maml.evaluate import correct_counts
from sharp_maml.methods import Experiment
from sharp_maml.train import train

SIDES = ("ours", "plain", "reversed")
RADII: dict[str, dict[str, Any]] = {"maml": {}, "both": {"alpha_low": ALPHA, "alpha_up": ALPHA}}


def configuration(variant: str, seed: int, iterations: int) -> Config:
    """The settings of both sides; those that are not named are the package's defaults."""
    return Config(
        **RADII[variant],
        seed=seed,
        image_size=42,
        filters=32,
        steps=1,
        threads=1,
        iterations=iterations,
        validate_every=iterations,
        validation_episodes=1,
        checkpoint_every=50,
    )


def plain_build(config: Config, *, order: int, **options: Any) -> Experiment:
    """What `build` makes, with the gradient of the plain loop in place of the package's; order: 1, or -1 reversed."""
    experiment = build(config, **options)

    def gradient(params: Params, episodes: Sequence[Episode]) -> MetaGradient:
        return plain_meta_gradient(
            params,
            episodes[::order],
            beta_low=config.beta_low,
            alpha_low=config.alpha_low,
            alpha_up=config.alpha_up,
            steps=config.steps,
        )

    return experiment._replace(method=experiment.method._replace(gradient=gradient))


def run_cell(side: str, config: Config, data: Path, directory: Path, episodes: int) -> None:
    """Train one network, or go on, and write how many queries of each validation episode it gets right."""
    code = sources("benchmarks.training")  # it may change meanwhile
    dataset = open_dataset(data, size=config.image_size)
    builds: dict[str, Callable[..., Experiment]] = {
        "ours": build,
        "plain": partial(plain_build, order=1),
        "reversed": partial(plain_build, order=-1),
    }
    state = train(config, dataset, directory, build=builds[side])
    experiment = build(config, channels=dataset.channels)
    last = load_checkpoint(directory / "last.safetensors", config_digest=config.digest)
    params = trained_params(last, experiment.init(config.seed))
    counts = correct_counts(
        experiment.method, params, dataset, "validation", config, episodes=episodes, modes=[config.batch_norm]
    )[config.batch_norm]
    found = {
        "data": {"name": dataset.name, "digest": dataset.digest},
        "queries": config.ways * config.queries,
        "counts": counts.tolist(),
        "seconds": state.seconds,
        "commit": last.metadata["provenance"]["commit"],
        "sources": code,
    }
    write_atomically(directory / "counts.json", json.dumps(found).encode())


def compare(found: dict[tuple[str, str, int], dict[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each variant the accuracies by seed, and the paired differences to the plain loop, in points."""
    rows = []
    for variant in RADII:
        points = {
            side: np.array([100 * np.array(found[variant, side, seed]["counts"]) / found[variant, side, seed]["queries"]
                            for seed in seeds])
            for side in SIDES
        }  # fmt: skip
        rows.append(
            {
                "variant": variant,
                "accuracy": {side: values.mean(axis=1).tolist() for side, values in points.items()},
                "difference_to_plain": {
                    side: paired_difference(points[side].mean(0), points["plain"].mean(0), unit="%").to_dict()
                    for side in ("ours", "reversed")
                },
                **{
                    key: {side: [found[variant, side, seed][key] for seed in seeds] for side in SIDES}
                    for key in ("seconds", "commit")
                },
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, write the record and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="miniImageNet, in any form that the package reads")
    parser.add_argument("--iterations", type=int, default=1_000, help="meta-iterations (default 1000)")
    parser.add_argument("--episodes", type=int, default=600, help="validation episodes (default 600)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds, from 0 (default 2)")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread (default 2)")
    parser.add_argument("--output", type=Path, default=Path("results/bench/training"), help="runs; record beside")
    parser.add_argument("--cell", nargs=3, metavar=("VARIANT", "SIDE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    def directory(variant: str, side: str, seed: int) -> Path:
        return Path(options.output) / f"{variant}-{side}-seed{seed}"

    if options.cell:
        variant, side, seed = options.cell[0], options.cell[1], int(options.cell[2])
        config = configuration(variant, seed, options.iterations)
        run_cell(side, config, options.data, directory(variant, side, seed), options.episodes)
        return

    cells = [(variant, side, seed) for variant in RADII for seed in range(options.seeds) for side in SIDES]
    own = [str(options.data), f"--iterations={options.iterations}", f"--episodes={options.episodes}"]
    command = [sys.executable, "-m", __spec__.name, *own, f"--output={options.output}", "--cell"]

    def finish(cell: tuple[str, str, int]) -> dict[str, Any]:
        path = directory(*cell) / "counts.json"
        if not path.exists():
            subprocess.run([*command, *map(str, cell)], check=True)
        print(f"{cell[0]}, {cell[1]}, seed {cell[2]}: done", flush=True)
        return dict(json.loads(path.read_text(encoding="utf-8")))

    open_dataset(options.data, size=configuration("maml", 0, 1).image_size)  # decoded once, before the others read it
    origin = provenance(module="benchmarks.training")  # the code may change meanwhile
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(cells, pool.map(finish, cells), strict=True))
    payload = {
        "data": found[cells[0]]["data"],
        "iterations": options.iterations,
        "episodes": options.episodes,
        "rows": compare(found, range(options.seeds)),
    }
    held = [cell.get("sources") for cell in found.values()]  # what is kept of a cut run may be of earlier code
    origin["sources"] = joint_sources([origin["sources"], *held])
    write_result(options.output.with_suffix(".json"), Result("training", origin, payload))
    for row in payload["rows"]:
        for side, found_here in row["difference_to_plain"].items():
            low, high = found_here["low"], found_here["high"]
            print(f"{row['variant']}, {side} - plain: {found_here['mean']:+.2f} [{low:.2f}, {high:.2f}] points")


if __name__ == "__main__":
    main()
