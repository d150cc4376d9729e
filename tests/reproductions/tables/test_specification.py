from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reproductions.tables.specification import Cell, cells_of, load
from sharp_maml import Config

TABLES, TIERS = load()
TEXT = """
[tables.t]
title = "T"
baseline = "a"
rows = ["a", "b"]
[rows.a]
label = "A"
source = 1.5
[rows.b]
label = "B"
like = "a"
settings = { steps = 2 }
[tiers.x]
label = "X"
data = "synthetic"
tables = ["t"]
seeds = 2
episodes = 3
settings = { ways = 3, seed = 9 }
[tiers.x.rows]
a = { alpha_low = 0.25 }
"""


def written(place: Path, text: str) -> Path:
    path = place / "table.toml"
    path.write_text(text)
    return path


RUN = [(table, name) for name, tier in TIERS.items() for table in tier.tables]


def cells(table: str, tier: str) -> list[Cell]:
    return cells_of(TABLES[table], TIERS[tier])


def test_the_values_of_the_source_are_those_that_it_prints():
    table = TABLES["table1"]
    assert {row.name: row.source for row in table.rows} == {
        "matching-fce": 43.56, "maml": 47.13, "low": 48.87, "up": 49.03, "both": 49.60,
    }  # fmt: skip
    assert [row.name for row in table.rows if row.quoted] == ["matching-fce"]
    assert table.baseline.name == "maml"


def test_only_the_rows_of_the_sources_table_have_a_value_of_the_source():
    rows = {row.name: row.source for table in TABLES.values() for row in table.rows if row.source is not None}
    assert {row.name: row.source for row in TABLES["table1"].rows} == {
        name: source for name, source in rows.items() if not name.endswith("-chosen")
    }
    assert all(source == rows[name.removesuffix("-chosen")] for name, source in rows.items())
    assert all(row.source is None for row in TABLES["omniglot"].rows)


@pytest.mark.parametrize(("table", "tier"), RUN)
def test_every_cell_of_every_table_has_a_valid_configuration_of_its_own(table, tier):
    configs = [cell.config for cell in cells(table, tier)]
    assert len({config.digest for config in configs}) == len(configs)


@pytest.mark.parametrize("tier", [tier for table, tier in RUN if table == "table1"])
def test_the_rows_of_the_sources_table_train_what_they_are_called(tier):
    variants = {cell.row.name: cell.config.variant for cell in cells("table1", tier)}
    assert variants == {name: name for name in ("matching-fce", "maml", "low", "up", "both")}


@pytest.mark.parametrize(("table", "tier"), RUN)
def test_a_row_differs_from_its_baseline_in_its_radii_and_its_own_settings_only(table, tier):
    baseline = Cell(TABLES[table], TABLES[table].baseline, TIERS[tier], 0).config.to_dict()
    for cell in cells(table, tier):
        config = {**cell.config.to_dict(), "seed": 0}
        if config["method"] == "sharp-maml":
            changed = {name for name, value in config.items() if value != baseline[name]}
            assert changed <= {"alpha_low", "alpha_up", *cell.row.settings}, cell.row.name


@pytest.mark.parametrize("tier", [tier for table, tier in RUN if table == "ablation"])
def test_each_departure_of_the_released_code_is_tried_with_both_radii(tier):
    departures = [cell for cell in cells("ablation", tier) if cell.config.method == "sharp-maml"]
    assert {cell.config.variant for cell in departures} == {"both"}
    assert len({(cell.config.alpha_low, cell.config.alpha_up) for cell in departures}) == 1


@pytest.mark.parametrize("tier", TIERS)
def test_cells_that_share_a_directory_are_one_experiment_judged_on_one_split(tier):
    found = {}
    for cell in (cell for table in TIERS[tier].tables for cell in cells(table, tier)):
        is_this = (cell.config.digest, cell.table.split)
        assert found.setdefault(cell.directory(Path("results")), is_this) == is_this


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_chosen_on_the_validation_classes_shares_no_seed_with_what_is_reported(tier):
    chosen = {
        cell.seed for table in TIERS[tier].tables for cell in cells(table, tier) if cell.table.split == "validation"
    }
    reported = {cell.seed for table in TIERS[tier].tables for cell in cells(table, tier) if cell.table.split == "test"}
    assert reported
    assert not chosen & reported


def test_the_paper_tier_has_the_settings_of_the_released_code():
    expected = {
        "image_size": 84, "ways": 5, "shots": 1, "queries": 15, "filters": 64, "beta_low": 0.1, "steps": 5,
        "optimizer": "adam", "beta_up": 1e-3, "meta_batch": 4, "iterations": 60_000, "batch_norm": "transductive",
    }  # fmt: skip
    radii = {"maml": (0, 0), "low": (5e-4, 0), "up": (0, 5e-4), "both": (5e-4, 5e-4)}
    found = {cell.row.name: cell.config for cell in cells("table1", "paper") if cell.row.name in radii}
    for name, config in found.items():
        assert {key: getattr(config, key) for key in expected} == expected
        assert (config.alpha_low, config.alpha_up) == radii[name]
    assert TIERS["paper"].data == "miniimagenet"


