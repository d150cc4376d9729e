"""The calibration of rules on made-up claims, whose operating curves are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sharp_maml import clopper_pearson, read_result, sources
from theory.check import calibration, planted
from theory.check.calibration import headline, main, table, too_small
from theory.check.claim import LEVEL, Budget, Claim, Evidence, Item, Rule, Unit, decide, registry
from theory.check.planted import calibrate, repeat
from theory.check.verdicts import TRACKED
from theory.rate.exponents import mean, slope

BUDGET = Budget("small", 8, 24, 40)
LEVELS = {"alone": LEVEL, "strictest": LEVEL / 20}
BOUND = Rule("at most", below=math.inf, above=0.0)
T = (64, 128, 256, 512)


def normal(budget: Budget, seed: int) -> Evidence:
    """The mean of nearly normal numbers, of standard deviation one twentieth, beside 1."""
    quantiles = stats.norm.ppf((np.arange(budget.seeds) + 0.5) / budget.seeds)
    return Evidence((mean("normal", 1 + 0.05 * quantiles, predicted=1.0),))


def skewed(budget: Budget, seed: int) -> Evidence:
    """The mean of numbers few of which are large."""
    values = np.random.default_rng(seed).lognormal(sigma=1.5, size=budget.seeds)
    return Evidence((mean("skewed", values, predicted=1.0),))


def exponents(budget: Budget, seed: int) -> Evidence:
    """Slopes of normal averages, and a number without noise."""
    noise = np.random.default_rng(seed).normal(size=(len(T), budget.seeds))
    averages = np.array(T)[:, None] ** -0.5 * (1 + 0.1 * noise)
    return Evidence((slope("slope", T, averages, predicted=-0.5), Item("exact", -0.5, -0.5)))


def counted(budget: Budget, seed: int) -> Evidence:
    """A share of data sets."""
    return Evidence((Item.share("share", 240, 240, 0.95), Item.share("another", 239, 240, 0.95)))


def claim(rule: Rule, measure) -> Claim:
    return Claim(rule=rule, measure=measure, controls={"wrong": measure}, evidence="statistical", id="part_name")


def test_the_operating_curve_of_a_bound_is_that_of_a_t_test() -> None:
    found = calibrate(claim(BOUND, normal), BUDGET, 0, 2000, LEVELS)
    pool = normal(Budget("pool", 8, 96, 40), 0).items[0]
    assert (found["n"], found["pool"]) == (24, 96)
    for point in found["curve"]:
        # the deviation grows with the truth, since all values are multiplied
        away = (point["truth"] - 1) / (pool.error * 96**0.5 * point["truth"]) * 24**0.5
        for name, level in LEVELS.items():
            supported = np.nan_to_num(stats.nct.cdf(stats.t.ppf(level, 23), 23, away))  # no number where it underflows
            refuted = stats.nct.sf(stats.t.isf(level / 2, 23), 23, away)
            for outcome, expected in (("supported", supported), ("refuted", refuted)):
                count = round(2000 * point[outcome][name])
                seen = clopper_pearson(count, 2000, confidence=1 - 1e-4)
                assert seen.low <= expected <= seen.high, (point["truth"], outcome, name)


def test_a_share_has_its_operating_curve_exactly_and_beside_others_is_refuted_more_carefully() -> None:
    rule = Rule("at least 0.95", below=0.0, above=0.05)
    found = calibrate(claim(rule, counted), BUDGET, 0, 10, LEVELS)
    assert found["replications"] is None
    assert {point["truth"] for point in found["curve"]} >= {0.95, 0.975, 1.0}
    assert max(point["truth"] for point in found["curve"]) == 1.0
    for point in found["curve"]:
        k = np.arange(241)
        supported = stats.binom.sf(k - 1, 240, 0.95) <= LEVEL
        refuted = 2 * 2 * stats.binom.cdf(k, 240, 0.95) <= LEVEL
        chance = stats.binom.pmf(k, 240, point["truth"])
        assert point["supported"]["alone"] == pytest.approx(chance @ supported, abs=1e-12)
        assert point["refuted"]["alone"] == pytest.approx(chance @ refuted, abs=1e-12)


def test_it_decides_as_a_run_does() -> None:
    """At a level of Holm's last step, which is that of a claim run alone whose other p-value is rejected or not."""
    one = claim(Rule("near", 0.08, 0.08), exponents)
    made = repeat(exponents(BUDGET, 0).items[0], 50)
    for item in made.planted(-0.43)[0]:
        evidence = Evidence((item, Item("exact", -0.5, -0.5)))
        (verdict,) = decide({one.id: one}, dict.fromkeys((Unit(one.id, ""), Unit(one.id, "wrong")), evidence),
                            dict.fromkeys((Unit(one.id, ""), Unit(one.id, "wrong")), 0.0))  # fmt: skip
        found = planted.decide(one.rule, [evidence], np.ones(1), {"holm": LEVEL / 4})
        assert (verdict.outcome == "supported") == bool(found["supported"]["holm"])
        assert (verdict.outcome == "refuted") == bool(found["refuted"]["holm"])


