"""A short form of the kills, what the harness must notice, and the tracked record."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharp_maml import read_result, write_atomically
from tests.torture import kills

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


def said_of(work, monkeypatch, **options) -> list[str]:
    """What the harness says of every kill of a case that does this work."""
    monkeypatch.setitem(kills.CASES, "made up", kills.Case("made up", work, **options))
    monkeypatch.setattr(kills, "SECONDS", 5)
    return [wrong for wrong, _ in kills.measure("made up", 0, 0, None)]


def test_a_file_that_is_written_atomically_survives_a_kill_at_each_of_its_writes(monkeypatch):
    """Write, sync, rename, sync of the directory: each before and after."""
    said = said_of(lambda directory: write_atomically(directory / "x.json", b'{"a": 1}'), monkeypatch)
    assert said == [""] * 8


def test_a_file_that_is_written_in_place_is_noticed(monkeypatch):
    said = said_of(lambda directory: (directory / "x.json").write_text('{"a": 1}') and None, monkeypatch)
    assert sorted(wrong.partition(":")[0] for wrong in said) == ["", "half written"]


def test_a_file_that_is_left_over_is_noticed(monkeypatch):
    def work(directory: Path) -> None:
        temporary = directory / f".x.{os.getpid()}.tmp"
        with temporary.open("w") as file:
            file.write("x")
        temporary.replace(directory / "x")

    left = [wrong for wrong in said_of(work, monkeypatch) if wrong]
    assert len(left) == 3  # in and after the write, and before the renaming
    assert all(wrong.startswith("left over: ['.x.") for wrong in left)


def test_a_file_that_was_saved_twice_has_one_before_it_and_is_not_lost(monkeypatch):
    def work(directory: Path) -> None:
        if (directory / "x.json").exists():
            (directory / "x.json").replace(directory / "x.previous.json")
        write_atomically(directory / "x.json", b"{}")

    assert set(said_of(work, monkeypatch)) == {""}


def test_a_rank_is_no_git_that_asks_for_the_commit_of_the_core():
    victim = kills.CASES["rank"].victim
    assert victim in "/usr/bin/python -m sharp_maml train tiny.toml --directory killed --processes 2"
    assert victim not in "git --no-optional-locks -C /somewhere/sharp_maml status --porcelain"


def test_what_is_left_of_the_file_before_is_noticed(tmp_path):
    for of in ("whole", "killed"):
        (tmp_path / of).mkdir()
        write_atomically(tmp_path / of / "x.json", b"{}")
    assert kills.difference(tmp_path / "whole", tmp_path / "killed") == ""
    (tmp_path / "killed/.x.previous.json.1.tmp").touch()
    assert kills.difference(tmp_path / "whole", tmp_path / "killed").startswith("left over: ['.x.previous.")


@pytest.mark.parametrize(("name", "expected"), [("seconds", ""), ("loss", "x.jsonl is another one")])
def test_another_end_is_noticed_and_another_time_is_not(monkeypatch, name, expected):
    def work(directory: Path) -> None:
        write_atomically(directory / "x.jsonl", f'{{"{name}": {os.getpid()}}}\n'.encode())

    assert {wrong.partition(",")[0] for wrong in said_of(work, monkeypatch)} == {expected}


def test_the_time_in_a_theory_report_is_no_difference_and_all_else_is(tmp_path):
    said = (ROOT / "docs/theory/REPORT.md").read_text(encoding="utf-8")
    (spent,) = kills.SPENT.findall(said)
    texts = {
        "whole": said,
        "slower": said.replace(spent, "1" + spent),
        "other": said.replace("refuted", "supported", 1),
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "REPORT.md").write_text(text, encoding="utf-8")
    assert texts["whole"] != texts["slower"]
    assert kills.difference(tmp_path / "whole", tmp_path / "slower") == ""
    assert kills.difference(tmp_path / "whole", tmp_path / "other").startswith("REPORT.md is another one")


def test_a_process_that_goes_on_is_noticed_and_ended(monkeypatch):
    """The command ends; when it is killed, so that it cannot end what it has started, that goes on."""

    def work(directory: Path) -> None:
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
            time.sleep(0.5)
            process.kill()

    said = said_of(work, monkeypatch, kills=1)
    assert said == ["still running: ['sleep 60 ']"]


@pytest.mark.slow
def test_what_is_killed_goes_on_to_the_end_of_what_was_not(tmp_path):
    command = [sys.executable, "-m", "tests.torture.kills", "--kills", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", "cell", "cache", "launcher", "cells"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cases = read_result(tmp_path / "kills.json", "kills").payload["cases"]
    assert [(name, entry["kills"], entry["lost"]) for name, entry in cases.items()] == [
        (name, 1, 0) for name in ("cell", "cache", "launcher", "cells")
    ]


def test_the_tracked_record_has_200_kills_of_every_case_and_none_was_lost():
    found = read_result(ROOT / "records/kills.json", "kills").payload["cases"]
    assert {name: entry["what"] for name, entry in found.items()} == {
        name: case.what for name, case in kills.CASES.items()
    }
    assert all(found[name]["kills"] == case.kills for name, case in kills.CASES.items() if case.kills)
    assert all(found[name]["kills"] > 10 for name, case in kills.CASES.items() if not case.kills)
    assert sum(entry["kills"] for entry in found.values()) >= 200
    assert [entry["shown"] for entry in found.values() if entry["lost"]] == []
