"""Measuring claims in several processes, deciding them together, and the record of each.

Claims that read the same runs name them in `shares` and are measured by one process, which keeps the runs. Read next:
`report.py`, `figures.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sharp_maml import provenance, write_atomically
from theory.claim import BUDGETS, LEVEL, Budget, Claim, Evidence, Unit, Verdict, decide, registry

SCHEMA = 1
_results: Any = None


def judge(
    claims: Mapping[str, Claim],
    budget: Budget,
    seed: int,
    *,
    jobs: int,
    started: Callable[[Unit], None] = lambda unit: None,
    finished: Callable[[Unit], None] = lambda unit: None,
) -> list[Verdict]:
    """Measure claims and their controls, and decide them together.

    Args:
        claims: Claims of the registry, by id.
        budget: How much work.
        seed: Base seed: a claim's outcome may not depend on it.
        jobs: Processes, one thread each.
        started: Called when a unit is begun.
        finished: Called when a unit is done.

    Returns:
        A verdict a claim, in their order.

    Raises:
        Exception: What a measurement raised.
    """
    groups: dict[str, list[str]] = {}
    for name, claim in claims.items():
        groups.setdefault(claim.shares or name, []).append(name)
    largest_first = sorted(groups.values(), key=len, reverse=True)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    evidence: dict[Unit, Evidence] = {}
    seconds: dict[Unit, float] = {}
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(results,)) as pool:
        futures = [pool.submit(_measure, names, budget.name, seed) for names in largest_first]
        try:
            expected = sum(1 + len(claim.controls) for claim in claims.values())
            while len(evidence) < expected:
                unit, found, took = _next(results, futures)
                if found is None:
                    started(unit)
                else:
                    evidence[unit], seconds[unit] = found, took
                    finished(unit)
        except BaseException:
            for process in multiprocessing.active_children():  # the others would go on for minutes
                process.terminate()
            raise
    return decide(claims, evidence, seconds)


def record(verdict: Verdict, budget: Budget, seed: int) -> dict[str, Any]:
    """What is written down of a verdict: its text, numbers, curves, outcome and provenance, ready for JSON."""
    claim = verdict.claim
    return {
        "schema": SCHEMA,
        **provenance(),
        "id": claim.id,
        "budget": asdict(budget),
        "seed": seed,
        "level": LEVEL,
        "text": dict(claim.text),
        "evidence": claim.evidence,
        "literal": claim.literal,
        "rule": {"text": claim.rule.text, "below": str(claim.rule.below), "above": str(claim.rule.above)},
        "latex": verdict.evidence[""].latex,
        "expected": claim.expected,
        "passed": verdict.passed,
        "tightness": verdict.tightness,
        "units": {
            control or "claim": {
                "outcome": verdict.outcomes[control],
                "seconds": verdict.seconds[control],
                "items": [asdict(item) for item in brought.items],
                "curves": [asdict(curve) for curve in brought.curves],
            }
            for control, brought in verdict.evidence.items()
        },
    }


def write(verdict: Verdict, budget: Budget, seed: int, directory: Path) -> Path:
    """Write the record of a verdict as `directory/records/<id>.json`."""
    path = directory / "records" / f"{verdict.claim.id}.json"
    write_json(path, record(verdict, budget, seed))
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that `path` holds the old content or the new one, whole."""
    write_atomically(path, (json.dumps(content, indent=1, default=float) + "\n").encode())


def _next(results: Any, futures: list[Future[None]]) -> tuple[Unit, Evidence | None, float]:
    """The next message of a process; raises what ended one of them."""
    while True:
        try:
            message: tuple[Unit, Evidence | None, float] = results.get(timeout=0.2)
        except queue.Empty:
            for future in futures:
                if future.done():
                    future.result()
        else:
            return message


def _start(results: Any) -> None:
    global _results
    _results = results
    torch.set_num_threads(1)


def _measure(names: list[str], budget: str, seed: int) -> None:
    for name in names:
        claim = _registry()[name]
        for control, measure in {"": claim.measure, **claim.controls}.items():
            unit = Unit(name, control)
            _results.put((unit, None, 0.0))
            began = time.perf_counter()
            found = measure(BUDGETS[budget], seed)
            _results.put((unit, found, time.perf_counter() - began))


@cache
def _registry() -> dict[str, Claim]:
    return registry()