def test_a_planted_truth_is_where_it_was_put() -> None:
    made = repeat(exponents(Budget("", 8, 400, 40), 1).items[0], 400)
    items, _ = made.planted(-0.3)
    measured = [one.measured for one in items]
    error = np.std(measured) / 20
    assert abs(np.mean(measured) + 0.3) < 5 * error
    assert np.mean([one.error for one in items]) == pytest.approx(20 * error, rel=0.15)


def test_p_values_that_are_small_too_often_are_found_and_those_of_normal_numbers_are_not() -> None:
    found = {
        name: calibrate(claim(BOUND, measure), BUDGET, 0, 2000, LEVELS)
        for name, measure in {"normal": normal, "skewed": skewed}.items()
    }
    assert set(too_small({"claims": found})) == {"skewed"}
    share, number = found["normal"]["edge"]["outside"]["0.05"]
    assert clopper_pearson(round(2000 * share), 2000, confidence=0.999).low < 0.05
    assert "normal, at 1" in number


@pytest.fixture
def written(tmp_path, monkeypatch):
    rules = {"a_bound": (BOUND, normal), "a_share": (Rule("at least 0.95", 0.0, 0.05), counted),
             "a_slope": (Rule("near", 0.08, 0.08), exponents)}  # fmt: skip
    claims = {name: claim(*both) for name, both in rules.items()}
    monkeypatch.setattr(calibration, "registry", lambda: claims)
    monkeypatch.setattr(calibration, "sources", lambda module: {module: "0" * 16})  # made-up claims have no file
    assert main(["--replications", "50", "--output", str(tmp_path)]) == 0
    return tmp_path


def test_record_figure_and_page_come_from_one_run(written) -> None:
    result = read_result(written / "calibration.json", "calibration")
    record, page = result.payload, (written / "CALIBRATION.md").read_text()
    assert page == table(result, "calibration.json")
    assert headline(record) in page
    assert list(record["claims"]) == ["a_bound", "a_share", "a_slope"]
    assert record["decisions"] == 12
    assert result.provenance["commit"]
    assert (written / "calibration.png").stat().st_size > 10_000


def test_the_tracked_record_is_of_the_code() -> None:
    record = read_result(TRACKED / "calibration.json", "calibration").payload
    statistical = {name: claim for name, claim in registry().items() if claim.evidence == "statistical"}
    assert {name: found["sources"] for name, found in record["claims"].items()} == {
        name: sources(claim.module) for name, claim in statistical.items()
    }, "the record is of other code than today's: make calibration anew"


def test_numbers_below_one_are_refused(capsys) -> None:
    assert main(["--replications", "0"]) == 2
    assert "replications must be >= 1" in capsys.readouterr().err
