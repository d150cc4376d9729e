"""Speed and memory against plain loops that compute the same number: `python -m benchmarks.bench [--quick]`.

Each side runs in processes of its own, since `mallopt` sets the whole process; the sides are timed in turn, A B A B, so
that a busy machine slows all, and a ratio is the median over the turns. The other sides are a plain unrolled loop and,
with `--peers PYTHON`, the libraries that this interpreter's environment has. GEMM is measured in the same processes;
the fraction of the limit is that of the time which GEMM would take for the operations counted in `work.py`. Beside the
table, a JSON record. Read next: `plain.py`, `peers.py` (the other sides), `work.py` (what is done), `profile.py` (where
the time goes), `page.py` (what is shown of the record).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.peers import PEERS
from benchmarks.profile import profile
from benchmarks.work import SIDES, Work, flops
from reproductions import study
from sharp_maml import Result, distributed, keep_freed_memory, provenance, write_result

VARIANTS = [f"{variant}-{steps}" for variant in ("maml", "low", "up", "both") for steps in (1, 5)]
FULL = [f"{variant}@{pixels}" for pixels in (84, 42) for variant in VARIANTS]
QUICK = ["maml-1@42", "both-5@42"]
PROFILED = [f"{variant}@{pixels}" for pixels in (84, 42) for variant in ("maml-1", "maml-5", "both-5")]
SCALED = {
    "inner steps": [Work(f"maml-{steps}", 42) for steps in (1, 2, 5, 10)],
    "episodes": [Work("maml-1", 42, episodes=episodes) for episodes in (1, 2, 4, 8)],
}
SHARED = ["maml-1@84", "low-5@84", "both-5@84", "maml-1@42", "maml-5@42", "low-5@42", "up-5@42", "both-5@42"]
COMPILED = ["maml-1@42", "maml-5@42"]
NATIVE = [  # of the tiers demo, cpu, cpu-42 and paper
    Work(variant, pixels, filters=filters)
    for pixels, filters, steps in ((16, 16, 1), (28, 32, 1), (42, 32, 1), (84, 64, 5))
    for variant in (f"maml-{steps}", f"both-{steps}")
]
SMALL = Work("maml-1", 20, episodes=1, queries=2, filters=8)


class Side(NamedTuple):
    """A work, what does it, and by which interpreter."""

    work: Work
    name: str
    python: str = sys.executable


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two works of 42 pixels and three turns, about a minute")
    parser.add_argument("--only", nargs="+", metavar="WORK", help=f"ratios alone, of some of {' '.join(FULL)}")
    parser.add_argument("--repeats", type=int, help="turns (default 5; quick 3)")
    parser.add_argument("--peers", metavar="PYTHON", help=f"interpreter of an environment with {', '.join(PEERS)}")
    parser.add_argument("--output", type=Path, default=Path("results/bench/speed.json"), help="the record")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(options.worker[0], Work(**json.loads(options.worker[1])))
        return
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats must be >= 1, got {options.repeats}")

    works = [Work.named(name) for name in options.only or (QUICK if options.quick else FULL)]
    repeats = options.repeats or (3 if options.quick else 5)
    is_whole = not (options.quick or options.only)
    peers = _versions(options.peers) if options.peers else {}
    origin = provenance(module="benchmarks.bench")  # the code may change meanwhile
    errors = float32_error() | {name: error_of(Side(SMALL, name, options.peers)) for name in peers}
    payload: dict[str, Any] = {"peers": peers, "float32_error": errors}
    result = Result("speed", origin, payload)

    def measured(key: str, jobs: Sequence[Callable[[], Any]], description: str) -> None:
        payload[key] = []
        for job in track(jobs, description=description, transient=True):
            payload[key].append(job())
            write_result(options.output, result)  # after every row: the last take minutes

    def against_others(work: Work, **said: str) -> dict[str, Any]:
        others = {name: Side(work, name, options.peers) for name in peers if work.variant.startswith("maml")}
        return {**said, **compare({"ours": Side(work, "ours"), "plain": Side(work, "plain"), **others}, repeats)}

    measured("rows", [partial(against_others, work) for work in works], "meta-iterations")
    if is_whole:
        scaled = [partial(against_others, work, over=over) for over, those in SCALED.items() for work in those]
        measured("scaling", scaled, "scaling")
        measured("processes", [partial(in_processes, name, repeats) for name in SHARED], "processes")
        measured("compiled", [partial(when_compiled, name, repeats) for name in COMPILED], "compiled")
        measured("kernels", [partial(with_kernels, work, repeats) for work in NATIVE], "kernels")
        measured("profile", [partial(profiled, name) for name in PROFILED], "profile")
    show(result)


def compare(sides: Mapping[str, Side], repeats: int) -> dict[str, Any]:
    """Time sides in turn, after one meta-iteration each that is not counted; ratios are to the first."""
    first, *others = sides
    with ExitStack() as stack:
        ask = {label: stack.enter_context(_workers(side)) for label, side in sides.items()}
        first_seconds = {label: ask[label]("step")["seconds"] for label in sides}
        seconds: dict[str, list[float]] = {label: [] for label in sides}
        faults: dict[str, list[int]] = {label: [] for label in sides}
        gemm = []
        for _ in range(repeats):
            for label in sides:
                answer = ask[label]("step")
                seconds[label].append(answer["seconds"])
                faults[label].append(answer["faults"])
            gemm.append(ask[first]("gemm"))
        memory = {label: ask[label]("memory") for label in sides}
    work = sides[first].work
    limit = flops(work) / statistics.median(gemm) / 1e9
    median = {label: statistics.median(times) for label, times in seconds.items()}
    return {
        "work": f"{work.variant}@{work.pixels}",
        **{key: getattr(work, key) for key in ("steps", "episodes", "processes", "threads", "episode_threads")},
        "first_seconds": first_seconds,
        "seconds": seconds,
        "median_seconds": median,
        "ratio": {label: _ratio(seconds[label], seconds[first]) for label in others},
        "page_faults": {label: statistics.median(counts) for label, counts in faults.items()},
        "peak_gib_above_import": memory,
        "gflop": flops(work) / 1e9,
        "gemm_gflop_per_second": statistics.median(gemm),
        "fraction_of_limit": {label: limit / time for label, time in median.items()},
    }


def in_processes(name: str, repeats: int) -> dict[str, Any]:
    """Two processes of one thread that share the episodes, against one of one or two threads, and the plain loop."""
    work = Work.named(name)
    sides = {
        "two processes": Side(work._replace(processes=2, threads=1), "ours"),
        "one process, one thread": Side(work._replace(threads=1), "ours"),
        "one process, two threads": Side(work._replace(threads=2), "ours"),
        "plain": Side(work._replace(threads=2), "plain"),
    }
    return compare(sides, repeats)


def when_compiled(name: str, repeats: int) -> dict[str, Any]:
    """The package's compiled form against its eager one, one thread each."""
    work = Work.named(name)._replace(threads=1)
    return compare({"compiled": Side(work._replace(compile=True), "ours"), "eager": Side(work, "ours")}, repeats)


