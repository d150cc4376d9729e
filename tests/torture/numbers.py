"""How far the numbers can be trusted: `python -m tests.torture.numbers`.

Four questions, each a part of one record: how far float32 drifts from float64 in a training; whether a number that is
not finite, put in at any stage, stops the run and costs nothing; which ways of executing the same work give the same
bits; and whether another processor gives the same numbers. Writes the record, and its sections of the page of
reliability. Exit code 1 if a run was lost or a number is outside its tolerance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from reproductions.method import plane
from sharp_maml import (
    Config,
    Dataset,
    Episode,
    EpisodeStream,
    MetaGradient,
    NonFiniteError,
    Protocol,
    Result,
    build,
    distributed,
    episode,
    load_checkpoint,
    norm,
    provenance,
    write_atomically,
    write_cache,
    write_result,
)
from sharp_maml import train as training
from synthetic import render_images
from tests.sharp_maml.tiny import assert_same_run, tiny_config, tiny_dataset

ROOT = Path(__file__).parents[2]
ANOTHER = ROOT / "tests/data/another_processor.json"
"""Numbers of a processor that is not this one: part of a record of an earlier commit."""

RADII = {"maml": (0.0, 0.0), "low": (0.05, 0.0), "up": (0.0, 0.05), "both": (0.05, 0.05)}
INNER = {"beta_low": 0.2, "steps": 1}
METHODS: dict[str, dict[str, Any]] = {
    **{name: {"alpha_low": low, "alpha_up": up, **INNER} for name, (low, up) in RADII.items()},
    "first-order": {"first_order": True, **INNER},
    "matching": {"method": "matching-fce"},
}
SIZES = {"image_size": 16, "filters": 4, "ways": 3, "queries": 5, "meta_batch": 2}
DTYPES = ("float32", "float64")
TOLERANCE = {dtype: torch.finfo(getattr(torch, dtype)).eps ** 0.5 for dtype in DTYPES}
"""Half of the digits: rounding begins in the last one, and what follows it magnifies."""
SIX_DIGITS = 5e-6
"""What rounding to six significant digits changes a number by, at most."""
ITERATIONS = 200
SHOWN = (1, 10, 50, 100, 200)
"""Iterations after which the drift is written down."""


def images(directory: Path) -> Dataset:
    """Twelve classes of the synthetic images, which are the same on every machine."""
    classes = {f"class{index}": render_images("train", index, range(12), size=16) for index in range(12)}
    return write_cache(directory, name="numbers", splits={"train": classes, "validation": classes, "test": classes})


def drawn(dataset: Dataset, dtype: str, first: int) -> list[Episode]:
    """A meta-batch of the training classes."""
    protocol = Protocol(SIZES["ways"], 1, SIZES["queries"])
    numbers = range(first, first + SIZES["meta_batch"])
    return [episode(dataset, "train", protocol, seed=0, index=i, dtype=getattr(torch, dtype)) for i in numbers]


def drift(dataset: Dataset, method: str, iterations: int = ITERATIONS) -> dict[str, Any]:
    """A training in float32 beside one in float64, from the same weights over the same episodes, by Adam.

    Returns:
        `parameters`: by iteration, |theta32 - theta64| / |theta64 - theta_0|; `largest_loss`: the largest
        |F32 - F64| of all iterations, each at its own parameters; `rounding`: the median and the largest, over every
        tenth iteration, of |g32 - g64| / |g64| with both gradients at the parameters of float64.
    """
    built = {dtype: build(Config(**SIZES, **METHODS[method], dtype=dtype), channels=3) for dtype in DTYPES}
    params = {dtype: each.init(0) for dtype, each in built.items()}
    start = {name: value.clone() for name, value in params["float64"].items()}
    optimizers = {dtype: torch.optim.Adam(each.values(), lr=1e-3) for dtype, each in params.items()}
    parameters, largest, rounding = {}, 0.0, []
    for done in range(1, iterations + 1):
        episodes = {dtype: drawn(dataset, dtype, (done - 1) * SIZES["meta_batch"]) for dtype in DTYPES}
        results = {dtype: each.method.gradient(params[dtype], episodes[dtype]) for dtype, each in built.items()}
        largest = max(largest, abs(float(results["float32"].loss) - float(results["float64"].loss)))
        if done % 10 == 1:
            single = {name: value.float() for name, value in params["float64"].items()}
            rounded = built["float32"].method.gradient(single, episodes["float32"]).grad
            rounding.append(_distance(rounded, results["float64"].grad) / float(norm(results["float64"].grad)))
        for dtype, result in results.items():
            for name, value in params[dtype].items():
                value.grad = result.grad[name]
            optimizers[dtype].step()
        if done in SHOWN:
            way = _distance(start, params["float64"])
            parameters[str(done)] = _distance(params["float32"], params["float64"]) / way
    return {
        "parameters": parameters,
        "largest_loss": largest,
        "rounding": [float(np.median(rounding)), max(rounding)],
    }


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return float(norm({name: value.double() - other[name].double() for name, value in one.items()}))


# What is not finite.

RUN = {"iterations": 8, "validate_every": 4, "checkpoint_every": 3}
AT = 4
"""Steps that are done when the number is put in."""


def _in_pixels(half: str, value: float) -> Any:
    class Spoiled(EpisodeStream):
        calls = 0

        def __next__(self) -> list[Episode]:
            episodes = super().__next__()
            self.calls += 1
            if self.calls == AT + 1:
                batch = getattr(episodes[1], half)
                inputs = batch.inputs.clone()
                inputs[0, 0, 0, 0] = value
                episodes[1] = episodes[1]._replace(**{half: batch._replace(inputs=inputs)})
            return episodes

    return mock.patch.object(training, "EpisodeStream", Spoiled)


def _in_result(change: Callable[[MetaGradient], MetaGradient]) -> Any:
    original = training._Run.gradient

    def gradient(self: training._Run, episodes: Any) -> MetaGradient:
        result = original(self, episodes)
        return change(result) if self.state.step == AT else result

    return mock.patch.object(training._Run, "gradient", gradient)


def _put(value: float, into: Tensor) -> None:
    into[(0,) * into.ndim] = value


def _first_entry(tree: Mapping[str, Tensor], value: float) -> dict[str, Tensor]:
    changed = {name: each.clone() for name, each in tree.items()}
    _put(value, next(iter(changed.values())))
    return changed


def _after_the_update(change: Callable[[training._Run], object]) -> Any:
    original = training._Run.step

    def step(self: training._Run, episodes: Any) -> dict[str, float]:
        seen = original(self, episodes)
        if self.state.step == AT + 1:
            with torch.no_grad():
                change(self)
        return seen

    return mock.patch.object(training._Run, "step", step)


def _moment(run: training._Run, name: str, value: float) -> None:
    _put(value, run.optimizer.state[next(iter(run.params.values()))][name])


def _in_evaluation(value: float) -> Any:
    original = training.correct_counts

    def counts(method: Any, *given: Any, **options: Any) -> Any:
        def logits(*arguments: Any) -> Tensor:
            found = method.logits(*arguments).clone()
            found[0, 0] = value
            return found

        return original(method._replace(logits=logits), *given, **options)

    return mock.patch.object(training, "correct_counts", counts)


STAGES: dict[str, Callable[[float], Any]] = {
    "a pixel of a support set": lambda value: _in_pixels("support", value),
    "a pixel of a query set": lambda value: _in_pixels("query", value),
    "the loss": lambda value: _in_result(lambda found: found._replace(loss=0 * found.loss + value)),
    "the loss at the upper ascent point": lambda value: _in_result(
        lambda found: found._replace(loss_ascent=0 * found.loss + value)
    ),
    "an entry of the gradient": lambda value: _in_result(
        lambda found: found._replace(grad=_first_entry(found.grad, value))
    ),
    "the norm of a finite gradient": lambda value: _in_result(
        lambda found: found._replace(grad=_first_entry(found.grad, math.copysign(1e30, value)))
    ),
    "a parameter, after the update": lambda value: _after_the_update(
        lambda run: _put(value, next(iter(run.params.values())))
    ),
    "Adam's first moment": lambda value: _after_the_update(lambda run: _moment(run, "exp_avg", value)),
    "Adam's second moment": lambda value: _after_the_update(lambda run: _moment(run, "exp_avg_sq", value)),
    "a logit of a validation": _in_evaluation,
}
"""Where a number is put in. The norm's is finite, 1e30, and its square is not."""
VALUES = (math.nan, math.inf, -math.inf)


