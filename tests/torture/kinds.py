"""What the package reads, kind by kind: valid specimens by its own writers, how they are damaged, who reads them."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from PIL import Image

from reproductions.tables.specification import SPECIFICATION, load
from sharp_maml import Config, Record, interval_over_episodes, open_cache, read_records, write_cache, write_record
from sharp_maml.base import DataError
from sharp_maml.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from sharp_maml.data.formats import Classes, decode, read_csv, read_folders, read_hdf5
from sharp_maml.data.pickles import read_pickle
from sharp_maml.records import RecordError
from tests.torture import mutations

Files = dict[str, bytes]
"""An input: what lies in a folder, by name; the first one is the file that is read."""


class Kind(NamedTuple):
    """One kind of input.

    what: what it is, in words. refusal: the error by which it is refused, and no subclass of it.
    specimens: valid inputs. damage: makes another one of a valid one by random choices.
    read: reads the input that lies in a folder, all of it.
    """

    what: str
    refusal: type[ValueError]
    specimens: Callable[[], list[Files]]
    damage: Callable[[random.Random, Files], Files]
    read: Callable[[Path], object]


def _pixels(n: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def _image(kind: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_pixels(1, size)[0]).save(buffer, kind)
    return buffer.getvalue()


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _config_text() -> bytes:
    lines = (f"{name} = {json.dumps(value)}" for name, value in Config(alpha_low=0.01, data="x").to_dict().items())
    return "\n".join(lines).encode()


def _overrides() -> list[Files]:
    return [{"override": line, "config.toml": b"seed = 1\n"} for line in _config_text().splitlines()]


def _read_override(folder: Path) -> object:
    return Config.from_toml(folder / "config.toml", [(folder / "override").read_text("utf-8", "replace")])


@cache
def _record() -> bytes:
    config, accuracies = Config(seed=3), [0.2, 0.4, 1.0]
    record = Record(
        name="maml", config=config.to_dict(), config_digest=config.digest, provenance={"commit": None, "dirty": None},
        seed=3, dtype="float32", data_name="x", data_digest="d" * 64, episodes_digest="e" * 64,
        protocol={"ways": 5, "shots": 1, "queries": 15, "test_steps": 5, "batch_norm": "transductive", "split": "test",
                  "episodes": 3, "evaluation_seed": 0, "selection": "best"},
        accuracies={"transductive": accuracies, "support": accuracies}, started="2025-11-23T19:00:00+00:00",
        seconds=12.5, peak_memory_bytes=2**30, metrics={"accuracy": interval_over_episodes(accuracies)},
        selected_step=1000, learning_curve=[{"step": 1000, "loss": 1.5, "validation_accuracy": 0.3}],
    )  # fmt: skip
    return _written("record.json", lambda path: write_record(path, record))


def _read_record(path: Path) -> object:
    """What is read must be the same when it is written and read again."""
    (record,) = read_records(path)
    write_record(path, record)
    try:
        (again,) = read_records(path)
    except RecordError as error:
        raise AssertionError(f"a record that was read is refused when it is written and read again: {error}") from error
    assert again == record, "a record that was read is another one when it is written and read again"
    return record


@cache
def _checkpoint() -> bytes:
    tensors = {"params/w": torch.ones(2, 3), "rng/torch": torch.zeros(16, dtype=torch.uint8), "step": torch.tensor(7.0)}
    metadata = {"config_digest": "a" * 64, "config": Config().to_dict(), "progress": {"step": 3, "curve": []}}
    return _written("x.safetensors", lambda path: save_checkpoint(path, tensors=tensors, metadata=metadata))


@cache
def _cache() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        splits = {split: {f"{split}{i}": _pixels(2, 4) for i in range(2)} for split in ("train", "validation", "test")}
        write_cache(Path(folder) / "x", name="x", splits=splits)
        return {name: (Path(folder) / "x" / name).read_bytes()
                for name in ("index.json", "train.npy", "validation.npy", "test.npy")}  # fmt: skip


def _read_cache(folder: Path) -> object:
    dataset = open_cache(folder, verify=True)
    for split in dataset.splits.values():
        for start, count in zip(split.starts, split.counts, strict=True):
            assert 0 < count == len(split.images[start : start + count]), "a class without its images is accepted"
    return dataset


@cache
def _csv() -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("filename", "label"), *((f"{i}.png", f"n{i % 2:08d}") for i in range(6))])
    return text.getvalue().encode()


def _read_csv(path: Path) -> object:
    images = path.with_name("images")
    if not images.exists():
        images.mkdir()
        for i in range(6):
            (images / f"{i}.png").write_bytes(_image("png"))
    return _read_split(read_csv, path)


@cache
def _zips() -> list[bytes]:
    found = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for i, kind in enumerate(("png", "jpeg", "gif")):
                archive.writestr(f"n{i % 2:08d}/{i}.{kind}", _image(kind))
        found.append(buffer.getvalue())
    return found


@cache
def _pickles() -> list[bytes]:
    images = _pixels(3, 4)
    packs = [
        {"image_data": images, "class_dict": {"n00000001": [0, 1], "n00000002": [2]}},
        {"data": images, "labels": [0, 1, 0], "catname2label": {"a": 0, "b": 1}},
        {"data": list(images), "labels": list(np.array([0, 1, 0]))},
    ]
    return [pickle.dumps(pack, protocol) for pack in packs for protocol in range(6)]


@cache
def _images() -> list[bytes]:
    return [_image(kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")]


@cache
def _hdf5() -> bytes:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            group = file.create_group("datasets")
            for name in ("n00000001", "n00000002"):
                group.create_dataset(name, data=_pixels(2, 4))

    return _written("x.hdf5", write)


def _read_split(read: Callable[[Path, ExitStack], Classes], path: Path) -> object:
    """All images of a split by its reader, one after the other."""
    with ExitStack() as stack:
        for images in read(path, stack).values():
            for key in images.keys:
                np.asarray(images.load(key).resize((8, 8)))
    return None


def _one_file(
    what: str,
    refusal: type[ValueError],
    name: str,
    specimens: Callable[[], list[bytes]],
    damage: Callable[[random.Random, bytes], bytes],
    read: Callable[[Path], object],
) -> Kind:
    """A kind whose inputs are one file."""
    return Kind(
        what,
        refusal,
        lambda: [{name: content} for content in specimens()],
        lambda choose, files: {name: damage(choose, files[name])},
        lambda folder: read(folder / name),
    )


KINDS: dict[str, Kind] = {
    "config": _one_file(
        "a training's settings, TOML", ValueError, "config.toml", lambda: [_config_text()], mutations.lines_damaged,
        Config.from_toml,
    ),
    "override": Kind(
        "a setting on the command line", ValueError, _overrides,
        lambda choose, files: files | {"override": mutations.lines_damaged(choose, files["override"])}, _read_override,
    ),
    "table": _one_file(
        "the table's specification, TOML", ValueError, "tables.toml", lambda: [SPECIFICATION.read_bytes()],
        mutations.lines_damaged, load,
    ),
    "record": _one_file(
        "a record, JSON", RecordError, "record.json", lambda: [_record()], mutations.json_damaged, _read_record
    ),
    "checkpoint": _one_file(
        "a checkpoint, safetensors", CheckpointError, "last.safetensors", lambda: [_checkpoint()],
        mutations.checkpoint_damaged, load_checkpoint,
    ),
    "cache": Kind("a data cache", DataError, lambda: [_cache()], mutations.cache_damaged, _read_cache),
    "csv": _one_file(
        "a list of images, CSV", DataError, "train.csv", lambda: [_csv()], mutations.lines_damaged, _read_csv
    ),
    "zip": _one_file(
        "a zip of class folders", DataError, "train.zip", _zips, mutations.zip_damaged,
        partial(_read_split, read_folders),
    ),
    "pickle": _one_file(
        "miniImageNet, pickled", DataError, "train.pkl", _pickles, mutations.pickle_damaged,
        partial(_read_split, read_pickle),
    ),
    "hdf5": _one_file(
        "miniImageNet, HDF5", DataError, "train_data.hdf5", lambda: [_hdf5()], mutations.bytes_damaged,
        partial(_read_split, read_hdf5),
    ),
    "image": _one_file(
        "an image", DataError, "x.png", _images, mutations.image_damaged,
        lambda path: np.asarray(decode(path.read_bytes(), str(path), "RGB")),
    ),
}  # fmt: skip
