"""Measuring claims in several processes, deciding them together, and the record of each.

Claims that read the same runs name them in `shares` and are measured by one process, which keeps the runs. Read next:
`report.py`, `figures.py`.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from sharp_maml import (
    RecordError,
    Result,
    end_with_parent,
    provenance,
    read_result,
    sources,
    write_atomically,
    write_result,
)
from sharp_maml.paper import save_figure
from theory.check.claim import LEVEL, Budget, Curve, Evidence, Item, Unit, Verdict, decide, registry

TRACKED = Path(__file__).parents[2] / "records/theory"
"""Where the results that the repository tracks lie."""
_progress: Any = None


def judge(
    names: Sequence[str],
    budget: Budget,
    seed: int,
    *,
    jobs: int,
    started: Callable[[Unit], None] = lambda unit: None,
    finished: Callable[[Unit], None] = lambda unit: None,
) -> list[Verdict]:
    """Measure claims and their controls, and decide them together.

    Args:
        names: Ids of claims in the registry.
        budget: How much work.
        seed: Base seed: a claim's outcome may not depend on it.
        jobs: Processes, one thread each.
        started: Called when a unit is begun.
        finished: Called when a unit is done.

    Returns:
        A verdict a claim, in their order.

    Raises:
        Exception: What a measurement raised, or what ended its process.
    """
    every = registry()
    claims = {name: every[name] for name in names}
    common = {**provenance(), "budget": asdict(budget), "seed": seed}  # the files may change meanwhile
    origins = {name: {**common, "sources": sources(claim.module)} for name, claim in claims.items()}
    groups: dict[str, list[str]] = {}
    for name, claim in claims.items():
        groups.setdefault(claim.shares or name, []).append(name)
    context = multiprocessing.get_context("spawn")
    progress = context.SimpleQueue()
    others = multiprocessing.active_children()
    evidence: dict[Unit, Evidence] = {}
    seconds: dict[Unit, float] = {}
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(progress,)) as pool:
        longest_first = sorted(groups.values(), key=lambda group: sum(map(_recorded_seconds, group)), reverse=True)
        waiting = {pool.submit(_measure, group, budget, seed) for group in longest_first}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                while not progress.empty():
                    unit, is_done = progress.get()
                    (finished if is_done else started)(unit)
                for future in done:
                    for unit, (brought, took) in future.result().items():
                        evidence[unit], seconds[unit] = brought, took
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()  # it would go on for minutes
            raise
    return [replace(verdict, origin=origins[verdict.claim.id]) for verdict in decide(claims, evidence, seconds)]


def record(verdict: Verdict) -> Result:
    """What is written down of a verdict: its text, numbers, curves, outcome and origin."""
    claim = verdict.claim
    payload = {
        "id": claim.id,
        "level": LEVEL,
        "text": dict(claim.text),
        "evidence": claim.evidence,
        "literal": claim.literal,
        "rule": {"text": claim.rule.text, "below": str(claim.rule.below), "above": str(claim.rule.above)},
        "latex": verdict.evidence[""].latex,
        "expected": claim.expected,
        "passed": verdict.passed,
        "furthest": verdict.furthest,
        "units": {
            control or "claim": {
                "outcome": verdict.outcomes[control],
                "seconds": verdict.seconds[control],
                "items": [item.to_dict() for item in brought.items],
                "curves": [asdict(curve) for curve in brought.curves],
            }
            for control, brought in verdict.evidence.items()
        },
    }
    return Result("claim", verdict.origin, payload)


def write(verdict: Verdict, directory: Path) -> Path:
    """Write the record of a verdict as `directory/claims/<id>.json`."""
    path = directory / "claims" / f"{verdict.claim.id}.json"
    write_result(path, record(verdict))
    return path


def read(directory: Path) -> list[Verdict]:
    """The verdicts whose records lie in `directory/claims/`, decided together, in the order of the registry.

    Text and rule are those of today's claims; what was measured is the record's.

    Args:
        directory: Where `write` put them.

    Returns:
        The verdicts.

    Raises:
        ValueError: There is no record, one has another form, or it was measured by other code than today's.
    """
    every = registry()
    paths = {path.stem: path for path in (directory / "claims").glob("*.json")}
    if not paths:
        raise ValueError(
            f"no records in {directory / 'claims'}: make them with `python -m theory --output {directory}`"
        )
    evidence: dict[Unit, Evidence] = {}
    seconds: dict[Unit, float] = {}
    origins = {}
    for name, path in paths.items():
        result, claim = read_result(path, "claim"), every.get(name)
        found, origins[name] = result.payload, result.provenance
        if claim is None or set(found["units"]) != {"claim", *claim.controls}:
            raise RecordError(
                f"{path} is not a record of a claim as it is now: remove it, or make it anew with `python -m theory`"
            )
        changed = {module for module, _ in sources(claim.module).items() ^ result.provenance["sources"].items()}
        if changed:
            raise RecordError(
                f"{path} was measured by other code: {', '.join(sorted(changed))} changed since; make it anew with "
                f"`python -m theory --only {name} --budget {result.provenance['budget']['name']} --output {directory}`"
            )
        for key, unit in found["units"].items():
            if not_finite := [item["label"] for item in unit["items"] if item["measured"] is None]:
                raise RecordError(f"{path} has numbers that are not finite: {', '.join(not_finite)}; make it anew")
            control = "" if key == "claim" else key
            evidence[Unit(name, control)] = Evidence(
                tuple(Item(**item) for item in unit["items"]),
                tuple(Curve(**curve) for curve in unit["curves"]),
                "" if control else found["latex"],
            )
            seconds[Unit(name, control)] = unit["seconds"]
    return [replace(verdict, origin=origins[verdict.claim.id]) for verdict in decide(every, evidence, seconds)]


def commit_of(origin: Mapping[str, Any]) -> str:
    """Which code measured something, in words."""
    return f"commit {origin['commit'] or 'unknown'}{' with uncommitted changes' if origin['dirty'] else ''}"


def write_page(
    result: Result,
    directory: Path,
    *,
    draw: Callable[[Mapping[str, Any]], Figure],
    page: Callable[[Result, str], str],
) -> None:
    """Write a result with its figure and its page, `<kind>.json`, `.png` and `.pdf`, and `<KIND>.md`, and say so."""
    record = directory / f"{result.kind}.json"
    write_result(record, result)
    save_figure(draw(result.payload), record.with_suffix(".png"))
    path = directory / f"{result.kind.upper()}.md"
    write_atomically(path, page(result, record.name).encode())
    Console().print(f"{path}, with record and figure beside it")


def _recorded_seconds(name: str) -> float:
    """How long a claim took with the full budget; infinity if it has no record yet."""
    path = TRACKED / "claims" / f"{name}.json"
    if not path.exists():
        return math.inf
    return math.fsum(unit["seconds"] for unit in read_result(path, "claim").payload["units"].values())


def _start(progress: Any) -> None:
    global _progress
    _progress = progress
    end_with_parent()
    torch.set_num_threads(1)


def _measure(names: list[str], budget: Budget, seed: int) -> dict[Unit, tuple[Evidence, float]]:
    found = {}
    for name in names:
        claim = registry()[name]
        for control, measure in {"": claim.measure, **claim.controls}.items():
            unit = Unit(name, control)
            _progress.put((unit, False))
            began = time.process_time()  # of one core, however busy the machine is
            found[unit] = (measure(budget, seed), time.process_time() - began)
            _progress.put((unit, True))
    return found
