"""Puts the mistakes of `mistakes.py` into the sources, one at a time: `python -m tests.theory.mutants`.

The sources are copied to a temporary folder, where all that is named as a catcher must pass first; then each mutant in
turn is put in, and its catchers run. A unit test catches it by failing. A claim catches it when the claim, or a control
of it, is decided the wrong way: a claim that becomes undecided, or cannot be measured, has not caught it. Writes a
record and the page `MUTANTS.md` after every mutant, and goes on where it was cut off: what was found at this commit is
not measured anew. Exit code 1 if something that is named lets a mutant pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sharp_maml import Result, provenance, read_result, write_atomically, write_result
from tests.theory.mistakes import MUTANTS, Mutant
from theory.check.budgets import BUDGETS
from theory.check.claim import Budget, Claim, Unit, Verdict, decide, registry
from theory.check.verdicts import commit_of

ROOT = Path(__file__).parents[2]
SOURCES = ("sharp_maml", "synthetic", "theory", "tests")
SEED = 0
"""Seed of the claims."""
LIMIT = 900
"""Seconds after which a process is stopped."""
FORKED = multiprocessing.get_context("forkserver")
NEEDED = ("torch._dynamo", "torch._decomp", "scipy.stats", "sympy", "flint", "PEPit", "pytest")
"""What takes seconds to import."""
CAUGHT = ("failed", "refuted", "supported", "a control refuted", "a control supported")
"""What a catcher says that has caught something; a claim that is expected to be refuted is supported by it."""

Claims = Sequence[tuple[str, str]]
"""Ids and budgets."""


def catch(tests: Sequence[str], claims: Claims) -> dict[str, str]:
    """What catchers say of the sources that this process has imported.

    Args:
        tests: Unit tests.
        claims: Claims.

    Returns:
        `test`: passed or failed, together. And of each claim what was decided the wrong way; if nothing was, whether
        all came out as expected, or the error that ended it.
    """
    said: dict[str, str] = {}
    if tests:
        code = pytest.main(["-x", "-q", "-m", "", "-p", "no:cacheprovider", *tests])
        said["test"] = {0: "passed", 1: "failed"}.get(int(code), "no test was run")
    for name, budget in claims:
        try:
            said[name] = in_words(verdict_of(registry()[name], BUDGETS[budget]))
        except Exception as error:  # of any kind: it is told, and catches nothing
            said[name] = f"{type(error).__name__}: {error}"
    return said


def verdict_of(claim: Claim, budget: Budget) -> Verdict:
    """The verdict of a claim, whose controls are not measured where it has come out wrong without them."""
    evidence = {Unit(claim.id, ""): claim.measure(budget, SEED)}
    (verdict,) = decide({claim.id: replace(claim, controls={})}, evidence, dict.fromkeys(evidence, 0.0))
    if not verdict.alarm:
        evidence |= {Unit(claim.id, name): measure(budget, SEED) for name, measure in claim.controls.items()}
        (verdict,) = decide({claim.id: claim}, evidence, dict.fromkeys(evidence, 0.0))
    return verdict


def in_words(verdict: Verdict) -> str:
    """What a claim says."""
    if not verdict.alarm:
        return "as expected" if verdict.passed else "undecided"
    return verdict.outcome if verdict.outcome == verdict.claim.other else f"a control {verdict.claim.expected}"


def asked(place: Path, tests: Sequence[str], claims: Claims) -> tuple[dict[str, str], float]:
    """`catch` on the sources of a folder, in a process of its own, and its CPU seconds.

    The process is forked from a server that has imported what the sources need, but none of them.
    """
    receiver, sender = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=_catch, args=(sender, place, tests, claims))
    process.start()
    sender.close()
    found = {"process": "no answer"}, 0.0
    with suppress(EOFError):  # it died
        if receiver.poll(LIMIT):
            found = receiver.recv()
    process.kill()
    process.join()
    return found


def _catch(sender: Any, place: Path, tests: Sequence[str], claims: Claims) -> None:
    """Send what `catch` of the folder's own sources gives."""
    for name in [name for name in sys.modules if name.split(".")[0] in SOURCES]:
        del sys.modules[name]  # those that started this process
    os.chdir(place)
    sys.path.insert(0, str(place))
    sys.dont_write_bytecode = True  # a mutant may have the size of the source, and be as old to the second
    nothing = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nothing, standard)
    said = import_module("tests.theory.mutants").catch(tests, claims)
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    sender.send((said, sum(one.ru_utime + one.ru_stime for one in used)))


