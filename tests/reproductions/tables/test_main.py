"""The command: its options, what it prints and writes, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reproductions.tables import cells
from reproductions.tables.__main__ import Surroundings, main
from reproductions.tables.records import tables_run, tracked_records
from reproductions.tables.specification import SPECIFICATION, load
from sharp_maml import open_dataset, read_records, write_record
from tests.reproductions.tables.records_for_tests import (
    REAL,
    ROWS,
    TABLE,
    TIER,
    cell,
    dataset,
    pairs,
    record,
    with_mean,
)


def refuse(todo, data, results):
    raise AssertionError("nothing is to be trained")


@pytest.fixture
def place(tmp_path):
    """A folder; what the command changes of the process is put back."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for signum, handler in before.items():
        signal.signal(signum, handler)


def command(place: Path, *arguments: str, table=TABLE, tier=TIER, **changes) -> int:
    """The command for the small table, in folders of the test's own; the code is clean, and nothing is trained."""
    tables, tiers = load()
    around = Surroundings({**tables, "table1": table}, {**tiers, "smoke": tier}, place / "tracked", 0, False, refuse)
    return main(["--tier", "smoke", "--results", str(place / "results"), *arguments], replace(around, **changes))


def track(place: Path, *records) -> None:
    for each in records:
        write_record(place / "tracked/smoke" / f"{each.name}-seed{each.seed}.json", each)


def finished(place: Path, *records) -> None:
    """Records where training leaves them."""
    for each in records:
        write_record(cell(each.name, each.seed).directory(place / "results") / "record.json", each)


def test_tracked_records_of_a_table_are_those_of_its_rows_and_its_split(place):
    track(place, record("maml"), record("low", 1))
    validation = record("maml", 5, protocol={"split": "validation"})
    track(place, validation)
    write_record(place / "tracked/smoke/other-seed0.json", record("own"))
    folder = place / "tracked"
    assert [(r.name, r.seed) for r in tracked_records(TABLE, TIER, folder)] == [("maml", 0), ("low", 1)]
    assert tracked_records(replace(TABLE, split="validation"), TIER, folder) == [validation]
    assert tracked_records(TABLE, replace(TIER, name="paper"), folder) == []


def test_a_table_has_been_run_where_a_row_of_its_own_has_a_record():
    def run_on(*names):
        """Tables and tiers that have been run, if these cells of the demo tier are all that was."""
        made = {name: replace(record("maml"), name=name) for name in names}
        found = tables_run(
            lambda table, tier: [made[row.name] for row in table.rows if tier.name == "demo" and row.name in made]
        )
        return [(table.name, tier.name, len(records)) for table, tier, records in found]

    assert run_on("maml") == []
    assert run_on("maml", "low", "both") == [("table1", "demo", 3)]  # also rows of the tables ablation and mechanism
    assert run_on("both", "random") == [("table1", "demo", 1), ("mechanism", "demo", 2)]
    assert run_on("random") == [("mechanism", "demo", 1)]


def test_a_table_that_was_run_on_other_data_is_under_their_name_and_compared_with_nothing():
    def run_on(name):
        low = replace(record("low"), data_name=name)
        ((table, _, _),) = tables_run(
            lambda table, tier: [low] if (table.name, tier.name) == ("miniimagenet", "cpu") else []
        )
        return table.title, {row.source for row in table.rows}

    assert run_on("own images") == ("Table 1 on miniImageNet: 5-way 1-shot accuracy, on own images", {None})
    title, printed = run_on("miniimagenet")
    assert title == "Table 1 on miniImageNet: 5-way 1-shot accuracy"
    assert 49.6 in printed


def test_the_table_of_tracked_records_is_printed_and_written_in_four_forms(place, capsys):
    track(place, *pairs("low", [1.5, 1.75, 2.0]))
    assert command(place, "--tracked") == 0
    out = capsys.readouterr().out
    assert "confirmed" in out
    assert "A title (smoke tier)" in out
    written = place / "results/smoke"
    assert "| Sharp-MAML low | 48.87 |" in (written / "table1.md").read_text()
    assert r"\begin{tabular}" in (written / "table1.tex").read_text()
    assert (written / "table1.png").stat().st_size > 1000


