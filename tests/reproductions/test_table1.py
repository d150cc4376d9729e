from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reproductions import cells, table1
from reproductions.format import put_between
from reproductions.specification import load
from reproductions.table1 import (
    TableError,
    build_lines,
    check,
    check_settings,
    main,
    notes,
    on_other_data,
    prepare_data,
    tracked_records,
)
from sharp_maml import write_record
from tests.reproductions.records_for_tests import ROWS, TABLE, TIER, cell, dataset, record, with_mean

BEGIN, END = "<!-- table1: begin -->", "<!-- table1: end -->"


def lines(*records, table=TABLE):
    return {row.name: line for row, line in zip(table.rows, build_lines(table, records), strict=True)}


def pairs(row: str, differences, baseline=45.0):
    """Records of the baseline and of a row, one seed a difference (multiples of a quarter of a point)."""
    made = []
    for seed, difference in enumerate(differences):
        made.append(record("maml", seed, with_mean(baseline)))
        made.append(record(row, seed, with_mean(baseline + difference)))
    return made


# What belongs in one table.


def test_records_of_one_protocol_belong_together():
    check([record("maml"), record("maml", 1), record("low"), record("own"), record("matching")], TABLE.rows)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shots", 5),
        ("test_steps", 10),
        ("perturb_at_test", True),
        ("batch_norm", "support"),
        ("trained_on", "0" * 64),
        ("split", "validation"),
        ("evaluation_seed", 2),
        ("selection", "last"),
        ("something new", 1),
    ],
)
def test_records_of_mixed_protocols_are_refused(key, value):
    first = record("maml", protocol={"something new": 0})
    with pytest.raises(TableError, match=f"{key}: .*one table needs one protocol") as error:
        check([first, record("low", protocol={"something new": 0, key: value})], TABLE.rows)
    assert "maml (seed 0) and low (seed 0)" in str(error.value)
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_digest": "0" * 64}, "data"),
        ({"episodes_digest": "0" * 16}, "test episodes"),
        ({"protocol": {"ways": 10, "queries": 10}}, "ways|queries"),
        ({"percents": [40, 50]}, "episodes"),
    ],
    ids=str,
)
def test_records_of_other_data_or_other_episodes_are_refused(changes, named):
    with pytest.raises(TableError, match=f"maml .* and maml \\(seed 1\\) differ in ({named}):"):
        check([record("maml"), record("maml", 1, **changes)], TABLE.rows)


def test_an_entry_may_differ_where_it_is_the_subject_of_the_row_and_nowhere_else():
    """The row `own` perturbs at test; of `low` the same is refused above."""
    own = record("own", protocol={"perturb_at_test": True})
    check([record("maml"), own], TABLE.rows)
    with pytest.raises(TableError, match="split"):
        check([record("maml"), record("own", protocol={"perturb_at_test": True, "split": "train"})], TABLE.rows)


def test_a_method_that_does_not_adapt_has_no_test_steps_to_differ_in():
    assert record("matching").protocol["test_steps"] is None
    check([record("maml"), record("matching")], TABLE.rows)


def test_a_dirty_record_is_refused_and_named_unless_asked_for():
    dirty = record("low", 1, provenance={**record().provenance, "dirty": True})
    with pytest.raises(TableError, match=r"low \(seed 1\): made with uncommitted changes.*--allow-dirty"):
        check([record("maml"), dirty], TABLE.rows)
    check([record("maml"), dirty], TABLE.rows, allow_dirty=True)
    assert [note for note in notes(TABLE, TIER, [record(), dirty]) if note.startswith("DIRTY")]
    assert not [note for note in notes(TABLE, TIER, [record()]) if note.startswith("DIRTY")]


def test_a_record_of_no_row_is_refused():
    with pytest.raises(TableError, match=r"low .*no row of this table has that name; its rows are maml"):
        check([record("maml"), record("low")], [ROWS["maml"]])


def test_two_records_of_one_cell_are_refused():
    with pytest.raises(TableError, match=r"maml \(seed 1\): there are two records"):
        check([record("maml", 1), record("maml", 0), record("maml", 1)], TABLE.rows)


