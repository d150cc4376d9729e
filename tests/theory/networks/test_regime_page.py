"""What the page makes of a record: ratios, ranges, and which networks are shown together."""

from __future__ import annotations

import math

import pytest

from sharp_maml import Result, read_result, sources
from tests.theory.networks.found import FOUND
from theory.check.verdicts import TRACKED
from theory.networks import regime_page
from theory.networks.regime_page import QUESTIONS, ratios, table, trained, verdicts

ORIGIN = {"commit": "c", "dirty": False, "sources": {}}
RECORD = {"settings": {"meta_batches": 2, "samples": 8}}


def test_ratios_are_those_of_the_theorem_written_out() -> None:
    found = ratios(FOUND)
    kappa, formula = 1 + 0.5 * 4, 9 * 3 + 0.5 * 6 * 2
    b = formula * 0.2 + 0.5 * (kappa * 3 * 4 + 6 * 2) * 0.1 + 3 * 0.5 * 0.3 * math.sqrt(9 + 0.25 * 0.25)
    without = formula * 0.2 + 0.5 * (kappa * 3 * 4 + 6 * 2) * 0.1
    noise = math.sqrt((9 * 0.49 + 0.25 * (kappa * 3 * 0.3 + 0.5 * 2) ** 2) / 4)
    lam = 0.01 * formula
    rest = 2 * 1.5 / (0.01 * 100) + lam * (b**2 + (noise + without) ** 2)
    G = ((1 - lam) * b + math.sqrt((1 - lam) ** 2 * b**2 + (2 - lam) * rest)) / (2 - lam)
    expected = {
        "step": 0.01 * 20, "fold": 0.5 * 4, "L1": 100.0, "L2": 100.0, "smoothness": 20 / formula,
        "bias": 0.1 / b, "informative": b / 0.5, "bound": G / 0.5,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert list(found) == list(regime_page.QUESTIONS)


def test_a_step_that_is_too_long_is_bounded_at_the_longest_that_is_allowed() -> None:
    long = {**FOUND, "config": {**FOUND["config"], "beta_up": 1.0}}
    allowed = {**FOUND, "config": {**FOUND["config"], "beta_up": 1 / (9 * 3 + 0.5 * 6 * 2)}}
    assert ratios(long)["step"] == pytest.approx(20)
    assert ratios(long)["bound"] == pytest.approx(ratios(allowed)["bound"])


def test_formulas_of_one_inner_step_say_nothing_of_several() -> None:
    several = ratios({**FOUND, "config": {**FOUND["config"], "steps": 5}})
    assert [name for name, value in several.items() if value is None] == ["smoothness", "bias", "informative", "bound"]
    networks = [{**FOUND, "config": {**FOUND["config"], "steps": 5}}]
    page = table(Result("regime", ORIGIN, {**RECORD, "networks": networks}), "regime.json")
    assert page.count("unknown |") == 8  # at the end, and along the training


def test_of_a_gradient_whose_square_is_estimated_as_negative_no_share_is_given() -> None:
    batches = [{**batch, "slope^2": -0.1} for batch in FOUND["meta_batches"]]
    found = ratios({**FOUND, "meta_batches": batches})
    assert [name for name, value in found.items() if value is None] == ["informative", "bound"]
    networks = [{**FOUND, "meta_batches": batches}]
    page = table(Result("regime", ORIGIN, {**RECORD, "networks": networks}), "regime.json")
    assert page.count("unknown |") == 5  # two ratios, twice, and the share of the bias


def test_a_record_of_other_code_is_said_to_be_one() -> None:
    payload = read_result(TRACKED / "regime.json", "regime").payload
    code = sources("theory.networks.local")
    assert "earlier code" not in table(Result("regime", {**ORIGIN, "sources": code}, payload), "")
    code["theory.networks.local"] = "0" * 16
    page = table(Result("regime", {**ORIGIN, "sources": code}, payload), "")
    assert "**Measured by earlier code**: theory.networks.local changed since; `make regime` measures anew." in page


def network(row: str, state: str, step: int, eta: float = 0.01, seed: int = 0, **others: object) -> dict[str, object]:
    """A network with another outer step, of a row, a state and a seed."""
    optimizer = "sgd" if row.endswith("-sgd") else "adam"
    config = {**FOUND["config"], "beta_up": eta, "seed": seed, "optimizer": optimizer}
    name = f"{row}, seed {seed}, {state}"
    return {**FOUND, "row": row, "state": state, "step": step, "name": name, "config": config, **others}


MIXED = {
    **RECORD,
    "networks": [
        network("all rows", "initial", 0),
        network("maml", "early", 20),
        network("maml", "best", 80),
        network("maml", "best", 100, eta=0.2, seed=1),
        network("maml-sgd", "best", 100, eta=0.5),
        network("maml", "early", 20, eta=0.03, data="miniimagenet"),
        network("maml", "best", 100, eta=0.04, data="miniimagenet"),
    ],
}
"""Two data sets, two optimizers, and states along the training; L_F is 20."""


def test_trained_is_the_last_state_of_every_training() -> None:
    found = [(one["row"], one["step"], one["config"]["seed"], one["data"]) for one in trained(MIXED)]
    assert found == [
        ("maml", 80, 0, "synthetic-images"),
        ("maml", 100, 1, "synthetic-images"),
        ("maml-sgd", 100, 0, "synthetic-images"),
        ("maml", 100, 0, "miniimagenet"),
    ]


def test_verdicts_are_of_trained_networks_and_tell_data_and_optimizers_apart() -> None:
    head, _, step, *rest = verdicts(MIXED)
    kinds = ["synthetic images, 16 pixels, Adam", "synthetic images, 16 pixels, SGD", "miniimagenet, 16 pixels, Adam"]
    assert head.split(" | ")[2:] == [*kinds[:2], f"{kinds[2]} |"]
    assert step.split(" | ")[2:] == [
        "**0.2 to 4**, above 1 at 1 of 2", "**10**, above 1 at 1 of 1", "0.8, above 1 at 0 of 1 |",
    ]  # fmt: skip
    assert len(rest) == len(regime_page.QUESTIONS) - 1


def test_the_states_of_a_row_are_shown_along_the_training() -> None:
    page = table(Result("regime", ORIGIN, MIXED), "regime.json")
    rows = [line.split(" | ")[:6] for line in page.splitlines() if line.count(" | ") == 12 and " of 100 " in line]
    kinds = ["miniimagenet, 16 pixels, Adam", "synthetic images, 16 pixels, Adam", "synthetic images, 16 pixels, SGD"]
    assert rows == [
        [f"| {kinds[0]}", "maml", "early", "20 of 100", "1", "0.6"],
        [f"| {kinds[0]}", "maml", "best", "100 of 100", "1", "0.8"],
        [f"| {kinds[1]}", "all rows", "initial", "0 of 100", "1", "0.2"],
        [f"| {kinds[1]}", "maml", "early", "20 of 100", "1", "0.2"],
        [f"| {kinds[1]}", "maml", "best", "80 or 100 of 100", "2", "**0.2 to 4**"],
        [f"| {kinds[2]}", "maml-sgd", "best", "100 of 100", "1", "**10**"],
    ]


def test_the_figure_has_a_colour_a_kind_and_a_point_a_ratio() -> None:
    left, right = regime_page.draw(MIXED).axes
    assert len(left.lines) == len(MIXED["networks"])
    assert len({line.get_color() for line in left.lines}) == 3
    points = sorted(float(x) for line in right.lines for x in line.get_xdata() if line.get_linestyle() == "None")
    expected = sorted(value for one in MIXED["networks"] for value in ratios(one).values() if value)
    assert points == pytest.approx(expected)


def test_the_figure_says_how_much_is_exceeded_everywhere_and_nowhere(monkeypatch) -> None:
    found = dict.fromkeys(QUESTIONS, 2.0) | {"fold": 1.0, "step": None, "bound": None, "bias": 0.5}
    other = found | {"bound": 3.0, "L1": 0.9}
    monkeypatch.setattr(regime_page, "ratios", lambda network: other if network["step"] == 80 else found)
    assert len(trained(MIXED)) > 1
    expected = "The theorem asks 8 things: 4 are exceeded at every trained network, and 2 at none."
    assert regime_page.says(MIXED) == expected
