"""What takes minutes on real data: kills of a cell of the table, and the paper tier's first iterations on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reproductions.tables.specification import Cell, load
from sharp_maml import Config, load_checkpoint
from tests.sharp_maml.tiny import assert_same_run

pytestmark = [pytest.mark.long, pytest.mark.data]
TABLES, TIERS = load()


def trainer(place: Path, config: Config, data: Path) -> list[str]:
    """The command that trains a configuration; the rest is the run directory."""
    path = place / "run.toml"
    settings = {**config.to_dict(), "data": str(data.resolve())}
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items()))
    return [sys.executable, "-m", "sharp_maml", "train", str(path), "--directory"]


def cell(row: str, tier: str) -> Cell:
    table = TABLES[TIERS[tier].tables[0]]
    return Cell(table, next(each for each in table.rows if each.name == row), TIERS[tier], 0)


def test_a_cell_killed_twice_equals_the_uninterrupted_one_bit_for_bit(data_path, tmp_path):
    """Sharp-MAML both of the cpu tier, 300 iterations, killed with -9 a little after iterations 100 and 200."""
    config = replace(cell("both", "cpu").config, iterations=300, validate_every=150, validation_episodes=20)
    command = trainer(tmp_path, config, data_path("miniimagenet"))
    cut = tmp_path / "cut"
    for least in (100, 200):
        process = subprocess.Popen([*command, str(cut)], stderr=subprocess.DEVNULL)
        while not (cut / "last.safetensors").exists() or reached(cut) < least:
            time.sleep(0.05)
            assert process.poll() is None
        time.sleep(3)  # a few iterations further, which are lost
        process.kill()
        process.wait()
        assert least <= reached(cut) < 300
    for name in ("cut", "whole"):
        subprocess.run([*command, str(tmp_path / name)], check=True, stderr=subprocess.DEVNULL)
    assert load_checkpoint(cut / "last.safetensors").metadata["progress"]["interruptions"] == 2
    assert_same_run(tmp_path / "whole", cut)


def reached(directory: Path) -> int:
    """The step of the last checkpoint."""
    return int(load_checkpoint(directory / "last.safetensors").metadata["progress"]["step"])


@pytest.mark.parametrize("row", ["maml", "both"])
def test_the_loss_of_the_paper_tier_falls_in_its_first_300_iterations_on_a_cpu(data_path, tmp_path, row):
    """It falls beyond chance, which a run that learns nothing passes once in a hundred times.

    Not below that of guessing, ln 5: five inner steps of 0.1 on a head that sees 1,600 features overshoot, so that it
    begins far above, and 300 iterations of MAML were too few.
    """
    config = replace(cell(row, "paper").config, iterations=300, validate_every=300, validation_episodes=50)
    command = trainer(tmp_path, config, data_path("miniimagenet"))
    subprocess.run([*command, str(tmp_path / "run")], check=True, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 300
    assert np.isfinite(losses).all()
    assert stats.ttest_ind(losses[:30], losses[-30:], equal_var=False, alternative="greater").pvalue < 0.01
