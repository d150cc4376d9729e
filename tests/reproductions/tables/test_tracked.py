"""The records that the repository tracks: they belong together, and what was chosen on them is what the tier uses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reproductions.tables.check import check, check_settings
from reproductions.tables.lines import accuracies
from reproductions.tables.records import TRACKED, tracked_records
from reproductions.tables.specification import cells_of, load
from sharp_maml import Config, load_checkpoint, open_dataset, read_records
from sharp_maml.evaluate import evaluate

TABLES, TIERS = load()


@pytest.mark.parametrize(("table", "tier"), [(table, name) for name, tier in TIERS.items() for table in tier.tables])
def test_tracked_records_belong_in_one_table_and_are_of_todays_settings(table, tier):
    records = tracked_records(TABLES[table], TIERS[tier])
    check(records, TABLES[table].rows)
    check_settings(records, TABLES[table], TIERS[tier])
    assert all(record.provenance["commit"] and record.provenance["dirty"] is False for record in records)


def test_a_setting_that_is_added_with_a_default_leaves_every_tracked_record_valid():
    @dataclass(frozen=True)
    class Later(Config):
        added: bool = False

    records = read_records([TRACKED / tier for tier in TIERS if (TRACKED / tier).exists()])
    assert len(records) > 40
    for record in records:
        assert Later(**record.config).digest == record.config_digest, record.name


def grid_of(table, tier, variant, radii):
    """Accuracy of every radius of a variant on a tracked grid."""
    mean = {
        record.config[f"alpha_{variant}"]: accuracies(record, "transductive").mean()
        for record in tracked_records(TABLES[table], TIERS[tier])
        if record.name.startswith(variant)
    }
    assert len(mean) == radii
    return mean


@pytest.mark.parametrize("variant", ["low", "up"])
def test_the_demo_radii_are_the_best_of_the_tracked_grid_and_both_takes_the_two(variant):
    mean = grid_of("radii", "demo", variant, 4)
    chosen = TIERS["demo"].rows[variant][f"alpha_{variant}"]
    assert chosen == max(mean, key=mean.__getitem__)
    assert TIERS["demo"].rows["both"][f"alpha_{variant}"] == chosen


@pytest.mark.parametrize("variant", ["low", "up"])
def test_the_radii_on_miniimagenet_are_the_best_of_the_tracked_grid_other_than_the_released_one(variant):
    mean = grid_of("miniimagenet-radii", "cpu", variant, 5)
    chosen = TIERS["cpu"].rows[f"{variant}-chosen"][f"alpha_{variant}"]
    assert chosen == max(mean.keys() - {TIERS["cpu"].rows[variant][f"alpha_{variant}"]}, key=mean.__getitem__)
    assert TIERS["cpu"].rows["both-chosen"][f"alpha_{variant}"] == chosen


@pytest.mark.parametrize(
    ("grid", "table", "tier"), [("radii", "table1", "demo"), ("miniimagenet-radii", "miniimagenet", "cpu")]
)
def test_the_grid_shares_no_seed_with_the_table_that_reports(grid, table, tier):
    chosen_on = {record.seed for record in tracked_records(TABLES[grid], TIERS[tier])}
    reported = {record.seed for record in tracked_records(TABLES[table], TIERS[tier])}
    planned = {cell.seed for cell in cells_of(TABLES[table], TIERS[tier], seeds=10)}  # the most that the plan allows
    assert chosen_on
    assert reported
    assert not chosen_on & (reported | planned)


NETWORKS = [
    (tier, path)
    for tier in TIERS.values()
    if tier.data != "synthetic"
    for path in sorted((TRACKED / tier.name).glob("*.safetensors"))
]


@pytest.mark.parametrize("tier", ["cpu", "cpu-42"])
def test_every_row_of_miniimagenets_tables_has_a_tracked_network(tier):
    found = {path.stem for each, path in NETWORKS if each.name == tier}
    assert found == {row.name for row in TABLES[TIERS[tier].tables[0]].rows} - {"matching-fce"}  # 236 kB


@pytest.mark.parametrize(("tier", "path"), NETWORKS)
def test_a_tracked_network_is_small_and_of_a_tracked_record(tier, path):
    assert path.stat().st_size < 200_000
    digests = {record.config_digest for record in read_records(sorted((TRACKED / tier.name).glob("*.json")))}
    assert load_checkpoint(path).metadata["config_digest"] in digests


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("tier", "path"), NETWORKS)
def test_a_tracked_network_has_the_accuracies_of_its_record(data_path, tier, path):
    checkpoint = load_checkpoint(path)
    digest, size = checkpoint.metadata["config_digest"], checkpoint.metadata["config"]["image_size"]
    records = read_records(sorted((TRACKED / tier.name).glob(f"{path.stem}-seed*.json")))
    (record,) = (each for each in records if each.config_digest == digest)
    dataset = open_dataset(data_path(tier.data.removesuffix("-small")), size=size)
    found = evaluate(checkpoint, dataset, name=path.stem, episodes=20, modes=["transductive"])
    ours, theirs = found.accuracies["transductive"], record.accuracies["transductive"][:20]
    # rounding decides a question or two, on another machine or with other kernels
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 3
    assert ours == pytest.approx(theirs, abs=0.05)
