"""The command, on the claims that take no time."""

from __future__ import annotations

import io
import math
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console

from sharp_maml import Result, read_result, sources, write_result
from theory.__main__ import listing, main, outcomes
from theory.check import verdicts
from theory.check.budgets import BUDGETS, SMOKE
from theory.check.calibration import headline
from theory.check.claim import registry
from theory.check.report import report

QUICK = ["--only", "generalization_ball", "--jobs", "1", "--budget", "smoke"]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, str]:
    """What the command writes, and what it prints."""
    place, printed = tmp_path_factory.mktemp("theory"), io.StringIO()
    with redirect_stdout(printed):
        assert main([*QUICK, "--output", str(place)]) == 0
    return place, printed.getvalue()


def test_it_writes_a_report_with_a_record_and_a_figure_a_claim(written) -> None:
    place, printed = written
    text = (place / "REPORT.md").read_text()
    assert "1 of 1 claims came out as expected" in text
    for line in (
        "**supported**",
        "figures/generalization_ball.png",
        "claims/generalization_ball.json",
        "| a step, without the mass outside | refuted |",
    ):
        assert line in text
    assert (place / "figures/generalization_ball.png").stat().st_size > 10_000
    assert (place / "figures/generalization_ball.pdf").exists()
    result = read_result(place / "claims/generalization_ball.json", "claim")
    record, origin = result.payload, result.provenance
    assert (record["id"], record["passed"], origin["budget"]["name"]) == ("generalization_ball", True, "smoke")
    assert record["units"]["a step, without the mass outside"]["outcome"] == "refuted"
    assert origin["commit"]
    assert "too small" in printed