def test_a_record_of_one_batch_norm_mode_only_is_refused():
    accuracies = {"transductive": record().accuracies["transductive"]}
    with pytest.raises(TableError, match="lacks batch norm mode support"):
        check([record("maml", accuracies=accuracies)], TABLE.rows)


def test_records_of_todays_settings_are_accepted_and_of_others_refused():
    made = [record("maml"), record("low", 3), record("own"), record("matching")]
    check_settings(made, TABLE, TIER)
    today = replace(TIER, rows={"low": {"alpha_low": 0.03}})
    with pytest.raises(TableError, match=r"low \(seed 3\), own \(seed 0\): made with other settings"):
        check_settings(made, TABLE, today)


# The numbers of a line.


def test_a_row_without_records_is_a_line_of_dashes():
    found = lines(record("maml"))
    assert found["low"].cells() == ("Sharp-MAML low", "48.87", "—", "—", "—", "—", "+1.74", "—", "—")
    assert (found["low"].accuracy, found["low"].runs) == (None, 0)


def test_without_any_record_every_line_is_of_dashes_and_the_notes_say_so():
    assert all(line.accuracy is None for line in lines().values())
    assert notes(TABLE, TIER, []) == ["no records"]


def test_the_sources_values_and_differences_are_those_of_the_rows():
    found = lines()
    assert [found[name].source for name in ROWS] == [43.56, 47.13, 48.87, None]
    differences = [found[name].source_difference for name in ROWS]
    assert differences == [None, None, pytest.approx(1.74), None]  # a quoted value is not compared


@given(st.lists(st.lists(st.integers(1, 99), min_size=4, max_size=4), min_size=2, max_size=5))
def test_accuracy_is_over_episodes_of_the_seeds_mean_and_the_other_interval_over_seeds(percents):
    line = lines(*(record("maml", seed, each) for seed, each in enumerate(percents)))["maml"]
    episodes, seeds = np.mean(percents, axis=0), np.mean(percents, axis=1)
    for found, values, quantile in (
        (line.accuracy, episodes, stats.norm.ppf(0.975)),
        (line.seeds, seeds, stats.t.ppf(0.975, len(seeds) - 1)),
    ):
        half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
        assert found.mean == pytest.approx(np.mean(percents))
        assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert line.support.mean == pytest.approx(line.accuracy.mean - 1)
    assert line.runs == len(percents)


def test_the_difference_is_paired_seed_by_seed_on_the_seeds_that_both_have():
    made = [*pairs("low", [2.0, 1.0, 3.0]), record("maml", 7, with_mean(90)), record("low", 8, with_mean(10))]
    difference = lines(*made)["low"].difference
    half = stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)
    assert (difference.mean, difference.n) == (pytest.approx(2.0), 3)
    assert (difference.low, difference.high) == pytest.approx((2 - half, 2 + half))


def test_the_order_of_the_records_does_not_matter():
    made = pairs("low", [2.0, 1.0, 3.0])
    assert lines(*made) == lines(*reversed(made))


def test_without_a_common_seed_there_is_no_difference():
    line = lines(record("maml", 0), record("low", 1))["low"]
    assert (line.difference, line.verdict) == (None, "—")


def test_a_table_of_some_rows_does_without_its_baseline():
    table = replace(TABLE, rows=(ROWS["low"],))
    line = lines(record("low"), table=table)["low"]
    assert line.accuracy is not None
    assert (line.difference, line.verdict) == (None, "—")


# The verdict; its rule is tested in test_verdicts.py.


@pytest.mark.parametrize(
    ("row", "differences", "expected"),
    [
        ("low", [1.5, 1.75, 2.0], "gain confirmed"),
        ("low", [0.0, 0.25, -0.25], "gain excluded, equivalent within 0.87 points"),
        ("own", [1.5, 1.75, 2.0], "more accurate"),  # the source has no value
        ("matching", [1.5, 1.75, 2.0], "more accurate"),  # it quotes one
        ("low", [50.0], "one seed decides nothing"),
    ],
)
def test_a_row_is_judged_by_its_paired_differences_and_the_sources_gain(row, differences, expected):
    assert lines(*pairs(row, differences))[row].verdict == expected


