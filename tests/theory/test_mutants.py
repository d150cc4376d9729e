"""The mutants: a list that fits the sources and its record, and what the theorem cannot see.

What the theorem cannot see, because it holds for any perturbation in the ball, is noticed by a closed form instead.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import sharp_maml
from sharp_maml import Result, read_result, write_result
from sharp_maml.ascent import along_gradient
from tests.theory import mutants
from tests.theory.mistakes import MUTANTS, Mutant
from tests.theory.mutants import ROOT, kept, main
from theory import runner
from theory.check.budgets import SMOKE
from theory.check.claim import Unit, decide, registry
from theory.check.verdicts import TRACKED
from theory.rate.claims import pieces


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_one_fragment_that_still_compiles(mutant: Mutant) -> None:
    compile(mutant.mutated((ROOT / mutant.file).read_text(encoding="utf-8")), mutant.file, "exec")
    assert mutant.new != mutant.old
    assert mutant.test or mutant.claim in registry()


def test_the_tracked_record_is_of_these_mutants_and_all_are_caught() -> None:
    entries = read_result(TRACKED / "mutants.json", "mutants").payload["mutants"]
    assert [entry["name"] for entry in entries] == [mutant.name for mutant in MUTANTS]
    assert list(kept(TRACKED / "mutants.json")) == [mutant.name for mutant in MUTANTS]
    assert all(entry["caught"] and not entry["dirty"] for entry in entries)


def test_a_fragment_that_has_moved_is_named() -> None:
    with pytest.raises(ValueError, match=r"gone: the fragment occurs 0 times in a\.py, not once"):
        Mutant("gone", "a.py", "x + 1", "x").mutated("x - 1")


HESSIAN = ["the Hessian product is left out of the meta-gradient", "the Hessian product is added"]
RIGHT, CAUGHT = {"test": "passed", "rate_pieces": "as expected"}, {"test": "failed", "rate_pieces": "refuted"}


@pytest.fixture
def said(monkeypatch):
    """What catchers say, in turn, in place of running them; and another commit."""
    answers: list[dict[str, str]] = []
    monkeypatch.setattr(mutants, "asked", lambda *_: (answers.pop(0), 1.0))
    # what is being worked on may have uncommitted changes
    monkeypatch.setattr(mutants, "provenance", lambda module: {"commit": "c" * 40, "dirty": False})
    return answers


def test_a_run_goes_on_where_it_was_cut_off(said, tmp_path, capsys) -> None:
    said += [RIGHT, CAUGHT, RIGHT, CAUGHT]
    for names in (HESSIAN[1:], HESSIAN, HESSIAN):
        assert main(["--only", *names, "--output", str(tmp_path)]) == 0
    assert not said  # each was asked once
    assert "2 of 2 caught" in capsys.readouterr().out
    entries = read_result(tmp_path / "mutants.json", "mutants").payload["mutants"]
    assert [entry["name"] for entry in entries] == HESSIAN
    assert f"2 of them: commit {'c' * 40}" in (tmp_path / "MUTANTS.md").read_text()


def test_what_was_found_at_another_commit_or_of_another_mutant_is_measured_anew(said, tmp_path) -> None:
    path = tmp_path / "mutants.json"
    for change in ({}, {"commit": "d" * 40}, {"dirty": True}, {"new": "pass"}):
        if change:
            (entry,) = read_result(path, "mutants").payload["mutants"]
            write_result(path, Result("mutants", {}, {"mutants": [{**entry, **change}]}))
        said += [RIGHT, CAUGHT]
        assert main(["--only", HESSIAN[0], "--output", str(tmp_path)]) == 0
        assert not said


@pytest.mark.parametrize(
    "answer",
    [{**CAUGHT, "test": "passed"}, {**CAUGHT, "rate_pieces": "undecided"}, {"process": "no answer"}],
    ids=str,
)
def test_a_mutant_that_something_lets_pass_is_told(said, tmp_path, capsys, answer) -> None:
    said += [RIGHT, answer]
    assert main(["--only", HESSIAN[1], "--output", str(tmp_path)]) == 1
    assert f"not caught by all that is named: {HESSIAN[1]}" in capsys.readouterr().out


def test_catchers_that_fail_without_a_mistake_are_told(said, tmp_path, capsys) -> None:
    said += [CAUGHT]
    assert main(["--only", HESSIAN[1], "--output", str(tmp_path)]) == 2
    assert "without a mistake not everything passes: {'test': 'failed'" in capsys.readouterr().err
    assert main(["--only", "nothing", "--output", str(tmp_path)]) == 2
    assert "no mutant matches nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_two_mutants_from_end_to_end(tmp_path) -> None:
    names = ["s without sqrt d", "the ascent descends"]
    assert main(["--only", *names, "--output", str(tmp_path)]) == 0
    entries = read_result(tmp_path / "mutants.json", "mutants").payload["mutants"]
    assert {entry["name"]: entry["said"] for entry in entries} == {
        names[0]: {"test": "failed", "generalization_ball": "refuted"},
        names[1]: {"test": "failed"},
    }


@pytest.mark.slow
def test_a_change_that_is_no_mistake_is_not_caught(monkeypatch, tmp_path, capsys) -> None:
    (one,) = [mutant for mutant in MUTANTS if mutant.name == "s without sqrt d"]
    monkeypatch.setattr(mutants, "MUTANTS", [replace(one, new=f"({one.old})")])
    assert main(["--output", str(tmp_path)]) == 1
    assert "test passed, generalization_ball as expected" in capsys.readouterr().out


def outcome(name: str) -> str:
    claim = replace(registry()[name], controls={})
    unit = Unit(name, "")
    (verdict,) = decide({name: claim}, {unit: claim.measure(SMOKE, 0)}, {unit: 0.0})
    return verdict.outcome


def _with_settings(monkeypatch, change) -> None:
    of = sharp_maml.meta_gradient
    for module in (pieces, runner):
        monkeypatch.setattr(module, "meta_gradient", lambda *a, **settings: of(*a, **change(settings)))
    monkeypatch.setattr(pieces, "gradients", cache(pieces.gradients.__wrapped__))


def wrong_sign(monkeypatch) -> None:
    """Descent in place of ascent."""
    broken = lambda params, grad: along_gradient(params, {name: -value for name, value in grad.items()})  # noqa: E731
    _with_settings(monkeypatch, lambda settings: {**settings, "direction": broken})


def eps_recomputed(monkeypatch) -> None:
    _with_settings(monkeypatch, lambda settings: {**settings, "perturbation": "recomputed"})


@pytest.mark.theory
@pytest.mark.parametrize("mutant", [wrong_sign, eps_recomputed], ids=lambda mutant: mutant.__name__)
def test_the_theorem_cannot_see_which_perturbation_in_the_ball_it_is(mutant, monkeypatch) -> None:
    mutant(monkeypatch)
    assert outcome("rate_pieces") == "supported"


def on_a_quartic() -> float:
    """The core's gradient after both ascents for l = x^4 / 12, q = (x - 1)^2 / 2 at x = 3, beta = 1/4."""
    episode = sharp_maml.Episode(*[sharp_maml.Batch(torch.zeros(1), torch.zeros(1))] * 2)
    result = runner.meta_gradient(
        lambda params, batch: params["x"] ** 4 / 12,
        {"x": torch.tensor(3.0, dtype=torch.float64)},
        [episode],
        query_loss=lambda params, episode: (params["x"] - 1) ** 2 / 2,
        beta_low=0.25,
        alpha_low=0.1,
        alpha_up=0.2,
    )
    return float(result.grad["x"])


