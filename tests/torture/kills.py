"""Runs that are killed with -9 and taken up again: `python -m tests.torture.kills`.

Trainings in one process and in two, tables, theory runs and notebooks are killed at random moments: the command, or one
of the processes that it started. A table's cell and a data cache are killed at every call that writes: before it, or in
the middle of what it writes, and after it. Then nothing may be half written or still running, and the same command,
given again, must end where a run that nobody killed ends: bit for bit in tensors, metrics, records, pages and figures,
but for times, with the same files. Kills are functions of the seed and their number. Writes a record and its section of
the page of reliability, and goes on where it was cut off. Exit code 1 if a run was lost.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch

import notebooks.__main__ as notebooks
import reproductions.tables.__main__ as tables
import sharp_maml_command
import theory.__main__ as theory
from reproductions.tables import cells
from reproductions.tables.specification import cells_of, load
from sharp_maml import (
    Result,
    load_checkpoint,
    open_cache,
    provenance,
    write_atomically,
    write_cache,
    write_result,
)
from tests.reproductions.tables.records_for_tests import dataset
from tests.sharp_maml.tiny import SETTINGS
from tests.torture.fuzz import earlier
from theory.check.claim import registry

SECONDS = 120
"""Longer than this no run needs, and nothing may need to end of which the command was killed."""
SHOWN = 20
"""Lost runs of a case that the record holds."""
MARK = "SHARP_MAML_KILLED"
"""Environment variable by which the processes of a run are found."""
TIMES = {"seconds", "started", "peak_memory_bytes", "interruptions"}
"""What in a record, a line of metrics or a checkpoint is of one run, and not of what it computes."""
SPENT = re.compile(r"\d+ s of one core")
"""The time of a theory run, in its report."""
OWN = {".lock", "log.txt", cells.EPISODES}
"""Files of a run directory that say what happened there, by name; so do those of TensorBoard."""
DECISIVE = (
    "notebooks.__main__", "notebooks.appendix", "reproductions.tables.__main__", "reproductions.tables.cells",
    "reproductions.tables.train", "sharp_maml.checkpoint", "sharp_maml.data.cache", "sharp_maml.progress",
    "sharp_maml.results", "sharp_maml.signals", "sharp_maml.train", "tests.torture.kills", "theory.__main__",
    "theory.check.verdicts",
)  # fmt: skip
"""The modules that start processes and write files: of all that runs, it is these that survive a kill or do not."""
PRELOADED = ["torch._dynamo", "torch.utils.tensorboard"]
"""What runs would import each for itself."""


class Case(NamedTuple):
    """What is killed.

    what: for readers. work: does it in a directory, in a process that is forked from this one; returns an exit code.
    kills: how many by default; 0 stands for one before and one after every call that writes. victim: what a process
    that is to be killed has in its command line; empty for the command itself.
    """

    what: str
    work: Callable[[Path], object]
    kills: int = 0
    victim: str = ""


def given(name: str) -> Path:
    """What all runs are given lies beside their directories."""
    return Path(os.environ[MARK]) / name


def _prepare() -> None:
    dataset(given("data"))
    settings = {**SETTINGS, "meta_batch": 4, "iterations": 12, "alpha_low": 0.05, "alpha_up": 0.05}
    settings |= {"data": str(given("data"))}
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    given("tiny.toml").write_text(text, encoding="utf-8")


def _train(directory: Path, processes: int) -> object:
    words = ["train", str(given("tiny.toml")), "--directory", str(directory), "--processes", str(processes)]
    return sharp_maml_command.main(words)


def _table(directory: Path) -> object:
    words = ["--tier", "smoke", "--rows", "maml", "low", "--seeds", "1", "--allow-dirty", "--results", str(directory)]
    return tables.main(words)


def _theory(directory: Path) -> object:
    claims = ("generalization_ball", "generalization_kl", "rate_assumptions")
    return theory.main(["--budget", "smoke", "--jobs", "1", "--output", str(directory), "--only", *claims])


def _notebook(directory: Path) -> object:
    return notebooks.main(["--only", "01", "--output", str(directory)])


def _cell(directory: Path) -> None:
    found, tiers = load()
    cell = cells_of(found["table1"], tiers["smoke"], seeds=1, device="cpu")[-1]
    with mock.patch.object(cells, "POLL_SECONDS", math.inf):  # the same writes, however long it takes
        cells.run(cell, open_cache(given("data")), directory)


def _cache(directory: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    write_cache(
        directory / "cache", name="x", splits={each: {each: pixels} for each in ("train", "validation", "test")}
    )


CASES = {
    "cell": Case("a cell of a table, at each of its writes", _cell),
    "cache": Case("a data cache, at each of its writes", _cache),
    "training": Case("a training", lambda directory: _train(directory, 1), 30),
    "launcher": Case("a training in two processes: the command", lambda directory: _train(directory, 2), 15),
    "rank": Case(
        "a training in two processes: one of them", lambda directory: _train(directory, 2), 15, "-m sharp_maml"
    ),
    "table": Case("a table: the command", _table, 15),
    "cells": Case("a table: a cell, or what forks them", _table, 15, "multiprocessing.forkserver"),
    "theory": Case("a theory run: the command", _theory, 10),
    "worker": Case("a theory run: a process that measures", _theory, 5, "multiprocessing.spawn"),
    "notebook": Case("a notebook: the command", _notebook, 6),
    "kernel": Case("a notebook: its kernel", _notebook, 4, "ipykernel_launcher"),
}


# Processes.


def forked(case: Case, directory: Path) -> int:
    """Begin a run in a process of its own, with what it says in a file beside its directory; its number."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        said = os.open(directory.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = int(case.work(directory) or 0)  # type: ignore[call-overload]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a process, minus the signal that ended it; None if it has not ended by then."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def started(but: int) -> dict[int, str]:
    """Command lines of the processes that runs have started and that have not ended, by number, without one of them."""
    found, mark = {}, f"{MARK}={os.environ[MARK]}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended since, or somebody else's
            number = int(path.name)
            if number in (os.getpid(), but) or mark not in (path / "environ").read_bytes():
                continue
            if (path / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found[number] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


# At every write.


class _File:
    """A file that is written through a counter."""

    def __init__(self, file: Any, count: Callable[..., Any]) -> None:
        self._file, self._count = file, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> Any:
        def half() -> None:
            whole = data if isinstance(data, str) else bytes(data)
            self._file.write(whole[: len(whole) // 2])
            self._file.flush()

        def write() -> Any:
            written = self._file.write(data)
            self._file.flush()
            return written

        return self._count(write, half)


@contextmanager
def killed_at(number: int, *, after: bool) -> Iterator[Callable[[], int]]:
    """Let this process kill itself at one of its calls that write, sync or rename; tells how many there were.

    Args:
        number: The call, from 0; -1 for none.
        after: After the call; otherwise before it, or when half is written.
    """
    calls = itertools.count()
    seen = 0

    def count(call: Callable[[], Any], half: Callable[[], object] = lambda: None) -> Any:
        nonlocal seen
        seen += 1
        is_here = next(calls) == number
        if is_here and not after:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if is_here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    originals = {"fsync": os.fsync, "replace": Path.replace, "open": Path.open}

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        file = originals["open"](path, mode, *rest, **options)
        return file if set(mode) <= set("rbt") else _File(file, count)

    with (
        mock.patch.object(os, "fsync", lambda file: count(lambda: originals["fsync"](file))),
        mock.patch.object(Path, "replace", lambda path, to: count(lambda: originals["replace"](path, to))),
        mock.patch.object(Path, "open", opened),
    ):
        yield lambda: seen


def at_write(case: Case, number: int, *, after: bool) -> Case:
    """The case, killed by itself at a write; it writes how many there were, if it comes to the end."""

    def work(directory: Path) -> object:
        with killed_at(number, after=after) as count:
            code = case.work(directory)
        directory.with_suffix(".writes").write_text(str(count()))
        return code

    return case._replace(work=work)


# What must hold.


def _plain(value: Any) -> Any:
    """The value without times."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items() if name not in TIMES}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """What a file holds, but for times: of what must be the same in every run."""
    if path.suffix == ".safetensors":
        checkpoint = load_checkpoint(path)
        return _plain(checkpoint.metadata), {name: each.numpy().tobytes() for name, each in checkpoint.tensors.items()}
    if path.suffix == ".json":
        return _plain(json.loads(path.read_bytes()))
    if path.suffix == ".jsonl":
        return [_plain(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".md":
        return SPENT.sub("", path.read_text(encoding="utf-8"))
    return path.read_bytes()


def _files(directory: Path) -> Iterator[Path]:
    found = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.parent.name != "tensorboard")
    yield from (path.relative_to(directory) for path in found)


def half_written(directory: Path) -> str:
    """The first file under its own name that is not whole; empty if there is none."""
    for name in _files(directory):
        path = directory / name
        is_hidden = any(part.startswith(".") for part in name.parts)  # being made
        try:
            if path.suffix in (".safetensors", ".json") and not is_hidden:
                content(path)
            if path.name == "index.json" and not is_hidden:
                open_cache(path.parent, verify=True)
        except ValueError as error:
            return f"half written: {error}"
    return ""


def difference(whole: Path, directory: Path) -> str:
    """How the end of a run differs from that of one that nobody killed; empty where it does not.

    Which checkpoint is the one before the last, and whether there is one, depends on where the run was taken up: what
    is killed between two files saves the first of them twice.
    """
    names, expected = (
        {name for name in _files(of) if ".previous." not in name.name or name.name.startswith(".")}
        for of in (directory, whole)
    )
    if names != expected:
        return f"left over: {sorted(map(str, names - expected))}, missing: {sorted(map(str, expected - names))}"
    for name in sorted(names):
        of_run = name.name in OWN or name.parts[-1].endswith(".lock")
        if not of_run and (found := content(directory / name)) != (of_whole := content(whole / name)):
            return f"{name} is another one{_where(of_whole, found)}"
    return ""


def _where(one: Any, other: Any) -> str:
    """Where two values that differ do so first, and how."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return next(f", {key}{_where(one[key], other[key])}" for key in one if one[key] != other[key])
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return next(f", {i}{_where(a, b)}" for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return f": {one!r:.100} and {other!r:.100}"


def strike(case: Case, directory: Path, scale: float, choose: random.Random, point: tuple[int, bool] | None) -> bool:
    """Begin a run and kill it.

    Args:
        case: What it is.
        directory: Where it works.
        scale: How long it takes, in seconds.
        choose: Chooses the moment, and the victim.
        point: The call that writes, and whether after it; None for a random moment.

    Returns:
        Whether something was killed: the run may have ended before.
    """
    if point is not None:
        number, after = point
        return ended(forked(at_write(case, number, after=after), directory), SECONDS) == -signal.SIGKILL
    pid, until = forked(case, directory), time.monotonic() + scale * choose.random()
    code, victims = None, []
    while code is None and not (victims and time.monotonic() > until):
        code = ended(pid, 0)
        victims = [each for each, line in started(pid).items() if case.victim in line] if case.victim else [pid]
        time.sleep(0.005)
    if code is not None:
        return False
    with suppress(ProcessLookupError):
        os.kill(choose.choice(victims), signal.SIGKILL)
    if ended(pid, SECONDS) is None:
        os.kill(pid, signal.SIGKILL)
        ended(pid, SECONDS)
        raise TimeoutError(f"the command did not end when {case.victim} was killed")
    return True


def lost(case: Case, place: Path, whole: Path, scale: float, seed: str, point: tuple[int, bool] | None) -> str:
    """What is wrong with a run that is killed and taken up again; empty where nothing is."""
    directory = place / "killed"
    for attempt in itertools.count():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            if strike(case, directory, scale, random.Random(f"{seed} {attempt}"), point):
                break
        except TimeoutError as error:
            return str(error)
        if point is not None:
            return "the run was not killed"
    until = time.monotonic() + SECONDS
    while (left := started(0)) and time.monotonic() < until:
        time.sleep(0.02)
    for number in left:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    if left:
        return f"still running: {list(left.values())}"
    if wrong := half_written(directory):
        return wrong
    code = ended(forked(case, directory), SECONDS)
    if code != 0:
        return f"taken up again it ended with {code}: {directory.with_suffix('.said').read_text()[-500:]}"
    return difference(whole, directory)


def measure(name: str, seed: int, first: int, most: int | None) -> Iterator[tuple[str, int]]:
    """What is wrong with each run of a case, from one of them on, and how many there will be.

    Args:
        name: The case.
        seed: Base seed.
        first: Runs that are done.
        most: The largest number of kills; None for the case's own.
    """
    case = CASES[name]
    with tempfile.TemporaryDirectory() as root, mock.patch.dict(os.environ, {MARK: root}):
        _prepare()
        place = Path(root)
        whole, began = place / "whole", time.monotonic()
        whole.mkdir()
        code = ended(forked(case if case.kills else at_write(case, -1, after=False), whole), SECONDS)
        if code != 0:
            raise RuntimeError(f"{case.what} ended with {code}: {whole.with_suffix('.said').read_text()[-2000:]}")
        scale, points = time.monotonic() - began, [None] * case.kills
        if not case.kills:
            calls = int(whole.with_suffix(".writes").read_text())
            points = [(call, after) for call in range(calls) for after in (False, True)]
            random.Random(f"{name} {seed}").shuffle(points)
        points = points[:most]
        for number, point in list(enumerate(points))[first:]:
            yield lost(case, place, whole, scale, f"{name} {seed} {number}", point), len(points)


def page(result: Result, link: str) -> str:
    """The result in markdown, as a section of the page of reliability, with a link to its record."""
    found, origin = result.payload["cases"], result.provenance
    kills, runs = (sum(entry[of] for entry in found.values()) for of in ("kills", "lost"))
    lines = [
        "",
        "## Killed, and taken up again",
        "",
        f"{kills} runs were killed with -9; {runs} were lost. At random moments it was the command or one of its "
        "processes; at writes, every call that writes, syncs or renames a file, before it or in the middle of what it "
        "writes, and after it. After a kill no file may be half written and no process left; the same command, given "
        "again, must leave the files of a run that nobody killed, the same bit for bit in tensors, lines of metrics, "
        "records, pages and figures, but for times.",
        "",
        "| what was killed | kills | lost |",
        "|---|--:|--:|",
        *(f"| {entry['what']} | {entry['kills']} | {entry['lost']} |" for entry in found.values()),
        "",
        f"Seed {result.payload['seed']}; {origin['device']}, torch {origin['torch']}; {result.code}. [Record]({link}). "
        "Rerun: `make torture`.",
        *(["", result.caveat] if result.caveat else []),
    ]
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="what is killed")
    parser.add_argument("--kills", type=int, help="at most so many of each (default: 200 and more in all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a process that has started threads must not be forked
    for module in PRELOADED:
        importlib.import_module(module)
    registry()
    path, origin = options.output / "kills.json", provenance(module="tests.torture.kills")
    origin["sources"] = {name: origin["sources"][name] for name in DECISIVE}
    found = earlier(path, Result("kills", origin, {"seed": options.seed})).get("cases", {})
    for name in options.only:
        entry = found.setdefault(name, {"what": CASES[name].what, "kills": 0, "lost": 0, "shown": []})
        began = time.monotonic()
        for wrong, of in measure(name, options.seed, entry["kills"], options.kills):
            entry["kills"] += 1
            entry["lost"] += bool(wrong)
            if wrong and len(entry["shown"]) < SHOWN:
                entry["shown"].append({"number": entry["kills"] - 1, "said": wrong})
            print(f"{name} {entry['kills']} of {of}: {wrong or 'nothing lost'}", flush=True)
            result = Result("kills", origin, {"seed": options.seed, "cases": found})
            write_result(path, result)
            write_atomically(path.with_suffix(".md"), page(result, path.name).encode())
        print(f"{name}: {entry['kills']} kills, {entry['lost']} lost; {time.monotonic() - began:.0f} s", flush=True)
    runs = sum(entry["lost"] for entry in found.values())
    print(f"{sum(entry['kills'] for entry in found.values())} kills, {runs} runs lost; {path.with_suffix('.md')}")
    return int(runs > 0)


if __name__ == "__main__":
    sys.exit(main())
