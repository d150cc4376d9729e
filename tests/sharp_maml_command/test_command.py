"""What all commands share: help, version, errors in a line, completion, and a start without torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sharp_maml_command import app, main

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "adapt", "data", "table", "claims", "claims list", "claims show", "claims run")


def test_the_commands_are_these():
    group = get_command(app)
    below = {f"claims {name}" for name in group.commands["claims"].commands}
    assert set(COMMANDS) == set(group.commands) | below


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_a_sentence_and_ends_with_an_example(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    usage, sentence, *rest = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"Usage: sharp-maml {command} ")
    assert re.match(r"\s*[A-Z][^.]*\.", sentence)
    assert re.search(rf"Examples?:\n\s+sharp-maml {command}", rest[-1])


def test_without_arguments_the_help_is_shown(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone
    assert all(command.split()[0] in alone for command in COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{project['version']}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tain"], "No such command 'tain'"),
        (["train"], "Missing argument 'CONFIG.toml'; see `sharp-maml train --help`"),
        (["train", "x.toml", "--processes", "0"], "--processes must be >= 1, got 0"),
        (["train", "x.toml", "--processes", "two"], "'--processes'"),
        (["train", "--dictionary", "x"], "No such option: --dictionary"),
        (["train", "nowhere.toml"], "nowhere.toml"),
        (["claims", "show"], "Missing argument 'NAME'; see `sharp-maml claims show --help`"),
        (["data", "nowhere"], "nowhere: expected a directory with images, found nothing; check the path"),
    ],
)
def test_an_error_is_one_line_and_the_exit_code_is_2(arguments, said, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_help_completion_and_version_do_not_wait_for_torch():
    code = (
        "import sys; from sharp_maml_command import main\n"
        "for words in (['--help'], ['train', '--help'], ['claims', '--help'], ['--version'], ['train', '--no']):\n"
        "    main(words)\n"
        "print(sorted({'torch', 'numpy', 'sharp_maml', 'theory'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sharp-maml ad", {"adapt"}),
        ("sharp-maml evaluate --spl", {"--split"}),
        ("sharp-maml evaluate --split t", {"test", "train"}),
        ("sharp-maml claims ", {"list", "show", "run"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(typed, offered):
    words = {"_SHARP_MAML_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = CliRunner().invoke(app, prog_name="sharp-maml", env=words)
    assert set(done.stdout.split()) == offered


def test_the_module_of_the_package_is_the_command(tmp_path):
    """A real process: an error is its line and its exit code."""
    command = [sys.executable, "-W", "error", "-m", "sharp_maml", "evaluate", "none.safetensors", "DIR"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: none\.safetensors: expected a whole checkpoint[^\n]*\n", done.stderr)
