"""What is shipped and how it is installed: the wheel, the pinned versions, the targets of make."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without the network from the build backend that is installed."""
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = place.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_of_the_core_and_its_mark_for_type_checkers(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (ROOT / "sharp_maml").rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    modules = {str(path.relative_to(ROOT)) for path in files}
    assert "sharp_maml/py.typed" in modules
    assert modules <= names


def test_the_wheel_holds_nothing_but_the_core_and_what_describes_it(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"sharp_maml", f"sharp_maml-{PROJECT['version']}.dist-info"}


def test_the_wheel_names_no_folder_of_the_repository_that_it_does_not_hold(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist() if name.startswith("sharp_maml/")}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    folders -= {"sharp_maml", "results"}  # where runs go by default
    assert {"docs", "reproductions", "theory"} <= folders
    named = {name: re.findall(rf"\b({'|'.join(folders)})[/.]\w+", text) for name, text in sources.items()}
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
        "import sys; sys.path.insert(0, sys.argv[1]); import sharp_maml, sharp_maml.train, sharp_maml.evaluate\n"
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
        f"sharp_maml-{PROJECT['version']}.dist-info",
        "bin",
    }


def locked() -> dict[str, Requirement]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert len({canonicalize_name(each.name) for each in requirements}) == len(lines)
    return {canonicalize_name(each.name): each for each in requirements}


def test_every_locked_version_is_exact():
    for requirement in locked().values():
        (only,) = requirement.specifier
        assert only.operator == "=="
        assert "*" not in only.version


def wanted() -> list[Requirement]:
    """Everything that the project asks for: to run, to build, and for each extra."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    texts = [
        *PROJECT["dependencies"],
        *build,
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_locked_version_is_one_that_the_project_allows(requirement):
    (version,) = locked()[canonicalize_name(requirement.name)].specifier
    assert requirement.specifier.contains(version.version)


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