def test_the_table_of_finished_cells_trains_nothing_and_shows_the_tracked_records_beside_them(place, capsys):
    own = [record(row, seed, with_mean(44 + seed)) for row in ROWS for seed in (0, 1)]
    finished(place, *own)
    track(place, record("maml", 0, with_mean(60.25)))
    assert command(place) == 0
    out = capsys.readouterr().out
    assert "cells to train" not in out
    assert "44.50" in (place / "results/smoke/table1.md").read_text()
    assert "the repository's tracked records for comparison: MAML 60.25 ±" in out


def test_missing_cells_are_trained_and_the_second_time_nothing_is_missing(place, capsys):
    dataset(place / "results/data/synthetic-images-16-24")  # where the tier's own images would be made
    asked = ["--rows", "maml", "low", "--seeds", "1", "--allow-dirty"]

    def run(todo, data, results):
        assert [(each.row.name, each.seed) for each in todo] == [("maml", 0), ("low", 0)]
        for each in todo:
            cells.run(each, open_dataset(data, size=each.config.image_size), results)

    assert command(place, *asked, run=run) == 0
    table = (place / "results/smoke/table1.md").read_text()
    capsys.readouterr()
    assert command(place, *asked) == 0
    assert "cells to train" not in capsys.readouterr().out
    assert (place / "results/smoke/table1.md").read_text() == table
    assert "one run: no interval" in table


def test_a_row_is_added_by_an_entry_and_its_name(place, capsys):
    """The entry is the one that the page on extending shows."""
    page = (SPECIFICATION.parents[2] / "docs/extending.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    text = SPECIFICATION.read_text(encoding="utf-8").replace(
        '"low", "up", "both"]', '"low", "up", "both", "my-row"]', 1
    )
    (place / "tables.toml").write_text(f"{text}\n{entry}")
    tables, tiers = load(place / "tables.toml")
    tier = replace(TIER, rows=tiers["smoke"].rows)
    dataset(place / "results/data/synthetic-images-16-24")

    def run(todo, data, results):
        for each in todo:
            cells.run(each, open_dataset(data, size=each.config.image_size), results)

    asked = ["--rows", "maml", "my-row", "--seeds", "1", "--allow-dirty"]
    assert command(place, *asked, run=run, table=tables["table1"], tier=tier) == 0
    (row,) = read_records(place / "results/smoke/my-row", pattern="**/record.json")
    assert (row.config["inner_params"], row.config["alpha_low"]) == ("head", tiers["smoke"].rows["both"]["alpha_low"])
    assert "Sharp-MAML both, head only" in (place / "results/smoke/table1.md").read_text()


def test_the_seeds_asked_for_are_the_tables_first_and_those_after_it(place):
    asked = []
    (place / "results/data/synthetic-images-16-24").mkdir(parents=True)
    own = {"table": replace(TABLE, first_seed=1000), "run": lambda todo, data, results: asked.extend(todo)}
    assert command(place, "--seeds", "3", "--rows", "maml", **own) == 2  # nothing was run, so there are no records
    assert [each.seed for each in asked] == [1000, 1001, 1002]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_table_and_the_same_command_goes_on(place, capsys, signum):
    def stopped(todo, data, results):
        os.kill(os.getpid(), signum)
        time.sleep(60)

    (place / "results/data/synthetic-images-16-24").mkdir(parents=True)
    assert command(place, run=stopped) == 130
    assert "the same command goes on from there" in capsys.readouterr().out


def test_uncommitted_changes_are_refused_before_anything_is_trained(place, capsys):
    assert command(place, is_dirty=True) == 2
    assert "--allow-dirty" in capsys.readouterr().err
    assert not (place / "results").exists()


