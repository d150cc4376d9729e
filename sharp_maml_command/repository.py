"""Commands that need the repository, whose folders `theory` and `reproductions` are not in the wheel."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sharp_maml_command.text import columns

if TYPE_CHECKING:
    from theory.check.claim import Claim, Verdict

PASSES_ON: dict[str, Any] = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
"""Settings of a command that gives what it does not know to the program that it runs."""

TABLE_EXAMPLE = "\b\nExample:\n  sharp-maml table --tier demo --rows maml both"

claims = typer.Typer(
    help="List the paper's claims, show one, or measure one.",
    epilog="\b\nExample:\n  sharp-maml claims show rate_bound",
    rich_markup_mode=None,
)


def table(context: typer.Context) -> int:
    """Run the paper's table again.

    The options are those of `python -m reproductions.tables`, which `sharp-maml table -- --help` shows.
    """
    return _run("reproductions.tables", context.args)


@claims.command("list", epilog="\b\nExample:\n  sharp-maml claims list --json")
def list_claims(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False) -> None:
    """List the claims, with the verdicts of the tracked records."""
    every, verdicts = _claims()
    if as_json:
        print(json.dumps([_described(claim, verdicts.get(name)) for name, claim in every.items()]))
        return
    rows = [(name, claim.evidence, _said(verdicts.get(name))) for name, claim in every.items()]
    print(columns([("claim", "evidence", "verdict"), *rows]))


@claims.command("show", epilog="\b\nExample:\n  sharp-maml claims show rate_bound")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A claim of `sharp-maml claims list`.")]) -> None:
    """Show a claim, its controls and the tracked verdict."""
    every, verdicts = _claims()
    claim, verdict = _find(name, every), verdicts.get(name)
    print(f"{name} ({claim.evidence}): {_said(verdict)}")
    for heading, body in claim.text.items():
        print(f"\n{heading}: {body}")
    print(f"\nRule: {claim.rule.text}\n\nControls, which must be {claim.other}:")
    outcomes = verdict.outcomes if verdict else {}
    print(columns([(f"  {control}", outcomes.get(control, "not measured")) for control in claim.controls]))


@claims.command("run", **PASSES_ON, epilog="\b\nExample:\n  sharp-maml claims run rate_bound --budget smoke")
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A claim of `sharp-maml claims list`.")],
    budget: Annotated[Literal["smoke", "test", "full"], typer.Option(help="How much work.")] = "test",
) -> int:
    """Measure a claim and its controls.

    Other options are those of `python -m theory`, such as --output; records, figure and report lie under
    results/theory. The exit code is 1 if the claim did not come out as expected.
    """
    with _of_repository("theory"):
        from theory.check.claim import registry

        _find(name, registry())
    return _run("theory", ["--only", name, "--budget", budget, *context.args])


def _claims() -> tuple[dict[str, Claim], dict[str, Verdict]]:
    """All claims, and the tracked verdicts by claim; none where the records are not those of today's code."""
    with _of_repository("theory"):
        from theory.check.claim import registry
        from theory.check.verdicts import TRACKED, read

        every = registry()
    try:
        return every, {verdict.claim.id: verdict for verdict in read(TRACKED)}
    except ValueError as error:
        print(f"no verdicts: {error}", file=sys.stderr)
        return every, {}


def _find(name: str, every: dict[str, Claim]) -> Claim:
    if name in every:
        return every[name]
    near = get_close_matches(name, every, 1)
    raise ValueError(
        f"no claim is called {name!r}{f'; did you mean {near[0]!r}?' if near else ''}; "
        "`sharp-maml claims list` names them all"
    )


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not measured"
    return f"{verdict.outcome}, {'as' if verdict.passed else 'NOT as'} expected"


def _described(claim: Claim, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "id": claim.id,
        "evidence": claim.evidence,
        "expected": claim.expected,
        "outcome": verdict.outcome if verdict else None,
        "passed": verdict.passed if verdict else None,
        "controls": {name: verdict.outcomes[name] if verdict else None for name in claim.controls},
        "text": dict(claim.text),
    }


@contextmanager
def _of_repository(package: str) -> Iterator[None]:
    """What is missing for an import from the repository, in a line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == package:
            raise ValueError(
                f"this command needs the folder {package}/ of the repository, which the installed package leaves out: "
                "clone the repository of sharp-maml, and run `pip install -e '.[table,theory]'` in it"
            ) from error
        raise ValueError(
            f"this command needs the module {error.name}, which is not installed: run "
            "`pip install -e '.[table,theory]'` in the repository"
        ) from error


def _run(module: str, arguments: Sequence[str]) -> int:
    """Run a program of the repository in this process, as `python -m` would; returns its exit code."""
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        with _of_repository(module.split(".")[0]):
            import_module(module)  # which says by name what is missing
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    finally:
        sys.argv = before
    return 0
