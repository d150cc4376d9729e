from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from sharp_maml.checkpoint import (
    CheckpointError,
    RunDirectoryLock,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)

METADATA = {"config_digest": "a" * 64, "step": 3}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {"params/conv1.weight": torch.full((2, 3), value), "optimizer/step": torch.tensor(7.0)}


def saved(folder: Path, value: float = 1.0) -> Path:
    path = folder / "last.safetensors"
    save_checkpoint(path, tensors=tensors(value), metadata=METADATA)
    return path


def value_in(path: Path) -> float:
    return load_checkpoint(path).tensors["params/conv1.weight"][0, 0].item()


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def safetensors_bytes(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@given(
    shapes=st.dictionaries(st.text(min_size=1, max_size=5), st.lists(st.integers(0, 3), max_size=3), max_size=3),
    dtype=st.sampled_from(DTYPES),
    metadata=st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    ),
)
def test_a_checkpoint_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]], dtype: torch.dtype, metadata: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("run") / "last.safetensors"
    written = {name: torch.randint(0, 2, shape).to(dtype) for name, shape in shapes.items()}
    metadata = {**metadata, **METADATA}
    save_checkpoint(path, tensors=written, metadata=metadata)
    read = load_checkpoint(path, config_digest="a" * 64)
    assert read.tensors.keys() == written.keys()
    for name, tensor in written.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)
    assert {name: read.metadata[name] for name in metadata} == metadata
    assert read.metadata["schema"] == 2


def test_tensors_that_share_memory_or_need_gradients_or_are_transposed_are_stored_by_value(tmp_path: Path) -> None:
    base = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    save_checkpoint(tmp_path / "x.safetensors", tensors={"a": base, "b": base, "c": base.T}, metadata=METADATA)
    read = load_checkpoint(tmp_path / "x.safetensors").tensors
    assert torch.equal(read["a"], base)
    assert torch.equal(read["c"], base.T)
    assert not read["b"].requires_grad


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", tensors=tensors(), metadata=METADATA)
    turned = dict(reversed(METADATA.items()))
    save_checkpoint(tmp_path / "b.safetensors", tensors=dict(reversed(tensors().items())), metadata=turned)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        path = saved(tmp_path, value)
    assert value_in(path) == 3.0
    assert value_in(tmp_path / "last.previous.safetensors") == 2.0
    assert names_in(tmp_path) == ["last.previous.safetensors", "last.safetensors"]


def test_the_directory_is_made(tmp_path: Path) -> None:
    assert value_in(saved(tmp_path / "row" / "seed0")) == 1.0


def test_a_loaded_tensor_outlives_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    tensor = load_checkpoint(path).tensors["params/conv1.weight"]
    path.write_bytes(bytes(path.stat().st_size))
    tensor += 1
    assert torch.equal(tensor, torch.full((2, 3), 2.0))


def test_metadata_without_a_config_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata must have a config_digest, got step"):
        save_checkpoint(tmp_path / "x.safetensors", tensors=tensors(), metadata={"step": 1})


def test_metadata_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "x.safetensors", tensors={}, metadata={**METADATA, "best": float("nan")})
    assert names_in(tmp_path) == []


def test_a_missing_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.safetensors: .*No such file.*no earlier one beside it"):
        load_checkpoint(tmp_path / "last.safetensors")


def test_a_directory_in_place_of_a_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a whole checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_checkpoint_is_refused_and_the_one_before_it_named(tmp_path: Path, kept: int) -> None:
    saved(tmp_path, 1.0)
    path = saved(tmp_path, 2.0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"the checkpoint before it is .*last\.previous\.safetensors"):
        load_checkpoint(path)
    assert value_in(tmp_path / "last.previous.safetensors") == 1.0


def test_a_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="tensors that differ from the ones written"):
        load_checkpoint(path)


