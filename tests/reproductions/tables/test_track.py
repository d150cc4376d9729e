"""Finished runs are brought into the repository, and only those that can be made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproductions.tables import track
from reproductions.tables.cells import run
from reproductions.tables.specification import Cell, load
from sharp_maml import load_checkpoint, open_dataset, read_records, write_record
from sharp_maml.evaluate import evaluate
from synthetic import write_images

TABLES, TIERS = load()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two seeds of a cell of the smoke tier, trained."""
    place = tmp_path_factory.mktemp("results")
    tier = TIERS["smoke"]
    data = write_images(place / "images", size=tier.settings["image_size"], per_class=tier.images_a_class)
    for seed in (0, 1):
        run(Cell(TABLES["table1"], TABLES["table1"].baseline, tier, seed), data, place)
        path = place / f"smoke/maml/seed{seed}/record.json"
        (record,) = read_records(path)
        write_record(path, replace(record, provenance={**record.provenance, "dirty": False}))
    return place


@pytest.fixture
def tracked(tmp_path):
    return tmp_path / "tracked/smoke"


def command(results, tracked, *options):
    return track.main(["--tier", "smoke", "--results", str(results), *options], tracked.parent)


def test_records_are_copied_and_the_best_network_of_a_row_without_its_optimizer(results, tracked, capsys):
    for _ in range(2):  # the second time it leaves nothing else behind
        assert command(results, tracked, "--networks") == 0
    assert sorted(path.name for path in tracked.iterdir()) == ["maml-seed0.json", "maml-seed1.json", "maml.safetensors"]
    best = [max(point["validation_accuracy"] for point in record.learning_curve) for record in read_records(tracked)]
    seed = best.index(max(best))
    assert f"maml.safetensors: seed {seed}," in capsys.readouterr().out
    network, whole = (
        load_checkpoint(path)
        for path in (tracked / "maml.safetensors", results / f"smoke/maml/seed{seed}/best.safetensors")
    )
    assert all(name.startswith("params/") for name in network.tensors)
    assert network.metadata["config"] == whole.metadata["config"]
    data = open_dataset(results / "images", size=16)
    again = evaluate(network, data, name="maml", episodes=20)
    assert again.accuracies == read_records(tracked / f"maml-seed{seed}.json")[0].accuracies


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "no table of tier smoke has a row other on test classes"),
        ({"config_digest": "0" * 64}, "made with other settings than maml has now"),
        ({"provenance": {"dirty": True}}, "made with uncommitted changes"),
        ({"learning_curve": [{"step": 3, "loss": 1.0, "validation_accuracy": 0.5}]}, "the run was cut off"),
    ],
)
def test_what_could_not_be_made_again_is_refused_and_nothing_is_copied(
    results, tracked, tmp_path, capsys, change, message
):
    (record,) = read_records(results / "smoke/maml/seed0/record.json")
    write_record(tmp_path / "other/smoke/maml/seed0/record.json", replace(record, **change))
    assert command(tmp_path / "other", tracked) == 2
    assert message in capsys.readouterr().err
    assert not tracked.exists()


def test_where_there_are_no_runs_it_says_so(tmp_path, tracked, capsys):
    assert command(tmp_path, tracked) == 2
    assert "has no records; make them with" in capsys.readouterr().err
