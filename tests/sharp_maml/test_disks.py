"""Disks that fail under a run: one error that names the file, and the last good state goes on as if nothing was."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sharp_maml import DataError, open_cache, write_cache
from sharp_maml import train as training
from sharp_maml.checkpoint import CheckpointError, RunDirectoryLock
from sharp_maml.data.cache import SPLITS, is_cache
from sharp_maml.train import train
from tests.sharp_maml.tiny import SETTINGS, assert_same_run, tiny_config, tiny_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(tmp_path):
    return tiny_dataset(tmp_path / "tiny")


@pytest.mark.parametrize("at", [3, 5, 9, 14])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_call_that_fails_is_named_and_the_run_goes_on_bitwise_when_it_no_longer_does(
    call, at, dataset, tmp_path, monkeypatch
):
    """A checkpoint at every step: the first calls are those of the configuration and the metrics."""
    config = tiny_config(checkpoint_every=1)
    train(config, dataset, tmp_path / "whole")
    owner = os if call == "fsync" else Path
    original, calls = getattr(owner, call), []

    def failing(*given):
        calls.append(given)
        if len(calls) >= at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "x")
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, failing)
        with pytest.raises((OSError, CheckpointError), match=r"Input/output error") as caught:
            train(config, dataset, tmp_path / "cut")
    if isinstance(caught.value, CheckpointError):
        assert str(tmp_path / "cut") in str(caught.value)
    assert list((tmp_path / "cut").glob(".*.tmp")) == []
    train(config, dataset, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_that_is_removed_under_a_run_is_not_made_again(replaced, dataset, tmp_path, monkeypatch):
    original, directory = training._Run.step, tmp_path / "run"

    def removing(self, episodes):
        if self.state.step == 2:
            shutil.rmtree(directory)
            if replaced:
                with RunDirectoryLock(directory):
                    pass
        return original(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "step", removing)
        with pytest.raises(CheckpointError, match=f"{directory}: the run directory was removed or replaced"):
            train(tiny_config(), dataset, directory)
    assert directory.exists() == replaced
    assert list(directory.glob("*.safetensors")) == []


PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
IMAGES = {split: {f"{split}{index}": PIXELS for index in range(3)} for split in SPLITS}


def assert_is_not_built(place: Path, match: str) -> None:
    """The error names the cache, and nothing is taken for one."""
    with pytest.raises(DataError, match=f"{re.escape(str(place))}: cannot write the data cache .*{match}"):
        write_cache(place, name="x", splits=IMAGES)
    assert not is_cache(place)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_data_cache_on_a_disk_that_cannot_sync_is_an_error_and_built_whole_when_it_can(at, tmp_path, monkeypatch):
    """Three splits, the index, the folder: nothing has its name before all are on the disk."""
    original, calls = os.fsync, []

    def failing(file: int) -> None:
        calls.append(file)
        if len(calls) >= at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert_is_not_built(tmp_path / "cache", "Input/output error")
    assert [path.name for path in tmp_path.iterdir()] == [".cache.lock"]
    write_cache(tmp_path / "cache", name="x", splits=IMAGES)
    open_cache(tmp_path / "cache", verify=True)


def test_a_data_cache_that_cannot_be_renamed_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def failing(*given: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        assert_is_not_built(tmp_path / "cache", "Input/output error")
    assert [path.name for path in tmp_path.iterdir()] == [".cache.lock"]


@pytest.mark.parametrize("removed", [".cache.tmp", "."])
def test_a_directory_that_is_removed_under_the_building_of_a_data_cache_is_an_error(removed, tmp_path):
    """The directory of the cache itself, and the one in which it is to lie."""
    place = tmp_path / "data" / "cache"

    class Removing:
        def __iter__(self):
            shutil.rmtree(place.parent / removed)
            yield PIXELS[0]

    with pytest.raises(DataError, match=f"{re.escape(str(place))}: cannot write the data cache .*No such file"):
        write_cache(place, name="x", splits={**IMAGES, "validation": {"x": Removing()}})
    assert not is_cache(place)
    write_cache(place, name="x", splits=IMAGES)
    open_cache(place, verify=True)


def in_namespace(script: str, *given: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount, where that is allowed."""
    alone = ["unshare", "--map-root-user", "--mount"]
    try:
        asked = subprocess.run(
            [*alone, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if asked.returncode:
        pytest.skip(f"this machine lets nobody mount: {asked.stderr.strip()}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*alone, "sh", "-eu", "-c", script, "sh", *given]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [16, 40, 64])
def test_a_full_disk_ends_a_run_by_one_line_that_names_the_file_and_its_last_state_goes_on(kilobytes, tmp_path):
    """A real one: as many kilobytes as are enough for nothing, for a checkpoint, for a few."""
    dataset = tiny_dataset(tmp_path / "tiny")
    settings = {**SETTINGS, "checkpoint_every": 1, "data": str(tmp_path / "tiny")}
    toml = tmp_path / "tiny.toml"
    toml.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items()))
    there, out = tmp_path / "there", tmp_path / "out"
    there.mkdir()
    done = in_namespace(
        'mount -t tmpfs -o size="$1k" x "$2"; code=0; "$5" -m sharp_maml train "$4" --directory "$2" || code=$?\n'
        'cp -r "$2" "$3"; exit $code',
        *(str(kilobytes), str(there), str(out), str(toml), sys.executable),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "No space left on device" in error
    assert str(there) in error
    config = tiny_config(checkpoint_every=1)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)
    train(config, dataset, out)
    train(config, dataset, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", out)


BUILD = """
import sys
import numpy as np
from sharp_maml import DataError, write_cache
pixels = np.zeros((8, 16, 16, 3), np.uint8)
try:
    write_cache(sys.argv[1], name="x", splits={each: {each: pixels} for each in ("train", "validation", "test")})
except DataError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"), [("size=8k", "No space left on device"), ("ro", "Read-only file system")], ids=str
)
def test_a_data_cache_on_a_disk_that_is_full_or_read_only_is_named_and_nothing_is_left(options, error, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    script = 'mount -t tmpfs -o "$1" x "$2"; "$3" -c "$4" "$2/cache"; ls -A "$2"'
    done = in_namespace(script, options, str(there), sys.executable, BUILD)
    assert done.stderr == ""
    said, *left = done.stdout.splitlines()
    assert said.startswith(f"{there / 'cache'}: cannot write the data cache ({error})")
    assert left == ([] if options == "ro" else [".cache.lock"])


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_named(tmp_path):
    tiny_dataset(tmp_path / "tiny")
    toml = tmp_path / "tiny.toml"
    toml.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items()))
    there = tmp_path / "there"
    there.mkdir()
    done = in_namespace(
        'mount -t tmpfs -o ro x "$1"; "$3" -m sharp_maml train "$2" data="$4" --directory "$1"',
        *(str(there), str(toml), sys.executable, str(tmp_path / "tiny")),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {there}: the run directory cannot be used (")
    assert "Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1