def by_hand(x: float, z: float) -> float:
    """(1 - beta l''(z)) (x - beta l'(z) - 1), the meta-gradient at x with the inner step's gradient at z."""
    return (1 - z**2 / 4) * (x - z**3 / 12 - 1)


def test_a_closed_form_sees_the_sign(monkeypatch) -> None:
    up = 0.2 if by_hand(3, 3.1) > 0 else -0.2  # the support gradient 3^3/3 is positive: eps_m = +0.1
    assert on_a_quartic() == pytest.approx(by_hand(3 + up, 3.1 + up), rel=1e-12)
    wrong_sign(monkeypatch)
    assert on_a_quartic() != pytest.approx(by_hand(3 + up, 3.1 + up), rel=1e-3)


def test_a_closed_form_sees_a_recomputed_perturbation(monkeypatch) -> None:
    """Where the support gradient changes its sign between x and x + eps: reused eps_m points the old way."""

    def grad() -> float:
        episode = sharp_maml.Episode(*[sharp_maml.Batch(torch.zeros(1), torch.zeros(1))] * 2)
        return float(
            runner.meta_gradient(
                lambda params, batch: (params["x"] - 0.25) ** 4 / 12,
                {"x": torch.tensor(0.0, dtype=torch.float64)},
                [episode],
                query_loss=lambda params, episode: (params["x"] + 1) ** 2 / 2,
                beta_low=0.25,
                alpha_low=0.1,
                alpha_up=0.5,
            ).grad["x"]
        )

    def expected(eps: float) -> float:
        z = 0.5 + eps - 0.25  # the meta-gradient at 0 is positive: the upper ascent goes to 0.5
        return (1 - z**2 / 4) * (0.5 - z**3 / 12 + 1)

    assert grad() == pytest.approx(expected(-0.1), rel=1e-12)
    eps_recomputed(monkeypatch)
    assert grad() == pytest.approx(expected(0.1), rel=1e-12)