def test_rows_are_judged_together():
    beside = {(r.name, r.seed): r for r in [*pairs("low", [0.0, 0.5, -0.25]), *pairs("own", [-4.0, 6.0, 1.0])]}
    found = lines(*beside.values())
    assert lines(*pairs("low", [0.0, 0.5, -0.25]))["low"].verdict == "gain excluded, equivalent within 0.87 points"
    assert found["low"].verdict == "gain excluded"  # equivalence is asked of both rows, the printed gain of one
    assert found["own"].verdict.startswith("not enough runs: about ")


# The notes.


def test_the_notes_say_data_budget_radii_episodes_code_and_cost():
    text = "\n".join(notes(TABLE, TIER, [record("maml"), record("low"), record("matching")]))
    for expected in (
        "made-up images (made up, digest dddddddddddd), 16 pixels",
        "conv4 with 4 filters, 1 inner step(s) of 0.4, 5 at test, 2 episodes a meta-iteration, 6 meta-iterations",
        "adam with step 1e-12",
        "Radii: low 0.02 (low), 0 (up).",
        "4 fixed test episodes of 5 ways, 1 shot(s) and 20 queries",
        "commit cccccccccc; a processor, 1 thread(s) a run; 1.50 hours",
    ):
        assert expected in text
    assert "{" not in text


def test_the_notes_name_a_run_that_was_cut_off():
    point = {"loss": 1.0, "validation_accuracy": 0.5}
    planned = record("maml").config["iterations"]
    whole = replace(record("maml"), learning_curve=[{**point, "step": planned}])
    part = replace(record("low", 1), learning_curve=[{**point, "step": planned - 2}])
    assert "UNFINISHED" not in "\n".join(notes(TABLE, TIER, [whole]))
    expected = f"UNFINISHED, {planned} iterations were planned: low, seed 1, at step {planned - 2}."
    assert expected in notes(TABLE, TIER, [whole, part])


def test_notes_on_methods_without_radii_or_steps_leave_these_out():
    text = "\n".join(notes(TABLE, TIER, [record("matching")]))
    assert "inner step" not in text
    assert "Radii" not in text


# Data that are not miniImageNet, on a tier of miniImageNet.


REAL = replace(TIER, data="miniimagenet", label="miniImageNet at a budget")


def test_records_of_miniimagenet_stand_under_its_name_and_are_compared():
    made = [record("maml", data_name="miniimagenet")]
    assert on_other_data(TABLE, REAL, made) == (TABLE, REAL)
    assert on_other_data(TABLE, REAL, []) == (TABLE, REAL)
    assert on_other_data(TABLE, TIER, [record("maml")]) == (TABLE, TIER)  # says itself that it is made up


@pytest.mark.parametrize("name", ["omniglot-small", "folders", "miniimagenet-by-numbers"])
def test_records_of_other_data_stand_under_their_name_and_are_compared_with_nothing(name):
    made = [replace(each, data_name=name) for each in pairs("low", [1.5, 1.75, 2.0])]
    table, tier = on_other_data(TABLE, REAL, made)
    assert table.title == f"A title, on {name}"
    found = lines(*made, table=table)
    assert [(line.source, line.quoted, line.source_difference) for line in found.values()] == [(None, False, None)] * 4
    assert [found[row].verdict for row in ("maml", "low")] == ["baseline", "more accurate"]
    text = "\n".join(notes(table, tier, made))
    assert f"Data: not shown to be miniimagenet ({name}, digest dddd" in text
    assert "nothing is compared with the source" in text
    some = replace(TABLE, rows=(ROWS["low"],))
    assert on_other_data(some, REAL, made)[0].baseline.source is None


# The README.


def test_the_readme_has_the_table_between_its_marks_and_the_rest_untouched():
    readme = f"head\n{BEGIN}\nold\n{END}\ntail {END}"
    once = put_between(readme, "table1", "new\n")
    assert once == f"head\n{BEGIN}\nnew\n{END}\ntail {END}"
    assert put_between(once, "table1", "new\n") == once


