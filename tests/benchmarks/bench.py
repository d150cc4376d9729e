"""Speed and memory against a plain loop that computes the same number: `python -m tests.benchmarks.bench [--quick]`.

Each side runs in a process of its own, since `mallopt` sets the whole process; the two are timed in turn, A B A B, so
that a busy machine slows both, and the ratio is the median over the pairs. GEMM is measured in the same processes; the
fraction is that of the time which GEMM would take for the operations counted in `work.py`. Beside the table, a JSON
record. Read next: `plain.py` (the other side), `work.py` (what is done).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sharp_maml.allocator import keep_freed_memory
from sharp_maml.records import provenance

from .work import SIDES, Work, flops

FULL = [f"{variant}@{pixels}" for pixels in (84, 42) for variant in ("maml-1", "maml-5", "both-1", "both-5")]
QUICK = ["maml-1@42", "both-5@42"]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two works of 42 pixels and three repeats, about a minute")
    parser.add_argument("--only", nargs="+", metavar="WORK", help=f"some of {' '.join(FULL)}, or like them")
    parser.add_argument("--repeats", type=int, help="pairs of measurements (default 5; quick 3)")
    parser.add_argument("--output", type=Path, default=Path("results/bench.json"), help="the record")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(*options.worker)
        return

    names = options.only or (QUICK if options.quick else FULL)
    repeats = options.repeats or (3 if options.quick else 5)
    record: dict[str, Any] = {"schema": 1, **provenance(), "float32_error": float32_error(), "rows": []}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in track(names, description="meta-iterations", transient=True):
        record["rows"].append(compare(name, repeats))
        options.output.write_text(json.dumps(record, indent=1) + "\n")  # after every row: the last ones take minutes
    show(record)


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Time both sides of one work in turn, after one meta-iteration each that is not counted."""
    processes = {
        side: subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--worker", side, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in SIDES
    }

    def ask(side: str, what: str) -> Any:
        process = processes[side]
        print(what, file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {side} for {name} ended")
        return json.loads(answer)

    try:
        for side in SIDES:
            ask(side, "step")
        seconds = {side: [] for side in SIDES}
        gemm = []
        for _ in range(repeats):
            for side in SIDES:
                seconds[side].append(ask(side, "step"))
            gemm.append(ask("ours", "gemm"))
        memory = {side: ask(side, "memory") for side in SIDES}
    finally:
        for process in processes.values():
            process.communicate()
    ratios = [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]
    rate = statistics.median(gemm)
    limit = flops(Work.named(name)) / rate / 1e9
    median = {side: statistics.median(times) for side, times in seconds.items()}
    return {
        "work": name,
        "episode_threads": Work.named(name).episode_threads,
        "seconds": seconds,
        "median_seconds": median,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "n": repeats},
        "peak_gib_above_import": memory,
        "gflop": flops(Work.named(name)) / 1e9,
        "gemm_gflop_per_second": rate,
        "fraction_of_limit": {side: limit / time for side, time in median.items()},
    }


def worker(side: str, name: str) -> None:
    """Answer `step`, `gemm` and `memory` from standard input with seconds, GFLOP/s and GiB."""
    if side == "ours":
        keep_freed_memory()
    after_import = _peak_memory()
    work = Work.named(name)
    params, episodes = work.data()
    for line in sys.stdin:
        start = time.perf_counter()
        if line == "step\n":
            SIDES[side](work, params, episodes)
            answer = time.perf_counter() - start
        elif line == "gemm\n":
            answer = _gemm_rate()
        else:
            answer = _peak_memory() - after_import
        print(json.dumps(answer), flush=True)


def float32_error(seeds: int = 9) -> dict[str, float]:
    """Relative error of the float32 gradient against float64: the median over small networks, where ties are rare.

    One inner step; at full size float32 flips a ReLU or a maximum somewhere, which says nothing about the arithmetic.
    """
    work = Work("maml-1", 20, episodes=1, queries=2, filters=8)
    errors: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in range(seeds):
        exact = SIDES["plain"](work, *work.data(torch.float64, seed))
        size = torch.stack([value.norm() for value in exact.values()]).norm()
        for side, gradient in SIDES.items():
            grad = gradient(work, *work.data(torch.float32, seed))
            difference = torch.stack([(grad[name] - exact[name]).norm() for name in exact]).norm()
            errors[side].append((difference / size).item())
    return {side: statistics.median(values) for side, values in errors.items()}


def show(record: dict[str, Any]) -> None:
    """Print the table: seconds, memory above the import and fraction of the limit, those of plain beside ours."""
    table = Table("work", "seconds", "plain", "ratio", "min-max", "GiB", "plain", "of limit", "plain")
    for row in record["rows"]:
        ratio, median, memory, fraction = (
            row[key] for key in ("ratio", "median_seconds", "peak_gib_above_import", "fraction_of_limit")
        )
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
    console = Console(width=100)
    console.print(table)
    gemm = statistics.median(row["gemm_gflop_per_second"] for row in record["rows"])
    error = record["float32_error"]
    console.print(f"{record['device']}, {record['threads']} threads, torch {record['torch']}: GEMM {gemm:.0f} GFLOP/s")
    console.print(f"float32 error against float64: ours {error['ours']:.1e}, plain {error['plain']:.1e}")


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
