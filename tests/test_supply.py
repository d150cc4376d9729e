"""What is installed is locked, says its licence, and needs no network; `SECURITY.md` says all that is started."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import socket
import subprocess
import sys
import zipfile
from email.message import Message
from hashlib import sha256
from pathlib import Path

import pytest

from sharp_maml.data import formats

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PACKAGES = (
    "sharp_maml", "sharp_maml_command", "synthetic", "theory", "reproductions", "benchmarks", "publish", "notebooks",
)  # fmt: skip
STARTING = {"subprocess", "multiprocessing", "ctypes", "submitit", "pty"}
TALKING = {"http", "urllib", "requests", "ssl", "ftplib", "smtplib", "socketserver", "asyncio", "webbrowser"}


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"requirements/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_wheel(folder: Path) -> str:
    """Write a wheel of one line; returns its hash."""
    folder.mkdir()
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing.py", "is_here = True\n")
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "thing.py,,\n")
    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("is_right", [True, False])
def test_a_file_that_has_not_the_hash_of_the_lock_is_not_installed(is_right, tmp_path, monkeypatch):
    """By the installer as it is, but for the last step, the package itself."""
    installer, found = script("install"), a_wheel(tmp_path / "wheels")
    monkeypatch.setattr(installer, "HERE", tmp_path)
    monkeypatch.setattr(installer, "VENV", tmp_path / ".venv")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    locked = found if is_right else "0" * 64
    (tmp_path / "main.lock").write_text(f"thing==1.0 \\\n    --hash=sha256:{locked}\n")
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(tmp_path / "wheels"),
        "TARGET": str(tmp_path / "there"),
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    of_pip = installer.pip
    monkeypatch.setattr(installer, "pip", lambda log, *given: None if "--editable" in given else of_pip(log, *given))
    if is_right:
        installer.install("main", "cuda")
    else:
        with pytest.raises(installer.InstallError, match="a downloaded file is not the one in the lock"):
            installer.install("main", "cuda")
    assert (tmp_path / "there/thing.py").exists() == is_right


@pytest.mark.parametrize(
    ("fields", "stated"),
    [
        ([("License-Expression", "MIT"), ("Classifier", "License :: OSI Approved :: BSD License")], "MIT"),
        ([("License", "see below"), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        ([("License", "BSD 3-Clause\n\nCopyright"), ("Classifier", "License :: OSI Approved")], "BSD 3-Clause"),
        ([("Classifier", "Topic :: Games")], ""),
    ],
)
def test_a_licence_is_what_the_metadata_say(fields, stated):
    found = Message()
    for key, value in fields:
        found[key] = value
    assert script("licences").licence(found) == stated


def test_every_installed_package_says_its_licence_and_one_that_does_not_is_an_error(monkeypatch, tmp_path, capsys):
    licences = script("licences")
    assert licences.main() == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("torch ")] != []
    monkeypatch.setattr(licences, "LOCK", tmp_path / "dev.lock")
    (tmp_path / "dev.lock").write_text("thing==1.0 \\\nnowhere==2 \\\n")
    a_wheel(tmp_path / "wheels")
    with zipfile.ZipFile(tmp_path / "wheels/thing-1.0-py3-none-any.whl") as archive:
        archive.extractall(tmp_path / "there")
    monkeypatch.syspath_prepend(tmp_path / "there")
    assert licences.main() == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["thing 1.0: says nothing", "1 packages; 1 more in the lock are not installed here"]
    assert said.err == "error: no licence is stated by thing\n"


def imported() -> dict[str, set[str]]:
    """The top packages that each file of the repository's packages imports, anywhere in it."""
    found: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        names = found.setdefault(path.relative_to(ROOT).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return found


def test_every_module_that_can_start_something_stands_in_the_security_page():
    (started,) = (part for part in SECURITY.split("\n## ") if part.startswith("What is started"))
    starting = {path for path, names in imported().items() if names & STARTING}
    assert "sharp_maml/kernels.py" in starting
    assert {path for path in starting if f"`{path}`" not in started} == set()


def test_no_module_talks_to_a_network_and_one_asks_for_a_free_port():
    found = imported()
    assert {path: names & TALKING for path, names in found.items() if names & TALKING} == {}
    assert [path for path, names in found.items() if "socket" in names] == ["sharp_maml/distributed.py"]


def test_one_module_knows_pickle_and_nothing_loads_one_by_torch_or_numpy():
    assert [path for path, names in imported().items() if "pickle" in names] == ["sharp_maml/data/pickles.py"]
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text
        assert set(re.findall(r"allow_pickle\s*=\s*([^,)\s]+)", text)) <= {"False"}


def test_the_security_page_has_the_limits_of_the_readers():
    assert f"{formats.PIXELS:,} pixels" in SECURITY
    assert f"{formats.MEMBER_BYTES >> 20} MiB" in SECURITY
    assert len(formats.CODECS) == 7


@pytest.mark.slow
def test_the_table_is_made_where_there_is_no_network(tmp_path):
    alone = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if allowed.returncode:
        pytest.skip(f"this machine gives no network namespace: {allowed.stderr.strip()}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        call = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        outside, inside = (
            subprocess.run([*where, sys.executable, "-c", call], capture_output=True, check=False).returncode
            for where in ([], alone)
        )
    assert (outside, inside) == (0, 1)
    command = [sys.executable, "-m", "reproductions.tables", "--tier", "smoke", "--rows", "maml", "--allow-dirty"]
    done = subprocess.run(
        [*alone, *command, "--jobs", "1", "--results", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "smoke/maml/seed0/record.json").exists()
    assert (tmp_path / "smoke/table1.md").exists()