def test_figures_and_report_come_from_the_records_alone(written, tmp_path) -> None:
    place, _ = written
    shutil.copytree(place / "claims", tmp_path / "claims")
    assert main(["--redraw", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "REPORT.md").read_text() == (place / "REPORT.md").read_text()
    assert (tmp_path / "figures/generalization_ball.png").exists()


def test_the_report_quotes_the_tracked_calibration(written) -> None:
    record = read_result(verdicts.TRACKED / "calibration.json", "calibration").payload
    assert headline(record) in (written[0] / "REPORT.md").read_text()


def test_a_report_of_records_of_two_commits_names_both(written, tmp_path) -> None:
    place, _ = written
    result = read_result(place / "claims/generalization_ball.json", "claim")
    for name, commit in {"generalization_ball": "abc", "rate_bound": "def"}.items():
        units = dict.fromkeys(("claim", *registry()[name].controls), result.payload["units"]["claim"])
        own = {"commit": commit, "dirty": commit == "def", "sources": sources(registry()[name].module)}
        one = Result("claim", {**result.provenance, **own}, {**result.payload, "id": name, "units": units})
        write_result(tmp_path / "claims" / f"{name}.json", one)
    text = report(verdicts.read(tmp_path))
    assert "1 of them: commit abc; " in text
    assert "1 of them: commit def with uncommitted changes; " in text


def test_records_that_are_missing_or_of_another_claim_are_refused(tmp_path, capsys) -> None:
    assert main(["--redraw", "--output", str(tmp_path)]) == 2
    assert "no records in" in capsys.readouterr().err
    write_result(tmp_path / "claims/generalization_ball.json", Result("claim", {}, {"units": {"claim": {}}}))
    assert main(["--redraw", "--output", str(tmp_path)]) == 2
    assert "not a record of a claim as it is now" in capsys.readouterr().err


def test_a_record_that_was_measured_by_other_code_is_refused(written, tmp_path, capsys) -> None:
    place, _ = written
    result = read_result(place / "claims/generalization_ball.json", "claim")
    assert result.provenance["sources"] == sources("theory.generalization.claims.ball")
    result.provenance["sources"]["theory.generalization.pac_bayes"] = "0" * 16
    write_result(tmp_path / "claims/generalization_ball.json", result)
    assert main(["--redraw", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "was measured by other code: theory.generalization.pac_bayes changed since" in error
    assert "`python -m theory --only generalization_ball --budget smoke" in error


def test_a_record_of_a_number_that_was_not_finite_is_refused_by_name(written, tmp_path, capsys) -> None:
    result = read_result(written[0] / "claims/generalization_ball.json", "claim")
    result.payload["units"]["claim"]["items"][0]["measured"] = math.inf
    write_result(tmp_path / "claims/generalization_ball.json", result)
    assert main(["--redraw", "--output", str(tmp_path)]) == 2
    assert "generalization_ball.json has numbers that are not finite: " in capsys.readouterr().err


def test_redrawn_records_have_the_text_of_today_and_are_decided_together(written, tmp_path) -> None:
    place, _ = written
    shutil.copytree(place / "claims", tmp_path / "claims")
    path = tmp_path / "claims/generalization_ball.json"
    result = read_result(path, "claim")
    old = {**result.payload, "text": {**result.payload["text"], "Why": "earlier words"}, "passed": False}
    write_result(path, Result("claim", result.provenance, old))
    assert main(["--redraw", "--output", str(tmp_path)]) == 0
    assert read_result(path, "claim") == result


def test_there_is_a_tracked_record_of_every_claim_by_the_code_of_today() -> None:
    assert [verdict.claim.id for verdict in verdicts.read(verdicts.TRACKED)] == list(registry())


def test_it_lists_the_claims(capsys) -> None:
    assert main(["--list"]) == 0
    assert "rate_bound" in capsys.readouterr().out


def test_an_unknown_claim_is_named_with_those_that_there_are(capsys) -> None:
    assert main(["--only", "rate_bond"]) == 2
    error = capsys.readouterr().err
    assert "rate_bond" in error
    assert "rate_bound" in error


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--seed", "-1"]])
def test_numbers_out_of_range_are_refused(arguments, capsys) -> None:
    assert main(arguments) == 2
    assert "must be" in capsys.readouterr().err


@pytest.mark.slow
def test_the_error_of_a_measurement_comes_through() -> None:
    with pytest.raises(ValueError, match="Overflow"):
        verdicts.judge(["rate_erm_limit"], SMOKE, 2**80, jobs=1)


def test_progress_is_told_in_order_and_what_took_longest_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(verdicts, "TRACKED", tmp_path)
    for name, seconds in {"generalization_kl": 1.0, "lemma_literal": 2.0}.items():
        one = Result("claim", {}, {"units": {"claim": {"seconds": seconds}}})
        write_result(tmp_path / f"claims/{name}.json", one)
    told: list[tuple[str, str]] = []
    names = ["generalization_kl", "lemma_literal", "generalization_ball"]
    verdicts.judge(
        names, SMOKE, 0, jobs=1,
        started=lambda unit: told.append(("started", str(unit))),
        finished=lambda unit: told.append(("finished", str(unit))),
    )  # fmt: skip
    assert told[0::2] == [("started", unit) for _, unit in told[1::2]]
    began = [unit for event, unit in told if event == "started" and unit.endswith(": claim")]
    assert began == [f"{name}: claim" for name in ("generalization_ball", "lemma_literal", "generalization_kl")]
    assert len(told) == 2 * sum(1 + len(registry()[name].controls) for name in names)


@pytest.mark.parametrize("width", [80, 100])
def test_outcomes_and_list_fit_the_terminal(width) -> None:
    tracked = verdicts.read(verdicts.TRACKED)
    for table in (*(outcomes(tracked, budget, width) for budget in BUDGETS.values()), listing(registry())):
        shown = io.StringIO()
        Console(file=shown, width=width).print(table)
        assert max(map(len, shown.getvalue().splitlines())) <= width
        assert "…" not in shown.getvalue()
        for name in registry():
            assert f"{name} " in shown.getvalue()
