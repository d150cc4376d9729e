"""Table and claims: what goes on to the programs of the repository, what is said of its records, and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharp_maml import read_result
from sharp_maml_command import main
from theory.check.claim import registry
from theory.check.verdicts import TRACKED

ROOT = Path(__file__).parents[2]


def test_the_list_has_every_claim_with_what_its_tracked_record_says(capsys):
    assert main(["claims", "list", "--json"]) == 0
    found = {claim["id"]: claim for claim in json.loads(capsys.readouterr().out)}
    assert found.keys() == registry().keys()
    for name, claim in found.items():
        units = dict(read_result(TRACKED / f"claims/{name}.json", "claim").payload["units"])
        assert claim["outcome"] == units.pop("claim")["outcome"]
        assert claim["controls"] == {control: unit["outcome"] for control, unit in units.items()}
    assert main(["claims", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(found)
    assert all(line.endswith(f"{found[line.split()[0]]['outcome']}, as expected") for line in lines)


def test_a_claim_is_shown_with_text_rule_controls_and_verdict(capsys):
    claim = registry()["lemma_literal"]
    assert main(["claims", "show", "lemma_literal"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"lemma_literal ({claim.evidence}): refuted, as expected\n")
    assert all(f"\n{heading}: {body}" in said for heading, body in claim.text.items())
    assert claim.rule.text in said
    outcomes = {
        line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in said.splitlines()[-len(claim.controls) :]
    }
    assert outcomes == dict.fromkeys(claim.controls, "supported")


def test_records_of_other_code_are_not_believed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("theory.check.verdicts.TRACKED", tmp_path)
    assert main(["claims", "list"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("no verdicts: no records in ")
    assert all(line.endswith("not measured") for line in shown.out.splitlines()[1:])


@pytest.mark.parametrize("command", ["show", "run"])
def test_a_name_that_is_no_claim_is_refused_with_the_nearest(command, capsys):
    assert main(["claims", command, "lemma_litteral"]) == 2
    assert "no claim is called 'lemma_litteral'; did you mean 'lemma_literal'?" in capsys.readouterr().err


def process(*words: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sharp_maml", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_claim_is_measured_at_a_budget_and_options_go_on(tmp_path):
    done = process("claims", "run", "generalization_ball", "--budget", "smoke", "--jobs", "1", place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "too small" in done.stdout
    assert (tmp_path / "results/theory/claims/generalization_ball.json").exists()


@pytest.mark.slow
def test_the_table_gets_its_options_and_its_exit_code_comes_back(tmp_path):
    shown = process("table", "--tier", "demo", "--tracked", place=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "results/demo/table1.md").exists()
    refused = process("table", "--tier", "none", place=tmp_path)
    assert refused.returncode == 2
    assert "--tier" in refused.stderr
    helped = process("table", "--", "--help", place=tmp_path)
    assert (helped.returncode, helped.stdout.startswith("usage: python -m reproductions.tables")) == (0, True)


@pytest.mark.parametrize(
    ("words", "absent", "said"),
    [
        (["table", "--tracked"], "reproductions", "needs the folder reproductions/ of the repository"),
        (["claims", "list"], "theory", "needs the folder theory/ of the repository"),
        (["claims", "show", "rate_bound"], "theory.check.claim", "clone the repository of sharp-maml"),
        (["claims", "run", "rate_bound"], "theory.check", "pip install -e '.[table,theory]'"),
    ],
)
def test_without_the_repository_one_line_says_where_to_get_it(words, absent, said, monkeypatch, capsys):
    for name in [name for name in sys.modules if name == absent or name.startswith(f"{absent}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_package_that_an_extra_brings_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("theory.check")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    assert main(["claims", "list"]) == 2
    assert "needs the module scipy.special, which is not installed" in capsys.readouterr().err