def lost(stage: str, value: float, dataset: Dataset, directory: Path, whole: Path) -> str:
    """What is wrong with how a training took the number; empty where nothing is.

    It must stop with one line that names step and checkpoint, leave a checkpoint of finite numbers, and go on from it,
    without the number, to the end of a run that never had it, bit for bit.
    """
    config = tiny_config(alpha_low=0.05, alpha_up=0.05, **RUN)
    try:
        with STAGES[stage](value):
            training.train(config, dataset, directory)
    except NonFiniteError as error:
        said = str(error)
    else:
        return "the run went on"
    named = re.match(r"step (\d+): ", said)
    if not named or not AT <= int(named[1]) <= AT + RUN["checkpoint_every"] or "\n" in said:
        return f"the error is no line that names the step: {said}"
    if str(directory / "last.safetensors") not in said:
        return f"the error does not name the last good checkpoint: {said}"
    saved = load_checkpoint(directory / "last.safetensors").tensors
    if not all(torch.isfinite(value).all() for value in saved.values()):
        return "the checkpoint has numbers that are not finite"
    training.train(config, dataset, directory)
    try:
        assert_same_run(whole, directory)
    except AssertionError:
        return "the run that went on ended elsewhere"
    return ""


def whole_run(dataset: Dataset, directory: Path) -> Path:
    """The run that no number spoils."""
    training.train(tiny_config(alpha_low=0.05, alpha_up=0.05, **RUN), dataset, directory)
    return directory


