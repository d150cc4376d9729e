"""What belongs in one table, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproductions.tables.check import TableError, check, check_settings
from reproductions.tables.lines import notes
from tests.reproductions.tables.records_for_tests import ROWS, TABLE, TIER, record


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
