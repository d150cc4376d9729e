"""The examples run as their reader runs them, learn in a few steps, and say what they can be told."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[float]]:
    """What an example prints, and the numbers with two decimals in it."""
    runpy.run_path(str(EXAMPLES / name))["main"](arguments)
    said = capsys.readouterr().out
    return said, [float(number) for number in re.findall(r"\d\.\d\d\b", said)]


@pytest.mark.slow
def test_sinusoids_are_adapted_to_better_after_training_and_drawn(tmp_path, capsys):
    path = tmp_path / "new" / "figure.png"
    said, errors = run("sinusoid.py", ["--steps", "40", "--output", str(path)], capsys)
    random, trained = errors[:3], errors[3:]
    assert trained[1] < min(random)
    assert trained[1] < trained[0]
    assert str(path) in said
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_authors_are_told_better_after_training(capsys):
    _, (before, after) = run("authors.py", ["--steps", "20"], capsys)
    assert after > before + 0.05


@pytest.mark.parametrize("name", ["sinusoid.py", "authors.py"])
def test_without_steps_nothing_is_learnt_and_help_names_the_options(name, tmp_path, capsys):
    output = ["--output", str(tmp_path / "figure.png")] if name == "sinusoid.py" else []
    _, numbers = run(name, ["--steps", "0", *output], capsys)
    half = len(numbers) // 2
    assert numbers[:half] == numbers[half:]
    with pytest.raises(SystemExit) as left:
        run(name, ["--help"], capsys)
    assert left.value.code == 0
    assert {"--steps", "--radii"} <= set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
