"""Damaged inputs by the ten thousand for everything that the package reads: `python -m tests.torture.fuzz`.

Every input must be accepted, or refused by the package's own error, which names the file; in less than 10 seconds and
1 GiB. An input is a function of its kind, the seed and its number. A process reads them one after the other; one that
dies or hangs is replaced, and counts against the input. Writes a record and a page, and goes on where it was cut off.
An input with a fault is kept in the folder `faults` beside the record. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sharp_maml import Result, provenance, read_result, write_atomically, write_result
from tests.torture.kinds import KINDS, Files

ROOT = Path(__file__).parents[2]
SECONDS = 10
"""Longer than this an input must not take."""
BYTES = 1 << 30
"""More memory than this an input must not take, over what the process had before."""
SHOWN = 20
"""Faults of a kind that the record holds."""
SAVED = 1000
"""Inputs after which the record is written."""


class Outcome(NamedTuple):
    """What came of one input.

    said: accepted, refused, or what went wrong. seconds, memory: what it took, memory in bytes.
    """

    said: str
    seconds: float
    memory: int

    @property
    def is_fault(self) -> bool:
        return self.said not in ("accepted", "refused") or self.seconds > SECONDS or self.memory > BYTES


def draw(kind: str, seed: int, number: int) -> Files:
    """One input."""
    choose = random.Random(f"{kind} {seed} {number}")
    return KINDS[kind].damage(choose, choose.choice(KINDS[kind].specimens()))


def judged(kind: str, files: Files, folder: Path) -> str:
    """`accepted`, `refused`, or what is wrong with how an input, written into a folder, was read."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of images is not what this is about
            KINDS[kind].read(folder)
    except Exception as error:
        if type(error) is not KINDS[kind].refusal:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} in {Path(where.filename).name}, {where.name}: {error!s:.200}"
        return "refused" if str(folder) in str(error) else f"the error does not name the file: {error!s:.200}"
    return "accepted"


def _resident(entry: str) -> int:
    """Bytes of this process's memory: `VmRSS` now, `VmHWM` the most since it was last set back."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) << 10


def _work(sender: Any, kind: str, seed: int, numbers: range) -> None:
    """Read inputs in this process, and send each outcome."""
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 4 * BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # the machine is not ours alone
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        for number in numbers:
            files = draw(kind, seed, number)
            Path("/proc/self/clear_refs").write_text("5")
            before, began = _resident("VmRSS"), time.perf_counter()
            said = judged(kind, files, Path(name))
            sender.send(Outcome(said, time.perf_counter() - began, max(0, _resident("VmHWM") - before)))


def outcomes(kind: str, seed: int, numbers: range) -> Iterator[Outcome]:
    """The outcomes of inputs, in order."""
    processes = multiprocessing.get_context("fork")
    while numbers:
        receiver, sender = processes.Pipe(duplex=False)
        process = processes.Process(target=_work, args=(sender, kind, seed, numbers))
        process.start()
        sender.close()
        try:
            while numbers:
                if not receiver.poll(3 * SECONDS):
                    raise TimeoutError(f"no answer within {3 * SECONDS} s")
                outcome = receiver.recv()
                numbers = numbers[1:]
                yield outcome
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.join()
            numbers = numbers[1:]
            yield Outcome(str(error) or f"the process died ({process.exitcode})", 3.0 * SECONDS, 0)
        finally:
            process.kill()
            process.join()
            receiver.close()


def page(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    kinds, origin = result.payload["kinds"], result.provenance
    inputs, faults = (sum(entry[of] for entry in kinds.values()) for of in ("inputs", "faults"))
    lines = [
        "# Reliability",
        "",
        f"{inputs:,} damaged inputs were given to everything that reads a file or a setting; {faults} had a fault. "
        "Each begins as a valid one, by the package's own writers or, where others write it, by theirs, and is damaged "
        "as bytes, as text, or in a part of its format: lengths, offsets, types, names, checksums made right again. It "
        "must be accepted, or refused by the package's own error, which names the file; within "
        f"{SECONDS} seconds and {BYTES >> 30} GiB. A record that is accepted must be the same when it is written and "
        "read again, and a data cache that is accepted must have the images that it says.",
        "",
        "| what is read | inputs | accepted | refused | faults | slowest, s | most memory, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {entry['what']} | {entry['inputs']:,} | {entry['accepted']:,} | {entry['refused']:,} | {entry['faults']} | "
        f"{entry['slowest']:.2f} | {entry['memory'] / 2**20:.0f} |"
        for entry in kinds.values()
    ]
    lines += [
        "",
        f"Seed {result.payload['seed']}; {result.code}; "
        f"Python {origin['python']}, torch {origin['torch']}. "
        "Memory is over what the process had before the input. An input that is accepted was "
        "not damaged where it matters, or is now another valid one. What was found on the way stays as tests: "
        f"`tests/torture/test_torture.py`. [Record]({link}). Rerun: `make torture`.",
        *(["", result.caveat] if result.caveat else []),
        "",
        "What a process opens, writes and starts is in the repository's `SECURITY.md`.",
    ]
    return "\n".join([*lines, ""])


def earlier(path: Path, run: Result) -> dict[str, Any]:
    """What a run that was cut off has written down, to go on from: one of the same clean code and seed, or nothing."""
    if not path.exists() or run.provenance["dirty"]:
        return {}
    before = read_result(path, run.kind)
    is_same = before.provenance == run.provenance and before.payload["seed"] == run.payload["seed"]
    return dict(before.payload) if is_same else {}


def _new(kind: str) -> dict[str, Any]:
    counts = dict.fromkeys(("inputs", "accepted", "refused", "faults", "slowest", "memory"), 0)
    return {"what": KINDS[kind].what, **counts, "shown": []}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of inputs")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each kind (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default %(default)s)")
    options = parser.parse_args(arguments)
    path, origin = options.output / "reliability.json", provenance(module="tests.torture.fuzz")
    kinds = earlier(path, Result("reliability", origin, {"seed": options.seed})).get("kinds", {})
    for kind in options.only:
        entry = kinds.setdefault(kind, _new(kind))
        numbers, began = range(entry["inputs"], options.inputs), time.monotonic()
        for number, outcome in zip(numbers, outcomes(kind, options.seed, numbers), strict=False):
            entry["inputs"] += 1
            entry["slowest"] = max(entry["slowest"], round(outcome.seconds, 3))
            entry["memory"] = max(entry["memory"], outcome.memory)
            entry["faults" if outcome.is_fault else outcome.said] += 1
            if outcome.is_fault:
                for name, content in draw(kind, options.seed, number).items():
                    write_atomically(options.output / "faults" / f"{kind}-{number}" / name, content)
                if len(entry["shown"]) < SHOWN:
                    entry["shown"].append({"number": number, **outcome._asdict()})
                    print(f"{kind} {number}: {outcome}", flush=True)
            if entry["inputs"] % SAVED == 0 or number == numbers[-1]:
                result = Result("reliability", origin, {"seed": options.seed, "kinds": kinds})
                write_result(path, result)
                write_atomically(path.with_suffix(".md"), page(result, path.name).encode())
        told = ", ".join(f"{entry[of]} {of}" for of in ("accepted", "refused", "faults"))
        print(f"{kind}: {entry['inputs']} inputs, {told}; {time.monotonic() - began:.0f} s", flush=True)
    faults = sum(entry["faults"] for entry in kinds.values())
    print(f"{sum(entry['inputs'] for entry in kinds.values())} inputs, {faults} faults; {path.with_suffix('.md')}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