@pytest.mark.parametrize("readme", ["", f"{BEGIN} only", f"only {END}", f"{END} turned {BEGIN}"])
def test_a_readme_without_the_marks_in_order_is_refused(readme):
    with pytest.raises(ValueError, match="needs the marks"):
        put_between(readme, "table1", "table")


# Data and cost.


def test_a_tier_of_real_data_needs_them_and_says_how_to_name_them(tmp_path):
    real = replace(TIER, data="miniimagenet", name="cpu")
    with pytest.raises(TableError, match=r"tier cpu needs miniimagenet: .*--data DIR"):
        prepare_data(real, None, tmp_path)
    assert prepare_data(real, tmp_path / "given", tmp_path) == tmp_path / "given"


def test_a_tier_that_makes_its_images_refuses_others(tmp_path):
    with pytest.raises(TableError, match="makes its own images; leave --data out"):
        prepare_data(TIER, tmp_path, tmp_path)


def test_images_are_made_once_in_the_size_and_number_of_the_tier(tmp_path, monkeypatch):
    asked = []

    def write(directory: Path, **options: int) -> None:
        directory.mkdir(parents=True)
        asked.append(options)

    monkeypatch.setattr(table1, "write_images", write)
    first = prepare_data(TIER, None, tmp_path)
    assert prepare_data(TIER, None, tmp_path) == first
    assert asked == [{"size": 16, "per_class": 24}]
    prepare_data(replace(TIER, images_a_class=30), None, tmp_path)
    assert asked[1:] == [{"size": 16, "per_class": 30}]


# The command.


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A clean working tree, a README and tracked records of the test's own, and the small table."""
    tables, tiers = load()
    monkeypatch.setattr(table1, "load", lambda: ({**tables, "table1": TABLE}, {**tiers, "smoke": TIER}))
    monkeypatch.setattr(table1, "provenance", lambda: {"dirty": False})
    monkeypatch.setattr(table1, "TRACKED", tmp_path / "tracked")
    monkeypatch.setattr(table1, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"head\n{BEGIN}\n{END}\ntail\n")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def track(place: Path, *records) -> None:
    for each in records:
        write_record(place / "tracked/smoke" / f"{each.name}-seed{each.seed}.json", each)


def finished(place: Path, *records) -> None:
    """Records where training leaves them."""
    for each in records:
        write_record(cell(each.name, each.seed).directory(place / "results") / "record.json", each)


def command(place: Path, *arguments: str) -> int:
    return main(["--tier", "smoke", "--results", str(place / "results"), *arguments])


def test_tracked_records_of_a_table_are_those_of_its_rows_and_its_split(place):
    track(place, record("maml"), record("low", 1))
    validation = record("maml", 5, protocol={"split": "validation"})
    track(place, validation)
    write_record(place / "tracked/smoke/other-seed0.json", record("own"))
    assert [(r.name, r.seed) for r in tracked_records(TABLE, TIER)] == [("maml", 0), ("low", 1)]
    assert tracked_records(replace(TABLE, split="validation"), TIER) == [validation]
    assert tracked_records(TABLE, replace(TIER, name="paper")) == []


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
    assert (place / "README.md").read_text() == f"head\n{BEGIN}\n{END}\ntail\n"


def test_the_readme_shows_the_table_of_the_tracked_records(place, capsys):
    track(place, record("maml"))
    assert command(place, "--tracked", "--readme") == 0
    readme = (place / "README.md").read_text()
    assert readme.startswith(f"head\n{BEGIN}\n**A title (smoke tier)**")
    assert readme.endswith(f"{END}\ntail\n")
    assert "| MAML | 47.13 | 44.00" in readme


def test_the_table_of_finished_cells_trains_nothing_and_shows_the_tracked_records_beside_them(place, capsys):
    own = [record(row, seed, with_mean(44 + seed)) for row in ROWS for seed in (0, 1)]
    finished(place, *own)
    track(place, record("maml", 0, with_mean(60.25)))
    assert command(place) == 0
    out = capsys.readouterr().out
    assert "cells to train" not in out
    assert "44.50" in (place / "results/smoke/table1.md").read_text()
    assert "the repository's tracked records for comparison: MAML 60.25 ±" in out


