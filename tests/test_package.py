"""What is shipped and how it is installed: the wheel, the pinned versions, the targets of make."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def distribution(place: Path, target: str) -> Path:
    """A distribution, built without the network from the build backend that is installed."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = place.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return distribution(tmp_path_factory.mktemp("wheel"), "wheel")


def test_the_source_distribution_is_the_repository_and_nothing_else(tmp_path):
    with tarfile.open(distribution(tmp_path, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert names == {name for name in files if (ROOT / name).exists()} | {"PKG-INFO"}


def test_the_wheel_holds_every_module_of_the_core_and_its_mark_for_type_checkers(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (
        path
        for package in ("sharp_maml", "sharp_maml_command")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".cpp") or path.name == "py.typed"
    )
    modules = {str(path.relative_to(ROOT)) for path in files}
    assert {"sharp_maml/py.typed", "sharp_maml/kernels.cpp"} <= modules
    assert modules <= names


def test_the_wheel_holds_nothing_but_the_core_and_what_describes_it(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"sharp_maml", "sharp_maml_command", f"sharp_maml-{PROJECT['version']}.dist-info"}


def test_the_wheel_names_no_folder_of_the_repository_that_it_does_not_hold(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist() if name.startswith("sharp_maml/")}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    folders -= {"sharp_maml", "sharp_maml_command", "results"}  # where runs go by default
    assert {"benchmarks", "docs", "records", "reproductions", "theory"} <= folders
    named = {name: re.findall(rf"\b({'|'.join(folders)})(?:/|\.(?!py\b))\w+", text) for name, text in sources.items()}
    assert {name: found for name, found in named.items() if found} == {}


def test_the_wheel_has_the_licence_the_commands_and_the_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"sharp_maml-{PROJECT['version']}.dist-info/"
        assert f"{info}licenses/LICENSE" in archive.namelist()
        metadata, commands = (archive.read(info + name).decode() for name in ("METADATA", "entry_points.txt"))
    for name, target in PROJECT["scripts"].items():
        assert f"{name} = {target}" in commands
    for requirement in PROJECT["dependencies"]:
        assert f"Requires-Dist: {requirement}" in metadata


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_place_and_runs_from_there(wheel, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sharp_maml, sharp_maml_command\n"
        "import sharp_maml.train, sharp_maml.evaluate, sharp_maml.classify\n"
        "print(sharp_maml.__file__); print(sorted(set(sharp_maml.__all__) - set(dir(sharp_maml))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, str(target)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(target / "sharp_maml/__init__.py"), "[]"]
    assert {path.name for path in target.iterdir()} == {
        "sharp_maml",
        "sharp_maml_command",
        f"sharp_maml-{PROJECT['version']}.dist-info",
        "bin",
    }


LOCKS = ("main", "dev")
PYTHONS = ("3.11.0", "3.11.5", "3.12.0", "3.13.0", "3.14.0")


@cache
def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Each entry of a lock file and its hashes."""
    text = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[A-Za-z])", text)[1:]
    return [
        (Requirement(entry.split("\\")[0]), re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)) for entry in entries
    ]


def test_who_cites_or_archives_the_package_finds_this_version():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    archived = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert f"\nversion: {PROJECT['version']}\n" in cited
    assert archived["version"] == PROJECT["version"]
    assert f'title: "{archived["title"]}"' in cited
    assert archived["license"] == PROJECT["license"]
    assert archived["keywords"] == PROJECT["keywords"]
    assert [one["name"] for one in archived["creators"]] == [one["name"] for one in PROJECT["authors"]]
    assert all(name in cited for name in (archived["creators"][0]["name"], "arXiv:2206.03996"))


@cache
def versions(name: str, python: str, machine: str = "x86_64", system: str = "linux") -> dict[str, str]:
    """What a lock file installs on a Python of a system: one version of each package."""
    short = ".".join(python.split(".")[:2])
    platform = {"linux": "Linux", "darwin": "Darwin"}[system]
    environment = {
        "python_full_version": python, "python_version": short, "sys_platform": system, "platform_machine": machine,
        "platform_system": platform, "platform_python_implementation": "CPython", "implementation_name": "cpython",
    }  # fmt: skip
    found: dict[str, str] = {}
    for requirement, _ in locked(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, (requirement, python)
            (found[requirement.name],) = (only.version for only in requirement.specifier)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_is_exact_and_has_hashes(name):
    for requirement, hashes in locked(name):
        (only,) = requirement.specifier
        assert only.operator == "=="
        assert "*" not in only.version
        assert hashes


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_table_needs_is_part_of_what_development_needs_at_the_same_versions(python):
    main, dev = (versions(name, python) for name in LOCKS)
    assert main.items() <= dev.items()
    assert len(main) < len(dev) / 2


def test_a_python_that_a_newer_release_has_left_behind_gets_an_older_one():
    """soupsieve 4 needs 3.11.5, and Debian 12 has 3.11.2."""
    old, new = (versions("dev", python)["soupsieve"] for python in ("3.11.2", "3.11.5"))
    assert int(old.split(".")[0]) < int(new.split(".")[0])


def test_libraries_of_cuda_are_for_linux_alone():
    assert [name for name in versions("main", "3.12.0", "arm64", "darwin") if name.startswith("nvidia-")] == []
    assert [name for name in versions("main", "3.12.0") if name.startswith("nvidia-")] != []


def wanted() -> list[Requirement]:
    """Everything that the project asks for: to run, to build, and for each extra."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    texts = [
        *PROJECT["dependencies"],
        *build,
        # Ray is nobody's need but its users', and large: the lock for development leaves it out.
        *(text for name, extra in PROJECT["optional-dependencies"].items() if name != "ray" for text in extra),
    ]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_locked_version_is_one_that_the_project_allows(requirement, python):
    assert requirement.specifier.contains(versions("dev", python)[canonicalize_name(requirement.name)])


def test_an_extra_made_of_other_extras_names_ones_that_exist():
    for text in (text for extra in PROJECT["optional-dependencies"].values() for text in extra):
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= PROJECT["optional-dependencies"].keys()


def described() -> dict[str, str]:
    """Targets of make with a `##` text."""
    return dict(re.findall(r"^([\w.-]+):[^\n]*?## (.*)$", MAKEFILE, re.MULTILINE))


def phony() -> set[str]:
    return {name for line in re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE) for name in line.split()}


def make(*arguments: str) -> str:
    """What make prints here, also where make runs the tests: its flags are not those of the make above."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_make_help_lists_every_target_that_has_a_text_and_is_what_make_alone_does():
    shown = make("help")
    assert shown == make()
    listed = dict(re.fullmatch(r"  make (\S+) +(.*)", line).groups() for line in shown.splitlines())
    assert listed == described()
    assert {"reproduce-table1", "test", "help", "clean"} <= listed.keys()


def test_every_target_with_a_text_is_phony_and_every_phony_target_exists():
    assert described().keys() <= phony()
    targets = set(re.findall(r"^([\w.-]+):", MAKEFILE, re.MULTILINE))
    assert phony() <= targets


def test_cleaning_leaves_the_tracked_records():
    assert make("--dry-run", "clean").split() == ["rm", "-rf", "results"]


@pytest.mark.parametrize("url", ["", "https://example.org/sharp-maml"])
def test_the_readme_of_a_package_index_leads_nowhere_that_is_not(tmp_path, monkeypatch, url):
    monkeypatch.setenv("URL", url)
    with zipfile.ZipFile(distribution(tmp_path, "wheel")) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        head, _, shown = archive.read(name).decode("utf-8").partition("\n\n")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = re.compile(r"```.*?```", re.DOTALL)
    assert fenced.findall(shown) == fenced.findall(readme)
    links, images = (set(re.findall(rf"{mark}\[[^]]*\]\(([^)]*)\)", shown)) for mark in ("(?<!!)", "!"))
    own = {link for link in re.findall(r"\[[^]]*\]\(([^)]*)\)", readme) if not link.startswith(("https:", "#"))}
    assert all(link.startswith(("https:", "#")) for link in links | images)
    assert ("Project-URL: Source, " + url in head) == bool(url)
    inside = {link.partition("/main/")[2] for link in links | images if url and link.startswith(url)}
    assert inside == (own if url else set())
    assert [image for image in images if "/raw/main/docs/figures/" not in image] == []
    assert all((ROOT / path.partition("#")[0]).exists() for path in inside)
    assert re.sub(r"[^\w\s]", "", re.sub(r"\]\([^)]*\)", "", shown)) == re.sub(
        r"[^\w\s]", "", re.sub(r"\]\([^)]*\)", "", readme)
    )