# The same work, executed otherwise.

WAYS: dict[str, dict[str, Any]] = {
    "once more": {},
    "two threads of episodes": {"episode_threads": 2, "OMP_NUM_THREADS": "2"},
    "two threads in every operation": {"OMP_NUM_THREADS": "2"},
    "two processes": {"processes": 2},
    "torch's operations in place of the native kernels": {"SHARP_MAML_KERNELS": "0"},
    "vector instructions of 2008 in torch": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Ways of executing; what is in capitals is a variable of the environment. All are held against one thread."""
SAME_BITS = ("once more", "two threads of episodes")


def fixed(
    dataset: Dataset, dtype: str, *, episode_threads: int = 1, rank: int = 0, ranks: int = 1
) -> dict[str, Tensor]:
    """Loss and meta-gradient of every method at fixed weights and episodes: one vector each, with the loss first."""
    found = {}
    for name, settings in METHODS.items():
        built = build(Config(**SIZES, **settings, dtype=dtype, episode_threads=episode_threads), channels=3)
        result = built.method.gradient(built.init(0), drawn(dataset, dtype, 0)[rank::ranks])
        parts = [result.loss.view(1), *(value.reshape(-1) for value in result.grad.values())]
        found[name] = torch.cat(parts).double()
    return found


def write_fixed(path: str, episode_threads: int) -> None:
    """`fixed` in both types, in this process as its environment has it, as a file; of several processes the first's."""
    ranks = distributed.start("cpu")
    with tempfile.TemporaryDirectory() as place:
        dataset = images(Path(place) / "images")
        share = {"episode_threads": episode_threads, "rank": ranks.rank, "ranks": ranks.world_size}
        arrays = {
            f"{dtype} {name}": value.numpy()
            for dtype in DTYPES
            for name, value in fixed(dataset, dtype, **share).items()
        }
    if ranks.rank == 0:
        np.savez(path, **arrays)
    distributed.stop()


def executed(way: str, folder: Path) -> dict[str, np.ndarray]:
    """The vectors of `fixed` by type and method, from processes of their own."""
    settings = WAYS[way]
    path = folder / "found.npz"
    given = {name: value for name, value in settings.items() if name.isupper()}
    code = "import sys; from tests.torture.numbers import write_fixed; write_fixed(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(path), str(settings.get("episode_threads", 1))]
    count = settings.get("processes", 1)
    environments = distributed.local_ranks(count) if count > 1 else [{}]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **each, **given})
        for each in environments
    ]
    if codes := [code for code in (process.wait() for process in processes) if code]:
        raise RuntimeError(f"{way}: a process ended with {codes[0]}")
    with np.load(path) as found:
        return dict(found)


