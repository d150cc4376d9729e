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


def test_records_are_copied_and_the_best_network_of_a_row_without_its_optimizer(results, tracked):
    for _ in range(2):  # the second time it leaves nothing else behind
        told = track.copy(track.finished(TIERS["smoke"], results), tracked, networks=True)
    assert sorted(path.name for path in tracked.iterdir()) == ["maml-seed0.json", "maml-seed1.json", "maml.safetensors"]
    best = [max(point["validation_accuracy"] for point in record.learning_curve) for record in read_records(tracked)]
    seed = best.index(max(best))
    assert told[0] == f"{tracked}: 2 records"
    assert f"maml.safetensors: seed {seed}," in told[1]
    network, whole = (
        load_checkpoint(path)
        for path in (tracked / "maml.safetensors", results / f"smoke/maml/seed{seed}/best.safetensors")
    )
    assert all(name.startswith("params/") for name in network.tensors)
    assert network.metadata["config"] == whole.metadata["config"]
    data = open_dataset(results / "images", size=16)
    again = evaluate(network, data, name="maml", episodes=20)
    assert again.accuracies == read_records(tracked / f"maml-seed{seed}.json")[0].accuracies


def test_the_best_network_is_taken_of_those_that_are_there(results, tracked, tmp_path):
    """Records may have come without their networks, as from the repository."""
    for seed in (0, 1):
        run = tmp_path / f"some/smoke/maml/seed{seed}"
        run.mkdir(parents=True)
        for name in ("record.json", "best.safetensors")[: 2 - seed]:
            (run / name).write_bytes((results / f"smoke/maml/seed{seed}" / name).read_bytes())
    told = track.copy(track.finished(TIERS["smoke"], tmp_path / "some"), tracked, networks=True)
    assert [line.split(": ")[1].split(",")[0] for line in told] == ["2 records", "seed 0"]
    (tmp_path / "some/smoke/maml/seed0/best.safetensors").unlink()
    (told,) = track.copy(track.finished(TIERS["smoke"], tmp_path / "some"), tmp_path / "none", networks=True)
    assert "2 records" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "no table of tier smoke has a row other on test classes"),
        ({"config_digest": "0" * 64}, "made with other settings than maml has now"),
        ({"provenance": {"dirty": True}}, "made with uncommitted changes"),
        ({"learning_curve": [{"step": 3, "loss": 1.0, "validation_accuracy": 0.5}]}, "the run was cut off"),
    ],
)
def test_what_could_not_be_made_again_is_refused(results, tmp_path, change, message):
    (record,) = read_records(results / "smoke/maml/seed0/record.json")
    write_record(tmp_path / "other/smoke/maml/seed0/record.json", replace(record, **change))
    with pytest.raises(ValueError, match=message):
        track.finished(TIERS["smoke"], tmp_path / "other")
