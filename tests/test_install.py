"""The installer: what it refuses, in one line, and what it hands to pip. `.ci/newcomer` runs it for real."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "requirements/install.py"


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """The script as a module that would make its environment in a folder of the test."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.delenv("TORCH", raising=False)
    return module


@pytest.mark.parametrize("version", [(3, 10, 13), (2, 7, 18), (3, 15, 0)])
def test_a_python_without_a_lock_is_refused(installer, version):
    with pytest.raises(installer.InstallError, match=rf"Python 3.11 to 3.14 is needed, this is {version[0]}.*PYTHON="):
        installer.check_python(version, True)


def test_a_python_without_venv_is_told_what_to_install(installer):
    with pytest.raises(installer.InstallError, match="apt-get install python3-venv"):
        installer.check_python((3, 11, 2), False)
    installer.check_python((3, 11, 0), True)
    installer.check_python((3, 14, 3), True)


@pytest.mark.parametrize(
    ("setting", "platform", "has_driver", "builds"),
    [
        ("", "linux", False, ["cpu", "cuda"]),
        ("", "linux", True, ["cuda"]),
        ("", "darwin", False, ["cuda"]),
        ("cpu", "linux", True, ["cpu"]),
        ("cuda", "linux", False, ["cuda"]),
    ],
)
def test_the_build_of_torch_follows_the_driver_unless_it_is_named(
    installer, tmp_path, setting, platform, has_driver, builds
):
    driver = tmp_path if has_driver else tmp_path / "none"
    assert installer.wanted_torch(setting, platform, driver) == builds


def test_a_build_that_is_neither_is_refused(installer, monkeypatch, capsys):
    monkeypatch.setenv("TORCH", "gpu")
    monkeypatch.setattr(sys, "argv", ["install.py", "main"])
    assert installer.main() == 2
    assert capsys.readouterr().err == "error: TORCH must be cpu or cuda, got 'gpu'\n"


@pytest.mark.parametrize("name", ["main", "dev"])
def test_a_lock_without_cuda_lacks_torch_and_the_libraries_and_nothing_else(installer, name):
    def names(text):
        return [line.split("==")[0] for line in text.splitlines() if line[:1].isalpha()]

    whole = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")
    left = installer.without_cuda(whole)
    gone = set(names(whole)) - set(names(left))
    assert {"torch", "triton", "nvidia-cublas", "cuda-toolkit"} <= gone
    assert all(each in ("torch", "triton") or each.startswith(("nvidia-", "cuda-")) for each in gone)
    assert left.count("--hash") < whole.count("--hash")
    assert [line for line in left.splitlines() if line not in whole.splitlines()] == []


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying ... Failed to establish a new connection\nERROR: No matching distribution",
            "no package index",
        ),
        (
            "ERROR: Could not find a version that satisfies torch (from versions: none)",
            "no package index can be reached",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "a downloaded file is not the one",
        ),
        ("PermissionError: [Errno 13] Permission denied: '.venv'", "it cannot be written"),
        (
            "Collecting x\nERROR: first\nERROR: No matching distribution found for x==1",
            "No matching distribution found",
        ),
        ("", "pip failed"),
    ],
)
def test_pages_of_pip_become_one_line(installer, output, line):
    found = installer.explanation(output)
    assert line in found
    assert "\n" not in found


def test_where_the_cpu_build_is_not_to_be_had_the_locked_one_is_taken_and_said(
    installer, monkeypatch, tmp_path, capsys
):
    calls = []

    def pip(log, *arguments):
        calls.append(arguments)
        if any("+cpu" in argument for argument in arguments):
            raise installer.InstallError("no package index can be reached")

    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    monkeypatch.setattr(installer, "pip", pip)
    monkeypatch.setattr(installer, "wanted_torch", lambda setting: ["cpu", "cuda"])
    monkeypatch.setattr(sys, "argv", ["install.py", "main"])
    assert installer.main() == 0
    assert "torch's CPU build is not to be had: no package index can be reached" in capsys.readouterr().out
    assert [str(ROOT / "requirements/main.lock") in arguments for arguments in calls] == [False, True, False]
    monkeypatch.setattr(installer, "wanted_torch", lambda setting: ["cpu"])
    assert installer.main() == 2
    assert capsys.readouterr().err == "error: no package index can be reached\n"


def make(tmp_path, *arguments, **variables):
    """What `make` says in a copy of what installing needs."""
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements/install.py", "requirements/main.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    command = ["make", "--no-print-directory", ".venv/main", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def test_make_names_a_python_that_is_not_there(tmp_path):
    done = make(tmp_path, "PYTHON=/no/python3")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "error: /no/python3 is not found: make PYTHON=/path/to/python3 ..."
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_without_a_network_there_is_one_line_and_no_mark_that_it_is_installed(tmp_path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = make(tmp_path, "TORCH=cuda", **nowhere)
    assert done.returncode != 0
    error, of_make = done.stderr.splitlines()
    assert error.startswith("error: no package index can be reached: is there a network, or a proxy")
    assert of_make.startswith("make: ***")
    assert not (tmp_path / ".venv/main").exists()
