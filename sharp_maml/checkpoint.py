"""Checkpoints that survive a crash and are safe to load, and the lock that keeps two runs out of one directory.

A checkpoint is one safetensors file: named tensors, and one JSON text of metadata in its header. Nothing in it is ever
executed. It is written beside its final place and moved there when it is on the disk, so that at every moment the path
holds one whole checkpoint; the one before it is kept as `X.previous.safetensors`. Read next: `train.py`, which decides
what goes into a checkpoint, and `records.py`, which writes its records through `write_atomically` too.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sharp_maml.base import Params

SCHEMA = 2
"""2: `config_digest` is made of the settings that differ from their defaults; 1 hashed all settings."""

_HEADER_KEY = "sharp_maml"
_METADATA_DIGEST = "metadata_digest"  # earlier checkpoints have none


class CheckpointError(ValueError):
    """A checkpoint cannot be read, written or used. The message says what was expected, what was found, what to do."""


class InUseError(CheckpointError):
    """Another process works in the run directory. The message names both."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    tensors: tensors by flat name, such as `params/conv1.weight` or `rng/torch`; on the CPU.
    metadata: plain values, among them `schema` and `config_digest`.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def save_checkpoint(path: str | Path, *, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint; whatever happens, `path` holds the old one or the new one, whole.

    The checkpoint that was at `path` is kept as `X.previous.safetensors`. It is copied, not linked: some file systems
    that runs are kept on have no hard links.

    Args:
        path: Where to write, by convention `X.safetensors`; its directory is made if need be.
        tensors: Tensors by flat name, of any shape and on any device.
        metadata: Values that JSON can hold; `config_digest` is one of them.

    Raises:
        CheckpointError: The file cannot be written: the disk is full, the directory is read-only.
        ValueError: `metadata` has no `config_digest`, or a value that JSON cannot hold.
    """
    path = Path(path)
    if "config_digest" not in metadata:
        raise ValueError(f"metadata must have a config_digest, got {', '.join(metadata) or 'nothing'}")
    # Cloned, because safetensors refuses tensors that share memory.
    stored = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = {**metadata, "schema": SCHEMA, "tensors_digest": _digest(stored)}
    header |= {_METADATA_DIGEST: _digest_of_values(header)}
    data = save(stored, {_HEADER_KEY: json.dumps(header, sort_keys=True, allow_nan=False)})
    try:
        if path.exists():
            write_atomically(previous_path(path), path.read_bytes())
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written ({error}); an earlier one there is untouched. "
            "Free some space or choose a directory that can be written, then resume"
        ) from error


def load_checkpoint(path: str | Path, *, config_digest: str | None = None) -> Checkpoint:
    """Read a checkpoint, or say why not; no other file is ever used in its stead.

    Args:
        path: The file.
        config_digest: Digest that the config of the checkpoint must have; None accepts any.

    Returns:
        Tensors and metadata.

    Raises:
        CheckpointError: The file is missing, truncated, altered or not a checkpoint, comes from a newer version of
            this package, or belongs to another config.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            # Cloned, because these tensors are windows on the file, which may be replaced.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        metadata = json.loads(texts[_HEADER_KEY])
        schema, found_digest = int(metadata["schema"]), str(metadata["config_digest"])
        written = metadata.pop(_METADATA_DIGEST, None)
        is_whole = written is None or written == _digest_of_values(metadata)
    except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _unreadable(path, f"a safetensors file without the metadata of a checkpoint ({error!r})") from error
    if schema > SCHEMA:
        raise CheckpointError(
            f"{path}: expected schema {SCHEMA} or older, found schema {schema}: it was written by a newer sharp_maml; "
            "upgrade this one"
        )
    if not is_whole:
        raise _unreadable(path, "metadata that differ from those written (their digest is another one)")
    if metadata.get("tensors_digest") != _digest(tensors):
        raise _unreadable(path, "tensors that differ from the ones written (their digest is another one)")
    if config_digest is not None and schema < SCHEMA:
        raise CheckpointError(
            f"{path}: expected schema {SCHEMA} to go on from, found schema {schema}, whose digest of the settings was "
            "another one: finish the run with the version that began it, or use another directory"
        )
    if config_digest is not None and found_digest != config_digest:
        raise CheckpointError(
            f"{path}: expected a checkpoint of the config {config_digest[:12]}, found one of {found_digest[:12]}: the "
            "settings have changed; go back to them (config.json beside the checkpoint) or use another directory"
        )
    return Checkpoint(tensors, metadata)


def previous_path(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept: `X.previous.safetensors` for `X.safetensors`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, and a machine after a crash, sees the old content or all of the new.

    What a killed process has left of an earlier attempt is removed.

    Args:
        path: The file; its directory is made if need be.
        data: The new content.

    Raises:
        OSError: It cannot be written; the old content is untouched and no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one who lives holds the lock of what it writes
            left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:  # also an interrupt must not leave the temporary file
        with suppress(OSError):
            temporary.unlink()
        raise
    # The new name is safe only when the directory is on the disk too.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class RunDirectoryLock:
    """Context manager that owns a run directory: two processes that wrote to one would mix two runs.

    The lock belongs to the open file `.lock` and ends with the process, however that ends; the file itself stays, and
    means nothing. A directory shared by several machines is protected where their file system carries locks over.

    Args:
        directory: The run directory; made if need be.
    """

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / ".lock"

    def __enter__(self) -> RunDirectoryLock:
        """Take the lock.

        Raises:
            InUseError: Another process has it.
            CheckpointError: The directory cannot be written, or its file system has no locks.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{self._path.parent}: the run directory cannot be used ({error})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._file.close()
                raise CheckpointError(f"{self._path}: this file system gives no locks ({error})") from error
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise InUseError(
                f"{self._path.parent}: the run directory is in use by process {owner}; wait for it to end or use "
                "another directory"
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def require_held(self) -> None:
        """Refuse to go on in a directory that has been removed, emptied or replaced since it was locked.

        Raises:
            CheckpointError: The lock file is gone, or is another one.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                return
        raise CheckpointError(
            f"{self._path.parent}: the run directory was removed or replaced while the run was using it; nothing more "
            "is written there. Start the run again"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()  # gives the lock back


def trained_params(checkpoint: Checkpoint, expected: Params) -> Params:
    """The parameters in a checkpoint of the trainer.

    Args:
        checkpoint: A checkpoint as the trainer wrote it.
        expected: Parameters of the same network, such as its initial ones.

    Returns:
        Parameters of the checkpoint, on the device and of the dtype of `expected`.

    Raises:
        CheckpointError: They have other names or shapes.
    """
    found = {
        key.removeprefix("params/"): value for key, value in checkpoint.tensors.items() if key.startswith("params/")
    }
    for name in expected.keys() | found.keys():
        shapes = [tuple(tree[name].shape) if name in tree else None for tree in (expected, found)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the checkpoint does not fit its own config: {name} should have shape {shapes[0]}, has {shapes[1]}"
            )
    return {name: found[name].to(value.device, value.dtype) for name, value in expected.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and contents: a block that a crash or a bad disk has changed is still valid."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest_of_values(values: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON holds of the values, in which a number may have changed and still be one."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _unreadable(path: Path, found: str) -> CheckpointError:
    """The error for a file that is no whole checkpoint; names the one before it where there is one."""
    size = f" in {path.stat().st_size} bytes" if path.is_file() else ""
    previous = previous_path(path)
    advice = f"the checkpoint before it is {previous}" if previous.exists() else "there is no earlier one beside it"
    return CheckpointError(f"{path}: expected a whole checkpoint of sharp_maml, found {found}{size}; {advice}")
