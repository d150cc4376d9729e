"""The count of alarms, with verdicts made up in place of measured ones."""

from __future__ import annotations

import pytest

from sharp_maml import Result, read_result, write_result
from theory.check import alarms
from theory.check.claim import Evidence, Item, Unit, decide, registry


@pytest.fixture
def judged(monkeypatch):
    """Seeds that were judged; all comes out as it should, but for the claims named `wrong`."""
    calls: list[int] = []
    wrong: dict[int, list[str]] = {}

    def judge(names, budget, seed, *, jobs):
        calls.append(seed)
        every = registry()
        inside, outside = Evidence((Item("x", 0.0, 0.0),)), Evidence((Item("x", 100.0, 1.0),))
        brought = {}
        for name in names:
            for control in ("", *every[name].controls):
                bad = bool(control) != (name in wrong.get(seed, []) and not control)
                out = bad != (every[name].expected == "refuted")
                brought[Unit(name, control)] = outside if out else inside
        return decide({name: every[name] for name in names}, brought, dict.fromkeys(brought, 0.0))

    monkeypatch.setattr(alarms, "judge", judge)
    # what is being worked on may have uncommitted changes
    monkeypatch.setattr(alarms, "provenance", lambda module: {"commit": "c" * 40, "dirty": False})
    return calls, wrong


def test_seeds_are_judged_once_also_when_cut_off(judged, tmp_path, capsys) -> None:
    calls, _ = judged
    path = tmp_path / "alarms.json"
    assert alarms.main(["--seeds", "2", "--output", str(path)]) == 0
    assert alarms.main(["--seeds", "3", "--output", str(path)]) == 0
    assert calls == [1000, 1001, 1002]
    record = read_result(path, "alarms").payload
    assert list(record["seeds"]) == ["1000", "1001", "1002"]
    assert set(record["claims"]) == {name for name, claim in registry().items() if claim.evidence == "statistical"}
    assert "seed 1002: all as expected" in capsys.readouterr().out


@pytest.mark.parametrize(("seeds", "code"), [([1000], 0), ([1000, 1001], 1)])
def test_one_alarm_may_be_chance_and_more_is_a_defect(judged, tmp_path, capsys, seeds, code) -> None:
    judged[1].update({seed: ["rate_slope"] for seed in seeds})
    assert alarms.main(["--seeds", "3", "--output", str(tmp_path / "alarms.json")]) == code
    assert "seed 1000: rate_slope" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["commit", "budget", "claims"])
def test_a_record_of_something_else_is_not_gone_on_with(judged, tmp_path, capsys, change) -> None:
    path = tmp_path / "alarms.json"
    alarms.main(["--seeds", "1", "--output", str(path)])
    result = read_result(path, "alarms")
    origin, payload = ({**of, change: "another"} if change in of else of for of in (result.provenance, result.payload))
    write_result(path, Result("alarms", origin, payload))
    before = path.read_text()
    assert alarms.main(["--seeds", "2", "--output", str(path)]) == 2
    assert "remove it or choose another --output" in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize("option", ["--jobs", "--seeds"])
def test_numbers_below_one_are_named(judged, tmp_path, capsys, option) -> None:
    assert alarms.main([option, "0", "--output", str(tmp_path / "alarms.json")]) == 2
    assert "jobs and seeds must be >= 1" in capsys.readouterr().err