def test_a_changed_number_of_the_metadata_is_noticed_and_earlier_checkpoints_have_no_digest_of_it(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    assert data.count(b'step\\": 3') == 1
    path.write_bytes(data.replace(b'step\\": 3', b'step\\": 7'))
    with pytest.raises(CheckpointError, match="metadata that differ from those written"):
        load_checkpoint(path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["sharp_maml"])
    del metadata["metadata_digest"]
    path.write_bytes(save(tensors(), {"sharp_maml": json.dumps(metadata)}))
    assert load_checkpoint(path).metadata["step"] == 7


HOSTILE = {
    "html": b"<html>not found</html>" * 20,
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\n" * 3,
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "offsets beyond the end": safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}}),
    "overlap": safetensors_bytes(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")},
    ),
    "negative shape": safetensors_bytes({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
    "overflowing shape": safetensors_bytes({"a": {"dtype": "F32", "shape": [2**62] * 2, "data_offsets": [0, 8]}}),
    "nested header": safetensors_bytes(b"[" * 100_000),
    "unknown type": safetensors_bytes({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}),
    "no metadata": save({"a": torch.ones(2)}),
    "empty": safetensors_bytes({}, b""),
    "metadata is not json": save({}, {"sharp_maml": "{"}),
    "metadata is a list": save({}, {"sharp_maml": "[]"}),
    "metadata is nested": save({}, {"sharp_maml": "[" * 100_000}),
    "schema is a word": save({}, {"sharp_maml": '{"schema": "one", "config_digest": ""}'}),
    "schema is endless": save({}, {"sharp_maml": f'{{"schema": {"9" * 5000}, "config_digest": ""}}'}),
    "no config digest": save({}, {"sharp_maml": '{"schema": 1}'}),
    "no tensors digest": save({}, {"sharp_maml": '{"schema": 1, "config_digest": ""}'}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: expected a whole checkpoint of sharp_maml, found"):
        load_checkpoint(path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.safetensors"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert names_in(tmp_path) == ["last.safetensors"]


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_file({}, path, {"sharp_maml": json.dumps({**METADATA, "schema": 3})})
    with pytest.raises(CheckpointError, match=r"expected schema 2 or older, found schema 3: .* upgrade"):
        load_checkpoint(path)


def test_a_checkpoint_of_schema_1_can_be_read_but_not_gone_on_with(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["sharp_maml"])
    del header["metadata_digest"]
    save_file(tensors(), path, {"sharp_maml": json.dumps({**header, "schema": 1})})
    assert load_checkpoint(path).metadata["schema"] == 1
    with pytest.raises(CheckpointError, match=r"expected schema 2 to go on from, found schema 1.*finish the run with"):
        load_checkpoint(path, config_digest="a" * 64)


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint of the config bbbbbbbbbbbb, found one of aaaaaaa"):
        load_checkpoint(saved(tmp_path), config_digest="b" * 64)


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = saved(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(CheckpointError, match=r"last\.safetensors: .*No space left on device.*untouched"):
            save_checkpoint(path, tensors=tensors(2.0), metadata=METADATA)
    assert value_in(path) == 1.0
    assert names_in(tmp_path) == ["last.safetensors"]


def test_a_read_only_directory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    # Simulated, since root may write anywhere.
    path = saved(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refuse)
        with pytest.raises(CheckpointError, match="Read-only file system"):
            save_checkpoint(tmp_path / "other.safetensors", tensors=tensors(), metadata=METADATA)
    assert names_in(tmp_path) == [path.name]


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", b"new")
    assert names_in(tmp_path) == []


def test_what_a_killed_process_has_left_of_a_file_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, foreign = tmp_path / ".x.1.tmp", tmp_path / ".y.1.tmp"
    for path in (left, foreign):
        path.write_bytes(b"half")
    original = os.fsync

    def meanwhile(file: int) -> None:
        """Another process, whose number is another one, writes to the same path."""
        monkeypatch.setattr("os.fsync", original)
        monkeypatch.setattr("os.getpid", lambda: 2)
        write_atomically(tmp_path / "x", b"of the other")
        assert ".x.2.tmp" not in names_in(tmp_path)

    monkeypatch.setattr("os.fsync", meanwhile)
    write_atomically(tmp_path / "x", b"new")
    assert names_in(tmp_path) == [".y.1.tmp", "x"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_the_lock_refuses_a_directory_that_another_process_uses(tmp_path: Path) -> None:
    script = (
        "import sys; from sharp_maml.checkpoint import RunDirectoryLock\n"
        "with RunDirectoryLock(sys.argv[1]): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError, match=f"in use by process {other.pid};"), RunDirectoryLock(tmp_path):
            pass
        other.kill()
        other.wait()
        with RunDirectoryLock(tmp_path):  # a killed process holds nothing
            pass


def test_the_lock_makes_its_directory_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDirectoryLock(tmp_path / "row" / "seed0"):
            assert (tmp_path / "row" / "seed0" / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="training failed"), RunDirectoryLock(tmp_path):
        raise RuntimeError("training failed")
    with RunDirectoryLock(tmp_path):
        pass


def test_the_lock_reports_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="file: the run directory cannot be used"),
        RunDirectoryLock(tmp_path / "file"),
    ):
        pass