def apart(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By type, the largest over methods of |a - b| / |b|; 0 means the same bits."""
    return {
        dtype: max(
            float(np.linalg.norm(found[key] - each) / np.linalg.norm(each))
            for key, each in expected.items()
            if key.startswith(dtype)
        )
        for dtype in DTYPES
    }


# Another processor.


def summary(vector: Tensor) -> list[float]:
    """The loss, the norm of the gradient, and its products with three unit vectors of fixed signs."""
    loss, grad = vector[0], vector[1:]
    words = np.random.Philox(0).random_raw(3 * len(grad)).reshape(3, -1)
    signs = torch.from_numpy((words & 1) * 2.0 - 1.0)
    return [float(loss), float(grad.norm()), *(signs @ grad / len(grad) ** 0.5).tolist()]


def farthest(numbers: Mapping[str, list[float]], tracked: Mapping[str, list[float]]) -> float:
    """Largest difference of summaries: losses in parts of the loss, all others in parts of the gradient's norm."""
    worst = 0.0
    for name, (loss, size, *products) in tracked.items():
        found = numbers[name]
        worst = max(worst, abs(found[0] - loss) / abs(loss))
        worst = max(worst, *(abs(a - b) / size for a, b in zip(found[1:], [size, *products], strict=True)))
    return worst


def another_processor() -> dict[str, Any]:
    """The tracked numbers of another processor against the same computed here.

    Returns:
        Its `device`; how many `points` of the plane there are; and `largest`, the largest |a - b| / |b| of a point.
    """
    tracked = json.loads(ANOTHER.read_text(encoding="utf-8"))
    names, steps = list(tracked["paths"]), len(tracked["paths"]["maml"]) - 1
    radii = tracked["radius"] * torch.tensor([plane.VARIANTS[name] for name in names], dtype=torch.float64)
    start = torch.tensor([plane.START] * len(names), dtype=torch.float64)
    path = plane.run(start, steps, *radii.unbind(1))
    step = plane.one_step(torch.tensor(tracked["one_step"]["theta"], dtype=torch.float64), plane.tasks())
    points = ("theta", "eps_m", "adapted", "eps", "adapted_above", "next")
    pairs = [(path[:, number], tracked["paths"][name]) for number, name in enumerate(names)]
    pairs += [(step[name], tracked["one_step"][name]) for name in points]
    found, expected = (
        np.concatenate([np.asarray(pair[side], dtype=np.float64).reshape(-1, 2) for pair in pairs]) for side in (0, 1)
    )
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return {"device": tracked["device"], "points": len(expected), "largest": float(errors.max())}


# Record and page.


def page(result: Result, link: str) -> str:
    """The result in markdown, as sections of the page of reliability, with a link to its record."""
    record, origin = result.payload, result.provenance
    shown = list(record["drift"]["maml"]["parameters"])
    lines = [
        "",
        "## Float32 beside float64",
        "",
        f"{record['iterations']} meta-iterations of every method in both types, from the same weights over the same "
        f"episodes: conv4 with {SIZES['filters']} filters at {SIZES['image_size']} pixels, {SIZES['ways']} classes, by "
        "Adam. At the same parameters a meta-gradient in float32 is that of float64 up to rounding (median and largest "
        "of every tenth iteration). The two trainings are together until a ReLU or a maximum decides otherwise in one "
        "of them: there the meta-gradient jumps, and each goes its own way. Their distance is in parts of the way that "
        "the parameters have gone.",
        "",
        f"| method | gradient, median | largest | {' | '.join(f'apart after {step}' for step in shown)} | "
        "largest difference of a loss |",
        f"|---|{'--:|' * (len(shown) + 3)}",
    ]
    for method, found in record["drift"].items():
        numbers = [*found["rounding"], *found["parameters"].values(), found["largest_loss"]]
        lines.append(f"| {method} | {' | '.join(f'{number:.1e}' for number in numbers)} |")
    faults, other = record["faults"], record["another_processor"]
    put_in, lost_runs = (sum(entry[of] for entry in faults.values()) for of in ("put in", "lost"))
    lines += [
        "",
        "## What is not finite",
        "",
        f"{put_in} times a NaN or an infinity was put into a training, at every stage; {lost_runs} runs were lost. A "
        "run must stop with one line that names the step and the last good checkpoint, leave only finite numbers "
        "there, and go on from it, without the number, to the end of a run that never had it, bit for bit.",
        "",
        "| put into | times | lost |",
        "|---|--:|--:|",
        *(f"| {stage} | {entry['put in']} | {entry['lost']} |" for stage, entry in faults.items()),
        "",
        "## The same work, executed otherwise",
        "",
        "The meta-gradients of all methods at fixed weights and episodes, against those of one thread of one process: "
        "the largest |a - b| / |b|. The first two are promised to be the same bits, and tested; the others, which may "
        "add in another order, to agree in half of the digits, whatever they did here.",
        "",
        "| executed | float32 | float64 |",
        "|---|--:|--:|",
    ]
    for way, found in record["ways"].items():
        said = (f"{found[dtype]:.1e}" if found[dtype] else "the same bits" for dtype in DTYPES)
        lines.append(f"| {way} | {' | '.join(said)} |")
    lines += [
        "",
        "## Another processor",
        "",
        f"{other['points']} points of paths and of one iteration of the algorithm in the plane, in float64, of an "
        f"{other['device']}, computed again on an {origin['device']}: the largest |a - b| / |b| is "
        f"{other['largest']:.1e}; six tracked digits allow {SIX_DIGITS:.1e}. Losses and meta-gradients of all methods "
        "are in the record, so that every other machine compares: the tests compute them again where they run, and "
        f"allow half of the digits, {TOLERANCE['float32']:.1e} in float32 and {TOLERANCE['float64']:.1e} in float64.",
        "",
        f"{origin['device']}, {origin['kernels']} kernels, torch {origin['torch']}; {result.code}. [Record]({link}). "
        "Rerun: `make torture`.",
        *(["", result.caveat] if result.caveat else []),
    ]
    return "\n".join([*lines, ""])


def measure(iterations: int) -> Iterator[tuple[str, Any]]:
    """The parts of the record, one after the other."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset, tiny = images(folder / "images"), tiny_dataset(folder / "tiny")
        yield "drift", {method: drift(dataset, method, iterations) for method in METHODS}
        whole, faults = whole_run(tiny, folder / "whole"), {}
        for stage in STAGES:
            said = {str(value): lost(stage, value, tiny, folder / f"{stage} {value}", whole) for value in VALUES}
            wrong = {value: text for value, text in said.items() if text}
            faults[stage] = {"put in": len(said), "lost": len(wrong), "shown": wrong}
        yield "faults", faults
        alone = executed("once more", folder)
        yield "ways", {way: apart(executed(way, folder), alone) for way in WAYS}
        numbers = {dtype: {name: summary(each) for name, each in fixed(dataset, dtype).items()} for dtype in DTYPES}
        yield "numbers", numbers
        yield "another_processor", another_processor()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.numbers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help=f"of each training (default {ITERATIONS})")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    origin = provenance(module="tests.torture.numbers")
    record: dict[str, Any] = {"iterations": options.iterations}
    for part, found in measure(options.iterations):
        record[part] = found
        print(f"{part}: {json.dumps(found):.200}", flush=True)
    result, path = Result("numbers", origin, record), options.output / "numbers.json"
    write_result(path, result)
    write_atomically(path.with_suffix(".md"), page(result, path.name).encode())
    wrong = outside(record)
    print("\n".join(wrong) or f"nothing lost; {path.with_suffix('.md')}")
    return int(bool(wrong))


def outside(record: Mapping[str, Any]) -> list[str]:
    """What a record has outside its tolerances: lost runs, other bits or numbers; empty where nothing is."""
    wrong = [f"{stage}: {entry['shown']}" for stage, entry in record["faults"].items() if entry["lost"]]
    for way, found in record["ways"].items():
        allowed = dict.fromkeys(DTYPES, 0.0) if way in SAME_BITS else TOLERANCE
        wrong += [f"{way}: {found[dtype]:.1e} in {dtype}" for dtype in DTYPES if not found[dtype] <= allowed[dtype]]
    if not record["another_processor"]["largest"] <= SIX_DIGITS + TOLERANCE["float64"]:
        wrong.append(f"another processor: {record['another_processor']}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
