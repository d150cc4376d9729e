"""A short form of the fuzzer for every run of the tests, the inputs in which it found a fault, and itself."""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
import random
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from sharp_maml import read_result
from sharp_maml.data import cache, formats, pickles
from tests.torture import fuzz
from tests.torture.kinds import KINDS, Files, Kind

ROOT = Path(__file__).parents[2]
SPECIMENS = {kind: KINDS[kind].specimens() for kind in KINDS}
TABLE = SPECIMENS["table"][0]["tables.toml"]
CACHE = SPECIMENS["cache"][0]
PNG = SPECIMENS["image"][0]["x.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_damaged_is_accepted(kind, tmp_path):
    assert [fuzz.judged(kind, files, tmp_path) for files in SPECIMENS[kind]] == ["accepted"] * len(SPECIMENS[kind])


@pytest.mark.parametrize("kind", KINDS)
@given(choose=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_what_is_damaged_is_accepted_or_refused_by_name(kind, tmp_path_factory, choose):
    files = KINDS[kind].damage(choose, choose.choice(SPECIMENS[kind]))
    assert fuzz.judged(kind, files, tmp_path_factory.mktemp("x")) in ("accepted", "refused")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", ["config", "table", "record", "csv", "pickle", "checkpoint", "zip", "image"])
@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | st.text().map(str.encode))
@settings(max_examples=20)
def test_what_is_something_else_altogether_is_accepted_or_refused_by_name(kind, tmp_path_factory, content):
    name = next(iter(SPECIMENS[kind][0]))
    assert fuzz.judged(kind, {name: content}, tmp_path_factory.mktemp("x")) in ("accepted", "refused")


def record(protocol: dict[str, object]) -> Files:
    values = json.loads(SPECIMENS["record"][0]["record.json"])
    values["payload"]["protocol"] |= protocol
    return {"record.json": json.dumps(values).encode()}


class Unfilled:
    """Pickled, an array that is made in memory as it was."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.ndarray, ((1, 4, 4, 3), np.dtype(np.uint8))


def changed(kind: str, name: str, old: bytes, new: bytes) -> Files:
    files = SPECIMENS[kind][0]
    assert old in files[name]
    return files | {name: files[name].replace(old, new, 1)}


def forged_index() -> Files:
    """With the right digest of what is wrong."""
    index = json.loads(CACHE["index.json"])
    for split in index["splits"].values():
        del split["sha256"]
    index["digest"] = cache._digest(index)
    return CACHE | {"index.json": json.dumps(index).encode()}


def checkpoint(metadata: bytes) -> Files:
    text = json.dumps({"__metadata__": {"sharp_maml": metadata.decode()}}).encode()
    return {"last.safetensors": len(text).to_bytes(8, "little") + text}


def a_zip(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


NESTED = b"[" * 3000
FOUND = {
    "arrays in arrays": ("config", {"config.toml": b"seed = " + NESTED}),
    "a number that no float can hold": ("config", {"config.toml": b"alpha_low = 1" + b"0" * 400}),
    "bytes that are no text": ("table", {"tables.toml": b"\xff"}),
    "an unknown setting of a tier": ("table", changed("table", "tables.toml", b"queries = ", b"querys = ")),
    "a text for a number": ("table", changed("table", "tables.toml", b"seeds = 1", b'seeds = "1"')),
    "a table without rows": ("table", {"tables.toml": re.sub(rb"(?m)^rows = \[[^]]*\]", b"rows = []", TABLE)}),
    "a time of no number": ("record", changed("record", "record.json", b"12.5", b"NaN")),
    "an infinite number deep inside": ("record", changed("record", "record.json", b'"loss": 1.5', b'"loss": 1e999')),
    "too many queries for a float": ("record", record(protocol={"ways": 10**400})),
    "an infinite schema": ("checkpoint", checkpoint(b'{"schema": Infinity, "config_digest": "a"}')),
    "an infinite size": ("cache", changed("cache", "index.json", b'"size": 4', b'"size": 1e999')),
    "an index of arrays in arrays": ("cache", CACHE | {"index.json": NESTED}),
    "an index without the digests of pixels": ("cache", forged_index()),
    "an empty array": ("cache", CACHE | {"train.npy": b""}),
    "a zip for an array": ("cache", CACHE | {"train.npy": b"PK\x03\x04"}),
    "a header without its end": ("cache", changed("cache", "train.npy", b"}", b" ")),
    "a line without a label": ("csv", {"train.csv": b"filename,label\n0.png,a\n1.png\n"}),
    "a zip for a later version": ("zip", changed("zip", "train.zip", b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff")),
    "a name that is no text": ("zip", {"train.zip": a_zip("a/é.png", PNG).replace("é".encode(), b"\xff\xff", 1)}),
    "an array that nobody filled": (
        "pickle",
        {"train.pkl": pickle.dumps({"image_data": Unfilled(), "class_dict": {"a": [0]}})},
    ),
    "a forged state of a type": ("pickle", changed("pickle", "train.pkl", b"NNNI-1", b"I256\nNNI-1")),
    "a damaged group": ("hdf5", changed("hdf5", "train_data.hdf5", b"HEAP\0", b"HEAP\1")),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_had_a_fault_is_refused_by_name(name, tmp_path):
    kind, files = FOUND[name]
    assert fuzz.judged(kind, files, tmp_path) == "refused"


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    """For EPS, whatever the name of the file, Pillow starts Ghostscript."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: started.append(given))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "eps")
    assert fuzz.judged("image", {"x.png": buffer.getvalue()}, tmp_path) == "refused"
    assert started == []


def test_an_image_of_more_pixels_than_fit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "PIXELS", 63)
    assert fuzz.judged("image", SPECIMENS["image"][0], tmp_path) == "refused"
    monkeypatch.setattr(formats, "PIXELS", 64)
    assert fuzz.judged("image", SPECIMENS["image"][0], tmp_path) == "accepted"