def test_images_made_on_the_spot_are_said_not_to_be_miniimagenet():
    assert {name for name, tier in TIERS.items() if tier.data == "synthetic"} == {"demo", "smoke"}
    assert "NOT miniImageNet" in TIERS["demo"].label


def test_later_settings_win_tier_then_row_that_it_is_like_then_row_then_row_in_the_tier(tmp_path):
    tables, tiers = load(written(tmp_path, TEXT + "b = { shots = 4 }"))
    a, b = (Cell(tables["t"], row, tiers["x"], 3).config for row in tables["t"].rows)
    assert a == Config(ways=3, alpha_low=0.25, seed=3)
    assert b == Config(ways=3, alpha_low=0.25, steps=2, shots=4, seed=3)
    other = TEXT.replace("steps = 2", "alpha_low = 0.5") + "b = { alpha_low = 0.75 }"
    tables, tiers = load(written(tmp_path, other))
    assert Cell(tables["t"], tables["t"].rows[1], tiers["x"], 3).config.alpha_low == 0.75


def test_a_method_that_does_not_adapt_is_spared_the_tiers_settings_of_adaptation(tmp_path):
    text = TEXT.replace("ways = 3,", "ways = 3, beta_low = 0.4,").replace("steps = 2", 'method = "matching"')
    tables, tiers = load(written(tmp_path, text.replace('like = "a"', "")))
    assert Cell(tables["t"], tables["t"].rows[1], tiers["x"], 0).config == Config(ways=3, method="matching")


@pytest.mark.parametrize(("table", "tier"), RUN)
def test_the_words_of_a_cell_name_it(table, tier):
    for cell in cells(table, tier):
        again = Cell.from_words(*cell.words)
        assert again == cell
        assert again.config == cell.config


def test_the_device_of_a_cell_is_that_of_its_configuration():
    cell = Cell(TABLES["table1"], TABLES["table1"].baseline, TIERS["smoke"], 0, "cuda:1")
    assert cell.config.device == Cell.from_words(*cell.words).config.device == "cuda:1"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('title = "T"', 'title = "T"\ntittle = "U"', "tittle"),
        ('title = "T"', "", "title"),
        ('baseline = "a"', 'baseline = "c"', "form: 'c'"),
        ('baseline = "a"', "", "baseline"),
        ('rows = ["a", "b"]', 'rows = ["a", "z"]', "form: 'z'"),
        ('label = "A"', "", "label"),
        ("source = 1.5", "sauce = 1.5", "sauce"),
        ('like = "a"', 'like = "aa"', "aa"),
        ("episodes = 3", "", "episodes"),
        ("episodes = 3", "episodes = 3\nepochs = 3", "epochs"),
        ("a = { alpha_low = 0.25 }", "alow = { alpha_low = 0.25 }", "alow"),
        ("[tables.t]", "[extra]\n[tables.t]", "extra"),
        ("[tables.t]", "x = 1\n[tables.t]", "entries x$"),
        ("[rows.a]", "[rows]\nc = 3\n[rows.a]", "mapping"),
        ("seeds = 2", "seeds = ", "line"),
        (TEXT, "", "form: 'rows'"),
        (TEXT, "rows = 3\ntables = 1\ntiers = 2", "items"),
    ],
)
def test_an_entry_that_is_missing_unknown_or_of_another_form_is_named_with_the_file(tmp_path, old, new, named):
    assert old in TEXT
    path = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(ValueError, match=named) as error:
        load(path)
    assert str(path) in str(error.value)


def test_cells_go_seed_by_seed_and_rows_may_have_fewer_or_more_seeds(tmp_path):
    tables, tiers = load(written(tmp_path, TEXT))
    names = lambda **own: [  # noqa: E731
        (cell.row.name, cell.seed) for cell in cells_of(replace(tables["t"], **own), tiers["x"])
    ]
    assert names() == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert names(seeds=1, first_seed=7) == [("a", 7), ("b", 7)]
    assert names(seeds_of={"b": 3}) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2)]
    assert len(cells_of(replace(tables["t"], seeds_of={"b": 3}), tiers["x"], seeds=4)) == 8


def test_the_settings_of_a_table_win_over_those_of_the_tier_and_lose_to_a_rows(tmp_path):
    tables, tiers = load(written(tmp_path, TEXT))
    table = replace(tables["t"], settings={"ways": 4, "steps": 7})
    a, b = (Cell(table, row, tiers["x"], 3).config for row in table.rows)
    assert (a.ways, a.steps, b.steps) == (4, 7, 2)