def test_dirty_records_are_labelled_where_they_are_allowed(place, capsys):
    dirty = record("maml", provenance={**record().provenance, "dirty": True})
    track(place, dirty)
    assert command(place, "--tracked") == 2
    assert "uncommitted changes" in capsys.readouterr().err
    assert command(place, "--tracked", "--allow-dirty") == 0
    assert "DIRTY" in capsys.readouterr().out
    assert "DIRTY" in (place / "results/smoke/table1.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tier", "cpu"], "tier cpu needs miniimagenet"),
        (["--tier", "demo", "--data", "somewhere"], "makes its own images"),
        (["--rows", "maml", "nothing"], "unknown rows ['nothing']; table1 has ['matching', 'maml', 'low', 'own']"),
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--seeds", "-1"], "--seeds must be >= 1, got -1"),
        (["--jobs", "0"], "--jobs must be >= 1, got 0"),
    ],
)
def test_the_command_says_what_is_wrong_and_returns_2(place, capsys, arguments, message):
    assert command(place, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("device", "there"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_that_is_not_there_is_refused_whatever_records_there_are(place, capsys, device, there):
    finished(place, *(record(row, seed) for row in ROWS for seed in (0, 1)))
    assert command(place, "--device", device, gpus=there) == 2
    message = f"error: --device {device}: there is no such device here ({there} CUDA devices); choose cpu\n"
    assert capsys.readouterr().err == message


def test_real_data_that_are_not_there_are_named(place, capsys):
    assert command(place, "--tier", "cpu", "--data", str(place / "nowhere")) == 2
    assert str(place / "nowhere") in capsys.readouterr().err


def test_other_data_on_a_tier_of_miniimagenet_are_named_before_training_and_in_the_table(place, capsys):
    given = dataset(place / "data")

    def run(todo, data, results):
        assert data == place / "data"
        finished(place, *(record(c.row.name, c.seed, data_name=given.name, data_digest=given.digest) for c in todo))

    track(place, record("maml", data_name="miniimagenet"))
    for train in (run, refuse):  # the second time there is nothing to train
        assert command(place, "--data", str(place / "data"), tier=REAL, run=train) == 0
        out = capsys.readouterr().out
        assert f"{place / 'data'}: made up, not miniimagenet; the table says so" in " ".join(out.split())
        assert "tracked records" not in out
        table = (place / "results/smoke/table1.md").read_text()
        assert table.startswith("**A title, on made up (smoke tier)**")
        assert "| Sharp-MAML low | — |" in table


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"shots": 5}, "shots + queries: at most 24"), ({"ways": 6}, "ways: at most 5, the classes of made up/train")],
)
def test_data_that_are_too_small_are_refused_before_training(place, capsys, settings, message):
    dataset(place / "data")
    small = replace(REAL, settings={**REAL.settings, **settings})
    assert command(place, "--data", str(place / "data"), tier=small) == 2
    assert message in capsys.readouterr().err


def test_records_of_other_data_are_found_before_more_are_trained(place, capsys):
    dataset(place / "data")
    finished(place, record("maml", data_name="miniimagenet"))
    assert command(place, "--data", str(place / "data"), tier=REAL) == 2
    assert "records of other data (miniimagenet, digest dddddddddddd)" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tier=huge", "--table=table2"])
def test_the_command_lists_the_choices_of_an_option(place, capsys, option):
    with pytest.raises(SystemExit, match="2"):
        command(place, option)
    assert "choose from" in capsys.readouterr().err


def test_results_that_another_process_works_on_are_refused(place, capsys):
    lock = place / "results/smoke/.lock"
    lock.parent.mkdir(parents=True)
    code = (
        "import fcntl, os, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "file.write(str(os.getpid())); file.flush(); print('x', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert command(place) == 2
        assert f"in use by process {other.pid}" in capsys.readouterr().err
    finally:
        other.communicate()


def test_a_tracked_record_of_other_settings_is_refused(place, capsys):
    track(place, record("maml", config_digest="0" * 64))
    assert command(place, "--tracked") == 2
    assert "made with other settings" in capsys.readouterr().err


def test_a_damaged_record_is_named(place, capsys):
    track(place, record("maml"))
    path = place / "tracked/smoke/maml-seed0.json"
    path.write_text(path.read_text()[:-20])
    assert command(place, "--tracked") == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.slow
def test_from_nothing_to_a_table_with_the_specification_of_the_repository(tmp_path):
    """What `make reproduce-table1 TIER=smoke` does, in a process of its own, on two rows."""
    arguments = ["--tier", "smoke", "--rows", "maml", "both", "--results", str(tmp_path), "--allow-dirty"]
    done = subprocess.run(
        [sys.executable, "-m", "reproductions.tables", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "both, seed 0: done, 0 cells left" in done.stdout
    assert "Sharp-MAML both" in (tmp_path / "smoke/table1.md").read_text()