def run_in_this_process(todo, data, results, **_):
    for each in todo:
        cells.run(each, table1.open_dataset(data, size=each.config.image_size), results)


def test_missing_cells_are_trained_and_the_second_time_nothing_is_missing(place, capsys, monkeypatch):
    dataset(place / "data")
    monkeypatch.setattr(table1, "prepare_data", lambda tier, data, results: place / "data")
    monkeypatch.setattr(table1, "run_here", run_in_this_process)
    for module in ("sharp_maml.train", "sharp_maml.evaluate"):
        monkeypatch.setattr(sys.modules[module], "provenance", lambda device: record().provenance)
    assert command(place, "--rows", "maml", "low", "--seeds", "1") == 0
    assert "2 cells to train, 2 at a time" in capsys.readouterr().out
    table = (place / "results/smoke/table1.md").read_text()
    assert command(place, "--rows", "maml", "low", "--seeds", "1") == 0
    assert "cells to train" not in capsys.readouterr().out
    assert (place / "results/smoke/table1.md").read_text() == table
    assert "one run: no interval" in table


def test_the_seeds_asked_for_are_the_tables_first_and_those_after_it(place, monkeypatch):
    asked = []
    later = replace(TABLE, first_seed=1000)
    monkeypatch.setattr(table1, "load", lambda: ({"table1": later}, {"demo": TIER, "smoke": TIER}))
    monkeypatch.setattr(table1, "prepare_data", lambda tier, data, results: place)
    monkeypatch.setattr(table1, "measure_costs", lambda *arguments: {})
    monkeypatch.setattr(table1, "estimate", lambda *arguments: "")
    monkeypatch.setattr(table1, "measure_costs", lambda *arguments: {})
    monkeypatch.setattr(table1, "run_here", lambda todo, *_, **options: asked.extend(todo))
    assert command(place, "--seeds", "3", "--rows", "maml") == 2  # nothing was run, so there are no records
    assert [each.seed for each in asked] == [1000, 1001, 1002]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_table_and_the_same_command_goes_on(place, capsys, monkeypatch, signum):
    def stopped(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signum)
        time.sleep(60)

    monkeypatch.setattr(table1, "prepare_data", lambda tier, data, results: place)
    monkeypatch.setattr(table1, "measure_costs", lambda *arguments: {})
    monkeypatch.setattr(table1, "estimate", lambda *arguments: "")
    monkeypatch.setattr(table1, "measure_costs", lambda *arguments: {})
    monkeypatch.setattr(table1, "run_here", stopped)
    assert command(place) == 130
    assert "the same command goes on from there" in capsys.readouterr().out


