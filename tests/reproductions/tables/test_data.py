"""The data of a tier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproductions.tables.check import TableError
from reproductions.tables.data import prepare_data
from sharp_maml import open_dataset
from tests.reproductions.tables.records_for_tests import REAL, TIER


def test_a_tier_of_real_data_needs_them_and_says_how_to_name_them(tmp_path):
    real = replace(REAL, name="cpu")
    with pytest.raises(TableError, match=r"tier cpu needs miniimagenet: .*--data DIR"):
        prepare_data(real, None, tmp_path)
    assert prepare_data(real, tmp_path / "given", tmp_path) == tmp_path / "given"


def test_a_tier_that_makes_its_images_refuses_others(tmp_path):
    with pytest.raises(TableError, match="makes its own images; leave --data out"):
        prepare_data(TIER, tmp_path, tmp_path)


def test_images_are_made_once_in_the_size_and_number_of_the_tier(tmp_path):
    for number in (1, 2):
        tier = replace(TIER, images_a_class=number)
        directory = prepare_data(tier, None, tmp_path)
        made = open_dataset(directory, size=16)
        assert len(made.splits) == 3
        assert all(set(pool.counts) == {number} for pool in made.splits.values())
        assert made.splits["train"].images.shape[1:] == (16, 16, 3)
        before = [path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))]
        assert prepare_data(tier, None, tmp_path) == directory
        assert [path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))] == before
