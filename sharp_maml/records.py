"""The result of one training run, a cell of a table, and the provenance of every result.

A record says what was run (config, data, protocol), by what (commit, versions, device) and what came out (accuracies of
every test episode, estimates, learning curve). On disk it is a result of kind `table-cell`. Records of an earlier form
are brought into today's as they are read.
Read next: `estimates.py`, whose intervals are made from the accuracies; `evaluate.py`, which makes records.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numpy as np
import torch

from sharp_maml.config import Config
from sharp_maml.estimates import Estimate
from sharp_maml.kernels import load
from sharp_maml.results import KINDS, RecordError, Result, read_json, write_result
from sharp_maml.sources import sources

KIND = "table-cell"
SCHEMA = KINDS[KIND].schema
"""3: in the envelope of all results; 2: the digest of a configuration is that of the settings which differ from their
defaults; 1 hashed all settings."""

PROTOCOL_KEYS = (
    "ways",
    "shots",
    "queries",
    "test_steps",
    "batch_norm",
    "split",
    "episodes",
    "evaluation_seed",
    "selection",
)
"""What every protocol names: each of these choices can move MAML's number by more than the gaps in the table."""


@dataclass(frozen=True)
class Record:
    """One run, from settings to accuracies.

    Attributes:
        name: Row of the table.
        config: All settings: see `Config.to_dict`.
        config_digest: Digest of the config.
        provenance: What ran it: see `provenance`.
        seed: Training seed.
        dtype: Type of the floating-point numbers.
        data_name: Name of the data set.
        data_digest: Digest of its content.
        protocol: What decides the episodes and how they are scored; at least `PROTOCOL_KEYS`, more is allowed.
        episodes_digest: Digest of the test episodes: records are compared episode by episode only where it is equal.
        accuracies: For each batch-norm mode the accuracy of each test episode, a fraction of ways * queries.
        started: When the run started, ISO 8601 with its time zone.
        seconds: How long it took.
        peak_memory_bytes: Its largest memory.
        metrics: Estimates by name.
        selected_step: Meta-iterations of the checkpoint that was tested.
        learning_curve: `step`, `loss`, `validation_accuracy` of each validation, in order; None where not finite.
        schema: Version of this list of fields.

    Raises:
        RecordError: A field has the wrong type, the protocol leaves something out, or the accuracies do not fit it.
    """

    name: str
    config: dict[str, Any]
    config_digest: str
    provenance: dict[str, Any]
    seed: int
    dtype: str
    data_name: str
    data_digest: str
    protocol: dict[str, Any]
    episodes_digest: str
    accuracies: dict[str, list[float]]
    started: str
    seconds: float
    peak_memory_bytes: int
    metrics: dict[str, Estimate]
    selected_step: int
    learning_curve: list[dict[str, float | None]]
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            value, expected = getattr(self, name), (int, float) if kind is float else kind
            if not isinstance(value, expected) or isinstance(value, bool):
                raise RecordError(f"{name} must be of type {kind.__name__}, got {value!r}")
        left_out = [key for key in PROTOCOL_KEYS if key not in self.protocol]
        if left_out:
            raise RecordError(f"protocol must name {', '.join(PROTOCOL_KEYS)}; it leaves out {', '.join(left_out)}")
        for mode, accuracies in self.accuracies.items():
            if len(accuracies) != self.protocol["episodes"]:
                raise RecordError(
                    f"accuracies[{mode!r}] must be one an episode, {self.protocol['episodes']}, got {len(accuracies)}"
                )
            encode_accuracies(accuracies, self._denominator())  # refuses what is no fraction of the queries

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, the schema first; keys below the fields are sorted, accuracies are encoded."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["accuracies"] = {
            mode: encode_accuracies(accuracies, self._denominator()) for mode, accuracies in self.accuracies.items()
        }
        values["metrics"] = {name: estimate.to_dict() for name, estimate in self.metrics.items()}
        return {"schema": values.pop("schema")} | {name: _sorted(value) for name, value in values.items()}

    def to_result(self) -> Result:
        """The record in the envelope of all results."""
        values = self.to_dict()
        del values["schema"]
        return Result(KIND, values.pop("provenance"), values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of `to_dict`, which also takes the values of a result, with its envelope.

        In schema 1 the digest of the configuration is made anew from its settings.

        Raises:
            RecordError: The schema is newer, a field is missing, unknown or of the wrong type.
        """
        if isinstance(values, Mapping) and "kind" in values:
            result = Result.from_dict(values, KIND)
            values = {**result.payload, "schema": SCHEMA, "provenance": result.provenance}
        if not isinstance(values, Mapping) or not isinstance(values.get("schema"), int):
            raise RecordError("expected a record, a JSON object with a schema number")
        if values["schema"] > SCHEMA:
            raise RecordError(
                f"expected schema {SCHEMA} or older, found {values['schema']}: it was written by a newer sharp_maml; "
                "upgrade this one"
            )
        missing, unknown = _kinds().keys() - values.keys(), values.keys() - _kinds().keys()
        if missing or unknown:
            raise RecordError(
                f"expected the fields of schema {SCHEMA}; missing: {', '.join(sorted(missing)) or 'none'}, "
                f"unknown: {', '.join(sorted(unknown)) or 'none'}"
            )
        try:
            accuracies = {mode: decode_accuracies(text) for mode, text in values["accuracies"].items()}
            metrics = {name: Estimate.from_dict(estimate) for name, estimate in values["metrics"].items()}
            digest = values["config_digest"] if values["schema"] > 1 else Config.from_mapping(values["config"]).digest
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"accuracies, metrics or config are not as they are written ({error!r})") from error
        of_today = {"schema": SCHEMA, "config_digest": digest, "accuracies": accuracies, "metrics": metrics}
        return cls(**{**values, **of_today})

    def _denominator(self) -> int:
        ways, queries = self.protocol["ways"], self.protocol["queries"]
        if not isinstance(ways, int) or not isinstance(queries, int):
            raise RecordError(f"ways and queries of the protocol must be whole numbers, got {ways!r} and {queries!r}")
        return ways * queries


def write_record(path: str | Path, record: Record) -> None:
    """Write a record as a result: fields in their order, other keys sorted, small containers on one line.

    JSON has no infinity and no NaN: a missing bound of an estimate, and whatever else is not finite, is null.

    Args:
        path: The file; its directory is made if need be.
        record: The record.

    Raises:
        RecordError: The file cannot be written (an earlier one is untouched), or the record holds what JSON cannot.
    """
    write_result(path, record.to_result())


def read_records(where: str | Path | Iterable[str | Path], *, pattern: str = "**/*.json") -> list[Record]:
    """Read every record of a directory, of one file, or of a list of either.

    Args:
        where: Directory, file, or several of them.
        pattern: Which files of a directory are records; `**/record.json` for run directories, which also hold configs.

    Returns:
        The records, in the order of the paths given and sorted by path inside a directory; none for an empty one.

    Raises:
        RecordError: A path does not exist, or a file is not a record this version can read. The message names it.
    """
    paths = [where] if isinstance(where, (str, Path)) else list(where)
    return [_read(path) for path in _files(map(Path, paths), pattern)]


def encode_accuracies(accuracies: Sequence[float], denominator: int) -> str:
    """Counts of correct answers as one short text: `[0.2, 0.4]` out of 75 is `"75: 15 30"`.

    Args:
        accuracies: Fractions k / denominator, in float32 or better; `n_episodes`.
        denominator: Answers of an episode, ways * queries.

    Returns:
        The text; `decode_accuracies` is the inverse.

    Raises:
        RecordError: An accuracy is not such a fraction.
    """
    counts = []
    for accuracy in accuracies:
        count = round(accuracy * denominator) if math.isfinite(accuracy) else -1
        # Far above the rounding of float32, far below the distance between two counts.
        if not 0 <= count <= denominator or abs(count - accuracy * denominator) > 1e-3:
            raise RecordError(f"an accuracy must be one of 0, 1/{denominator}, ..., 1, got {accuracy}")
        counts.append(count)
    return f"{denominator}: {' '.join(map(str, counts))}"


def decode_accuracies(text: str) -> list[float]:
    """The inverse of `encode_accuracies`.

    Args:
        text: Denominator and counts, `"75: 15 30"`.

    Returns:
        The accuracies.

    Raises:
        RecordError: The text has another form, or a count is above the denominator.
    """
    try:
        head, counts = text.split(":")
        denominator = int(head)
        accuracies = [int(count) / denominator for count in counts.split()]
    except (AttributeError, ValueError, ZeroDivisionError) as error:
        raise RecordError(f"accuracies must be written as 'DENOMINATOR: COUNT COUNT ...', got {text!r:.80}") from error
    if not all(0 <= accuracy <= 1 for accuracy in accuracies):
        raise RecordError(f"a count must be between 0 and the denominator {denominator}, got {text!r:.80}")
    return accuracies


def provenance(device: str = "cpu", *, module: str | None = None) -> dict[str, Any]:
    """What runs this: commit, versions, device. Names neither the machine nor the user.

    Args:
        device: The device of the run, as torch writes it.
        module: The module of this repository that decides the numbers, with all that it imports from here; None for
            a run whose configuration does.

    Returns:
        `commit` (None outside a git checkout) and `dirty` (whether the tree differs from it; a file that
        `.gitattributes` calls `measured` does not count, since writing a record must not spoil the next one), versions
        of `python`, `torch`, `numpy` and `sharp_maml` (None where it is not installed), `device`, `threads`, and which
        `kernels` conv4 has there in float32 and float64, `native` or `torch`. Earlier records leave the last out. With
        a module also its `sources`: see `sharp_maml.sources`.
    """
    commit, dirty = _commit()
    try:
        version: str | None = metadata.version("sharp-maml")
    except metadata.PackageNotFoundError:
        version = None
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "sharp_maml": version,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "kernels": "native" if device == "cpu" and load() else "torch",
        **({"sources": sources(module)} if module else {}),
    }


def joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of work that one process began and another went on with, such as training and evaluation.

    Args:
        earlier: Provenance of the first.
        later: Provenance of the second.

    Returns:
        Provenance of the first, dirty if either is; entries that differ are given as `first, then second`.
    """
    result = {
        key: value if later.get(key, value) == value else f"{value}, then {later[key]}"
        for key, value in earlier.items()
    }
    result["dirty"] = True if earlier["dirty"] or later["dirty"] else earlier["dirty"]
    return result


def _commit(file: Path = Path(__file__)) -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code is part of, and whether the checkout differs from it."""

    def git(*arguments: str) -> str | None:
        # Only the file's own place decides, not an environment that git itself may have set, as in a hook.
        placing = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
        environment = {name: value for name, value in os.environ.items() if name not in placing}
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except OSError:  # there is no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside a checkout of something else: only tracked code belongs to a commit.
    if git("ls-files", "--error-unmatch", file.name) is None:
        return None, None
    status = git("status", "--porcelain", "--", ":(top)", ":(top,exclude,attr:measured)")
    return git("rev-parse", "HEAD"), None if status is None else status != ""


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor model."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def _kinds() -> dict[str, type]:
    """Type of each field of a record: what `isinstance` understands of its annotation."""
    return {name: get_origin(kind) or kind for name, kind in get_type_hints(Record).items()}


def _files(paths: Iterable[Path], pattern: str) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob(pattern))
        else:
            yield path


def _read(path: Path) -> Record:
    values = read_json(path)
    try:
        return Record.from_dict(values)
    except (ArithmeticError, RecursionError, ValueError) as error:  # a RecordError is without the name
        raise RecordError(f"{path}: {error}") from error


def _sorted(value: Any) -> Any:
    """The value with the keys of every mapping in their order."""
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value