def with_kernels(work: Work, repeats: int) -> dict[str, Any]:
    """The package with its native kernels against itself on torch's operations, one thread each."""
    work = work._replace(threads=1)
    sides = {"kernels": Side(work, "ours"), "torch": Side(work._replace(kernels=False), "ours")}
    return {**compare(sides, repeats), "filters": work.filters}


def profiled(name: str) -> dict[str, Any]:
    """Where the time of one thread goes, on both sides."""
    found = {}
    for label in ("ours", "plain"):
        with _workers(Side(Work.named(name)._replace(threads=1), label)) as ask:
            ask("step")
            found[label] = ask("profile")
    return {"work": name, **found}


def worker(side: str, work: Work) -> None:
    """Answer `step`, `gemm`, `memory`, `profile` and `error` from standard input, a line of JSON each."""
    ranks = distributed.start("cpu")
    if work.threads:
        torch.set_num_threads(work.threads)
    if not work.kernels:
        os.environ["SHARP_MAML_KERNELS"] = "0"  # read when a block is computed for the first time
    if side == "ours":
        keep_freed_memory()
    after_import = _peak_memory()
    params, episodes = work.data()
    share = len(episodes) // ranks.world_size
    episodes = episodes[ranks.rank * share :][:share]

    def step() -> None:
        SIDES[side](work, params, episodes)

    def timed() -> dict[str, float]:
        faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults}

    answers: dict[str, Callable[[], Any]] = {
        "step": timed,
        "gemm": _gemm_rate,
        "memory": lambda: _peak_memory() - after_import,
        "profile": lambda: profile(step),
        "error": lambda: relative_error(side, work),
    }
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
    distributed.stop()


