"""The demo tier can tell methods apart: MAML ends well above chance and well below the ceiling."""

from __future__ import annotations

import pytest

from reproductions.tables.cells import run
from reproductions.tables.specification import Cell, load
from sharp_maml import read_records
from synthetic import write_images


@pytest.mark.slow
def test_maml_on_the_demo_tier_ends_between_40_and_75_percent_on_test_classes(tmp_path):
    tables, tiers = load()
    cell = Cell(tables["table1"], tables["table1"].baseline, tiers["demo"], seed=2000)
    data = write_images(tmp_path / "images", size=cell.config.image_size, per_class=cell.tier.images_a_class)
    run(cell, data, tmp_path)
    accuracy = read_records(cell.directory(tmp_path) / "record.json")[0].metrics["accuracy_transductive"]
    assert accuracy.low > 0.4
    assert accuracy.high < 0.75