def test_uncommitted_changes_are_refused_before_anything_is_trained(place, capsys, monkeypatch):
    monkeypatch.setattr(table1, "provenance", lambda: {"dirty": True})
    assert command(place) == 2
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
        (["--readme"], "--readme goes with --tracked"),
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--seeds", "-1"], "--seeds must be >= 1, got -1"),
        (["--jobs", "0"], "--jobs must be >= 1, got 0"),
    ],
)
def test_the_command_says_what_is_wrong_and_returns_2(place, capsys, arguments, message):
    assert main(["--results", str(place / "results"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("device", "there"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_that_is_not_there_is_refused_whatever_records_there_are(place, capsys, monkeypatch, device, there):
    finished(place, *(record(row, seed) for row in ROWS for seed in (0, 1)))
    monkeypatch.setattr(table1.torch.cuda, "device_count", lambda: there)
    assert command(place, "--device", device) == 2
    message = f"error: --device {device}: there is no such device here ({there} CUDA devices); choose cpu\n"
    assert capsys.readouterr().err == message


def test_real_data_that_are_not_there_are_named(place, capsys):
    assert main(["--results", str(place / "results"), "--tier", "cpu", "--data", str(place / "nowhere")]) == 2
    assert str(place / "nowhere") in capsys.readouterr().err


@pytest.fixture
def real(place, monkeypatch):
    """A tier of miniImageNet, and data that are not it."""
    monkeypatch.setattr(table1, "load", lambda: ({"table1": TABLE}, {"demo": TIER, "smoke": REAL}))
    return dataset(place / "data")


def test_other_data_on_a_tier_of_miniimagenet_are_named_before_training_and_in_the_table(
    real, place, capsys, monkeypatch
):
    def trained(todo, data, results, *, costs, jobs, console):
        finished(place, *(record(c.row.name, c.seed, data_name=real.name, data_digest=real.digest) for c in todo))

    monkeypatch.setattr(table1, "measure_costs", lambda *arguments: {})
    monkeypatch.setattr(table1, "estimate", lambda *arguments: "")
    monkeypatch.setattr(table1, "run_here", trained)
    track(place, record("maml", data_name="miniimagenet"))
    for _ in range(2):  # the second time there is nothing to train
        assert command(place, "--data", str(place / "data")) == 0
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
def test_data_that_are_too_small_are_refused_before_training(real, place, capsys, monkeypatch, settings, message):
    small = replace(REAL, settings={**REAL.settings, **settings})
    monkeypatch.setattr(table1, "load", lambda: ({"table1": TABLE}, {"demo": TIER, "smoke": small}))
    monkeypatch.setattr(table1, "run_here", None)
    assert command(place, "--data", str(place / "data")) == 2
    assert message in capsys.readouterr().err


def test_records_of_other_data_are_found_before_more_are_trained(real, place, capsys, monkeypatch):
    finished(place, record("maml", data_name="miniimagenet"))
    monkeypatch.setattr(table1, "run_here", None)
    assert command(place, "--data", str(place / "data")) == 2
    assert "records of other data (miniimagenet, digest dddddddddddd)" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tier=huge", "--table=table2"])
def test_the_command_lists_the_choices_of_an_option(place, capsys, option):
    with pytest.raises(SystemExit, match="2"):
        main([option])
    assert "choose from" in capsys.readouterr().err


def test_results_that_another_process_works_on_are_refused(place, capsys):
    directory = place / "results/smoke"
    code = (
        "import sys; from sharp_maml import RunDirectoryLock\n"
        "with RunDirectoryLock(sys.argv[1]):\n print('x', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
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


def test_a_readme_without_marks_is_left_alone(place, capsys):
    (place / "README.md").write_text("no marks")
    assert command(place, "--tracked", "--readme") == 2
    assert "needs the marks" in capsys.readouterr().err
    assert (place / "README.md").read_text() == "no marks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timeout_min=600", ("timeout_min", 600)),
        ("slurm_partition=gpu", ("slurm_partition", "gpu")),
        ("mem_gb=1.5", ("mem_gb", 1.5)),
        ("slurm_comment=a=b", ("slurm_comment", "a=b")),
    ],
)
def test_an_option_of_the_scheduler_is_a_name_and_a_toml_value_or_text(text, expected):
    assert table1._option(text) == expected


@pytest.mark.parametrize("text", ["timeout_min", "=3"])
def test_an_option_of_the_scheduler_without_name_or_value_is_refused(text):
    with pytest.raises(TableError, match="KEY=VALUE"):
        table1._option(text)


def test_what_only_a_figure_needs_is_not_imported_with_the_command():
    """The process of every cell imports the command that started it again."""
    code = "import sys, reproductions.table1; sys.exit(bool({'matplotlib', 'pandas', 'seaborn'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_from_nothing_to_a_table_with_the_specification_of_the_repository(tmp_path):
    """What `make reproduce-table1 TIER=smoke` does, in a process of its own, on two rows."""
    arguments = ["--tier", "smoke", "--rows", "maml", "both", "--results", str(tmp_path), "--allow-dirty"]
    done = subprocess.run(
        [sys.executable, "-m", "reproductions.table1", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "both, seed 0: done, 0 cells left" in done.stdout
    assert "Sharp-MAML both" in (tmp_path / "smoke/table1.md").read_text()