def test_a_pickle_of_ten_bytes_takes_no_gigabyte(tmp_path):
    tracemalloc.start()
    try:
        assert fuzz.judged("pickle", {"train.pkl": b"\x80\x04}r\xff\xff\xff\x0f."}, tmp_path) == "refused"
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_class_of_the_unpickler_cannot_be_changed_by_a_file(tmp_path):
    """A state in two halves would set attributes of whatever the file names, for all files after it."""
    attack = b"\x80\x04cnumpy\ndtype\n(N}X\x05\x00\x00\x00dtypeK\x01stb."
    assert fuzz.judged("pickle", {"train.pkl": attack}, tmp_path) == "refused"
    assert fuzz.judged("pickle", {"train.pkl": pickle.dumps({})}, tmp_path) == "refused"
    assert not hasattr(pickles._Type, "dtype")


def test_an_input_is_a_function_of_its_kind_the_seed_and_its_number():
    drawn = [
        [fuzz.draw(kind, seed, number) for kind in KINDS for seed in (0, 1) for number in (0, 1)] for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(files.items()) for files in drawn[0]}) == len(drawn[0])


def made_up(read) -> Kind:
    """A kind of numbers as text, with a reader of its own."""

    def damage(choose: random.Random, files: Files) -> Files:
        return {"x": str(choose.randint(0, 3)).encode()}

    return Kind("made up", ValueError, lambda: [{"x": b"0"}], damage, lambda folder: read(folder / "x"))


def reader(path: Path) -> None:
    """0 is accepted, 1 refused; 2 is refused without a name, and 3 ends the process."""
    number = int(path.read_text())
    if number == 3:
        os._exit(1)
    if number:
        raise ValueError(f"{path} is 1" if number == 1 else "2")


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@forks
def test_an_input_that_ends_the_process_counts_against_it_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(KINDS, "made up", made_up(reader))
    numbers = range(5, 25)
    expected = {
        b"0": "accepted",
        b"1": "refused",
        b"2": "the error does not name the file: 2",
        b"3": "the process died (1)",
    }
    inputs = [fuzz.draw("made up", 0, number)["x"] for number in numbers]
    assert set(inputs) == set(expected)
    found = list(fuzz.outcomes("made up", 0, numbers))
    assert [outcome.said for outcome in found] == [expected[each] for each in inputs]
    assert [outcome.is_fault for outcome in found] == [each in (b"2", b"3") for each in inputs]


@forks
def test_an_input_that_takes_much_memory_is_a_fault(monkeypatch):
    def read(path):
        memory = mmap.mmap(-1, 1 << 26)  # no memory that the process has freed and kept
        memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)

    monkeypatch.setitem(KINDS, "made up", made_up(read))
    monkeypatch.setattr(fuzz, "BYTES", 1 << 25)
    (outcome,) = fuzz.outcomes("made up", 0, range(1))
    assert outcome.said == "accepted"
    assert outcome.memory > 1 << 25
    assert outcome.is_fault


@forks
def test_a_run_goes_on_where_it_was_cut_off_and_keeps_inputs_with_a_fault(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(KINDS, "made up", made_up(reader))
    monkeypatch.setattr(fuzz, "provenance", lambda module: {"commit": "c", "dirty": False, "python": "3", "torch": "2"})
    options = ["--only", "made up", "--output", str(tmp_path), "--inputs"]
    assert fuzz.main([*options, "12"]) == 1
    assert fuzz.main([*options, "20"]) == 1
    entry = read_result(tmp_path / "reliability.json", "reliability").payload["kinds"]["made up"]
    inputs = [fuzz.draw("made up", 0, number)["x"] for number in range(20)]
    wrong = [number for number, each in enumerate(inputs) if each in (b"2", b"3")]
    assert (entry["inputs"], entry["accepted"], entry["refused"]) == (20, inputs.count(b"0"), inputs.count(b"1"))
    assert [fault["number"] for fault in entry["shown"]] == wrong
    assert {path.name for path in (tmp_path / "faults").iterdir()} == {f"made up-{number}" for number in wrong}
    assert "20 inputs" in capsys.readouterr().out


def test_the_tracked_record_is_of_many_inputs_of_every_kind_without_a_fault():
    result = read_result(ROOT / "records/reliability.json", "reliability")
    record = result.payload
    assert record["kinds"].keys() == KINDS.keys()
    assert sum(entry["inputs"] for entry in record["kinds"].values()) >= 10**5
    assert [entry["shown"] for entry in record["kinds"].values() if entry["faults"]] == []
    assert result.provenance["dirty"] is False
