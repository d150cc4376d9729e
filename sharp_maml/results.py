"""One envelope for every result: what it is, in which form, what measured it, and what came out.

Commands write results, reviewed like code: the same result is always the same text. Pages, figures and notebooks read
them, and nothing else changes them. Read next: `records.py`, the result of one training run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from sharp_maml.checkpoint import write_atomically
from sharp_maml.sources import changed


class RecordError(ValueError):
    """A result cannot be written or read. The message names the file, what was expected and what was found."""


class Kind(NamedTuple):
    """A kind of result: the version of its payload's form, and the command that makes it."""

    schema: int
    made_by: str


KINDS = {
    "table-cell": Kind(3, "make reproduce-table1"),
    "landscape": Kind(1, "make landscape"),
    "sensitivity": Kind(1, "make sensitivity"),
    "method": Kind(1, "make method"),
    "speed": Kind(2, "make bench"),
    "two-cores": Kind(1, "make bench"),
    "training": Kind(1, "make bench-training"),
    "gpu": Kind(1, "make gpu"),
    "claim": Kind(2, "make theory BUDGET=full"),
    "calibration": Kind(1, "make calibration"),
    "alarms": Kind(1, "make alarms"),
    "mutants": Kind(1, "make mutants"),
    "certificate": Kind(1, "make certificate"),
    "regime": Kind(1, "make regime"),
    "counts": Kind(1, "make counts"),
    "proofs": Kind(1, "make proofs"),
    "network-rate": Kind(1, "make network-rate"),
    "reliability": Kind(1, "make torture"),
    "numbers": Kind(1, "make torture"),
    "kills": Kind(1, "make torture"),
    "clusters": Kind(1, "make clusters"),
}
"""Every kind of result that the repository has; all of its packages may import this one."""

_LINE = 120


@dataclass(frozen=True)
class Result:
    """What was measured, in the envelope that all results share: `kind`, `schema`, `provenance` and `payload`.

    Attributes:
        kind: A name in `KINDS`, whose schema is that of the payload.
        provenance: What measured it: see `sharp_maml.provenance`.
        payload: What came out; numbers that are not finite are written as null, which JSON has in their place.

    Raises:
        RecordError: There is no such kind.
    """

    kind: str
    provenance: Mapping[str, Any]
    payload: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RecordError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def __str__(self) -> str:
        """The result as canonical JSON: keys in their order, containers that fit on one line."""
        envelope = {"kind": self.kind, "schema": KINDS[self.kind].schema}
        envelope |= {"provenance": self.provenance, "payload": self.payload}
        lines = (_pretty(_plain(value), " ", f"{json.dumps(name)}: ") for name, value in envelope.items())
        return "{\n " + ",\n ".join(lines) + "\n}\n"

    @property
    def code(self) -> str:
        """Which code measured it, in words."""
        commit = f"commit {self.provenance['commit'][:10]}" if self.provenance["commit"] else "no commit"
        return f"{commit}{', with changes' if self.provenance['dirty'] else ''}"

    @property
    def caveat(self) -> str:
        """What is said beside the numbers where today's code may not give them; empty where it would.

        A result holds the digests of the source files that decided it, if it was measured since there are such digests.
        """
        held, commit = self.provenance.get("sources"), self.provenance.get("commit")
        if held is None:
            return f"Measured before records held digests of their sources, at commit {(commit or 'unknown')[:10]}."
        if not (since := changed(held)):
            return ""
        made_by = KINDS[self.kind].made_by
        return f"**Measured by earlier code**: {', '.join(since)} changed since; `{made_by}` measures anew."

    @classmethod
    def from_dict(cls, values: Any, kind: str) -> Result:
        """A result from the values of its JSON.

        Args:
            values: The four entries of the envelope.
            kind: The kind that is expected.

        Returns:
            The result.

        Raises:
            RecordError: It is no result, or of another kind or schema.
        """
        if not isinstance(values, Mapping) or values.keys() != {"kind", "schema", "provenance", "payload"}:
            raise RecordError("expected a result, a JSON object of kind, schema, provenance and payload")
        expected, made_by = KINDS[kind]
        if values["kind"] != kind:
            raise RecordError(f"expected a result of kind {kind}, found {values['kind']!r:.80}")
        if values["schema"] != expected or isinstance(values["schema"], bool):
            newer = isinstance(values["schema"], int) and values["schema"] > expected
            advice = "it was written by a newer sharp_maml; upgrade this one" if newer else f"make it with: {made_by}"
            raise RecordError(f"expected schema {expected}, found {values['schema']!r:.80}: {advice}")
        for name in ("provenance", "payload"):
            if not isinstance(values[name], dict):
                raise RecordError(f"expected {name} to be a JSON object, found {values[name]!r:.80}")
        return cls(kind, values["provenance"], values["payload"])


def write_result(path: str | Path, result: Result) -> None:
    """Write a result, so that the file is the old one or the new one, whole.

    Args:
        path: The file; its directory is made if need be.
        result: The result.

    Raises:
        RecordError: The file cannot be written (an earlier one is untouched), or the result holds what JSON cannot.
    """
    path = Path(path)
    try:
        write_atomically(path, str(result).encode())
    except (OSError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: the record cannot be written ({error})") from error


def read_result(path: str | Path, kind: str) -> Result:
    """Read a result.

    Args:
        path: The file.
        kind: The kind that is expected, a name in `KINDS`.

    Returns:
        The result.

    Raises:
        RecordError: It is missing, damaged, or of another kind or schema. The message names the file, and the command
            that makes it.
    """
    path = Path(path)
    if not path.exists():
        raise RecordError(f"{path} is missing; make it with: {KINDS[kind].made_by}")
    values = read_json(path)
    try:
        return Result.from_dict(values, kind)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def read_json(path: Path) -> Any:
    """The values of a JSON file, all of whose numbers are finite.

    Raises:
        RecordError: It cannot be read, or is not JSON. The message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_float=_number, parse_constant=_number)
    except OSError as error:
        raise RecordError(f"{path}: the record cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:  # of JSON or UTF-8
        raise RecordError(f"{path}: expected a JSON record, found {error}") from error


def _number(text: str) -> float:
    """A number of JSON, which has no infinity and no NaN."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"a number that JSON does not have, {text:.80}")
    return value


def _plain(value: Any) -> Any:
    """The value as JSON has it: lists for tuples, floats for other real numbers, None for what is not finite."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, int) or not isinstance(value, Real):
        return value
    return float(value) if math.isfinite(value) else None  # also fractions, and what NumPy has


def _pretty(value: Any, indent: str, key: str = "") -> str:
    """JSON after `key`; a container that fits on its line, with a comma, stays on it."""
    flat = key + json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(flat) < _LINE or not isinstance(value, (dict, list)):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        items = [_pretty(item, inner, f"{json.dumps(name, ensure_ascii=False)}: ") for name, item in value.items()]
    else:
        items = [_pretty(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{key}{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"
