from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from sharp_maml import load_checkpoint
from sharp_maml_command import main
from tests.sharp_maml.tiny import SETTINGS, assert_same_run, tiny_dataset


@pytest.fixture
def toml(tmp_path):
    """A configuration file of the tiny problem on disk."""
    tiny_dataset(tmp_path / "tiny")
    path = tmp_path / "tiny.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**SETTINGS, "data": str(tmp_path / "tiny")}.items()]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_a_run_killed_outright_goes_on_from_its_last_checkpoint_bitwise(toml, tmp_path):
    command = [sys.executable, "-m", "sharp_maml", "train", str(toml), "iterations=200", "checkpoint_every=10",
               "validate_every=30", "--directory"]  # fmt: skip
    process = subprocess.Popen([*command, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
    while not (tmp_path / "cut/last.safetensors").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"]
    assert 0 < reached < 200
    for name in ("cut", "whole"):
        subprocess.run([*command, str(tmp_path / name)], check=True, stderr=subprocess.DEVNULL)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_command_trains_and_names_the_command_that_evaluates(toml, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(toml), "iterations=2", "seed=3"]) == 0
    assert "sharp-maml evaluate results/runs/tiny/seed3/best.safetensors" in capsys.readouterr().out
    assert (tmp_path / "results/runs/tiny/seed3/last.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["beta_lo=0.1"], "beta_low"),
        (["steps=many"], "steps"),
        (["data="], "data is not set"),
        (["data=nowhere"], "nowhere"),
        (["alpha_up=-1"], "alpha_up"),
    ],
)
def test_the_command_names_what_is_wrong_and_returns_2(toml, tmp_path, capsys, arguments, message):
    assert main(["train", str(toml), *arguments, "--directory", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