def judged(mutant: Mutant, place: Path) -> dict[str, Any]:
    """The entry of a mutant in the record: what it is, what its catchers say, whether all caught it, CPU seconds."""
    path = place / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant.mutated(source), encoding="utf-8")
    try:
        said, seconds = asked(place, *catchers([mutant]))
    finally:
        path.write_text(source, encoding="utf-8")
    caught = all(of in CAUGHT for of in said.values())
    return {**asdict(mutant), "said": said, "caught": caught, "seconds": round(seconds, 1)}


def catchers(mutants: Sequence[Mutant]) -> tuple[list[str], list[tuple[str, str]]]:
    """The tests and the claims that are named, each once."""
    tests = dict.fromkeys(mutant.test for mutant in mutants if mutant.test)
    claims = dict.fromkeys((mutant.claim, mutant.budget) for mutant in mutants if mutant.claim)
    return list(tests), list(claims)


def page(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    entries = result.payload["mutants"]
    tests, claims = (sum(bool(entry[by]) for entry in entries) for by in ("test", "claim"))
    commits = Counter(map(commit_of, entries))
    lines = [
        "# Mutants",
        "",
        f"{sum(entry['caught'] for entry in entries)} of {len(entries)} mistakes that were seeded into the sources, "
        f"one at a time, were caught by all that is named here: a unit test for {tests}, a claim of the theory suite "
        f"for {claims}.",
        "",
        "A unit test catches a mistake by failing; a claim, when the claim or a control of it is decided the wrong "
        "way. Where no claim is named none was asked: the theorems hold for every perturbation in the ball, a bound "
        "that is too large makes no claim false, and rules, counts and tasks are for unit tests.",
        "",
        f"{'; '.join(f'{number} of them: {commit}' for commit, number in commits.items())}; "
        f"{sum(entry['seconds'] for entry in entries) / 60:.0f} CPU minutes. The fragments and what replaces them: "
        f"[record]({link}). Rerun: `make mutants`.",
        *(["", result.caveat] if result.caveat else []),
        "",
        "| mistake | file | unit tests | claims |",
        "|---|---|---|---|",
    ]
    for entry in entries:
        test, claim, said = entry["test"].rpartition("::")[2].partition("[")[0], entry["claim"], entry["said"]
        cells = (f"`{of}`: {said.get(by, 'no answer')}" if of else "" for of, by in ((test, "test"), (claim, claim)))
        lines.append(f"| {entry['name']} | `{entry['file']}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a record whose mutants are still those of the list, by name."""
    if not path.exists():
        return {}
    entries = read_result(path, "mutants").payload["mutants"]
    today = {mutant.name: asdict(mutant) for mutant in MUTANTS}
    return {entry["name"]: entry for entry in entries if today.get(entry["name"], {"": ""}).items() <= entry.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.theory.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="names or patterns such as 'kappa*'")
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default results/theory)")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if any(fnmatch(mutant.name, pattern) for pattern in options.only)]
    if not mutants:
        print(f"error: no mutant matches {' '.join(options.only)}", file=sys.stderr)
        return 2
    path, origin = options.output / "mutants.json", provenance(module="tests.theory.mutants")
    found = kept(path)

    def is_done(mutant: Mutant) -> bool:
        entry = found.get(mutant.name)
        return bool(entry and not entry["dirty"] and not origin["dirty"] and entry["commit"] == origin["commit"])

    waiting = [mutant for mutant in mutants if not is_done(mutant)]
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKED.set_forkserver_preload(list(NEEDED))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for source in SOURCES:
            shutil.copytree(ROOT / source, place / source, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", place)
        if waiting:
            print("without a mistake", flush=True)
            said, _ = asked(place, *catchers(waiting))
            wrong = {name: of for name, of in said.items() if of not in ("passed", "as expected")}
            if wrong:
                print(f"error: without a mistake not everything passes: {wrong}", file=sys.stderr)
                return 2
        for number, mutant in enumerate(waiting, 1):
            entry = {**judged(mutant, place), "commit": origin["commit"], "dirty": origin["dirty"]}
            found[mutant.name] = entry
            entries = [found[one.name] for one in MUTANTS if one.name in found]
            result = Result("mutants", origin, {"mutants": entries})
            write_result(path, result)
            write_atomically(options.output / "MUTANTS.md", page(result, path.name).encode())
            told = ", ".join(f"{name} {of}" for name, of in entry["said"].items())
            print(f"[{number}/{len(waiting)}] {mutant.name}: {told}; {entry['seconds']:.0f} s", flush=True)
    passed = [name for name, entry in found.items() if not entry["caught"]]
    print(f"{len(found) - len(passed)} of {len(found)} caught; {options.output / 'MUTANTS.md'}")
    for name in passed:
        print(f"not caught by all that is named: {name}")
    return int(bool(passed))


if __name__ == "__main__":
    sys.exit(main())