def float32_error() -> dict[str, float]:
    """Relative errors of the float32 gradient against float64, ours, of the plain loop, and ours in bfloat16."""
    return {
        "ours": relative_error("ours", SMALL),
        "plain": relative_error("plain", SMALL),
        "bfloat16": relative_error("ours", SMALL._replace(bfloat16=True)),
    }


def error_of(side: Side) -> float:
    """The relative error of another side, in a process of its interpreter."""
    with _workers(side) as ask:
        return float(ask("error"))


def relative_error(side: str, work: Work, seeds: int = 9) -> float:
    """Relative error of a side's float32 gradient against float64: the median over small networks, where ties are rare.

    One inner step; at full size float32 flips a ReLU or a maximum somewhere, which says nothing about the arithmetic.
    """
    errors = []
    for seed in range(seeds):
        exact = SIDES["plain"](work, *work.data(torch.float64, seed))
        grad = SIDES[side](work, *work.data(torch.float32, seed))
        size = torch.stack([value.norm() for value in exact.values()]).norm()
        difference = torch.stack([(grad[name] - exact[name]).norm() for name in exact]).norm()
        errors.append((difference / size).item())
    return float(statistics.median(errors))


def show(result: Result, console: Console | None = None) -> None:
    """Print the table: seconds, memory above the import and fraction of the limit, those of plain beside ours."""
    record, origin = result.payload, result.provenance
    headers = "work", "seconds", "plain", "ratio", "min-max", "GiB", "plain", "of limit", "plain"
    table = Table(*headers, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in record["rows"]:
        median, memory, fraction = (
            row[key] for key in ("median_seconds", "peak_gib_above_import", "fraction_of_limit")
        )
        ratio = row["ratio"]["plain"]
        table.add_row(
            row["work"],
            f"{median['ours']:.2f}",
            f"{median['plain']:.2f}",
            f"{ratio['median']:.2f}",
            f"{ratio['min']:.2f}-{ratio['max']:.2f}",
            f"{memory['ours']:.2f}",
            f"{memory['plain']:.2f}",
            f"{fraction['ours']:.2f}",
            f"{fraction['plain']:.2f}",
        )
    console = console or study.console()
    console.print(table)
    for row in record["rows"]:
        for name in record["peers"].keys() & row["ratio"].keys():
            ratio = row["ratio"][name]
            console.print(
                f"{row['work']} against {name}: {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
            )
    for row in record.get("processes", []):
        for label, ratio in row["ratio"].items():
            console.print(f"{row['work']}, two processes against {label}: {ratio['median']:.2f}")
    gemm = statistics.median(row["gemm_gflop_per_second"] for row in record["rows"])
    error = record["float32_error"]
    console.print(f"{origin['device']}, {origin['threads']} threads, torch {origin['torch']}: GEMM {gemm:.0f} GFLOP/s")
    console.print(f"float32 error against float64: ours {error['ours']:.1e}, plain {error['plain']:.1e}")


@contextmanager
def _workers(side: Side) -> Iterator[Callable[[str], Any]]:
    """Start a side's processes; gives a function that asks them all: memory adds up, else the first one's answer."""
    command = [side.python, "-m", __spec__.name, "--worker", side.name, json.dumps(side.work._asdict())]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        for variables in distributed.local_ranks(side.work.processes)
    ]

    def ask(what: str) -> Any:
        for process in processes:
            print(what, file=process.stdin, flush=True)
        answers = [process.stdout.readline() for process in processes]  # type: ignore[union-attr]
        if not all(answers):
            raise RuntimeError(f"a process of {side.name} for {side.work} ended")
        found = [json.loads(answer) for answer in answers]
        return sum(found) if what == "memory" else found[0]

    try:
        yield ask
    finally:
        for process in processes:
            process.communicate()


def _versions(python: str) -> dict[str, str]:
    """Versions of the public libraries in an environment.

    Raises:
        SystemExit: The interpreter does not run, or lacks one of them.
    """
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    try:
        done = subprocess.run([python, "-c", code, *PEERS], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"--peers must be an interpreter with {', '.join(PEERS)} installed, got {python}: {error}"
        ) from error
    return dict(zip(PEERS, done.stdout.split(), strict=True))


def _ratio(others: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    ratios = [other / own for own, other in zip(ours, others, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "n": len(ratios)}


def _peak_memory() -> float:
    """Largest resident memory of this process so far, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _gemm_rate(size: int = 2048, repeats: int = 3) -> float:
    a = torch.rand(size, size)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


if __name__ == "__main__":
    main()
