"""The frame: rules, decisions, and what a claim must have."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import theory
from theory.check.budgets import TEST
from theory.check.claim import HEADINGS, LEVEL, Claim, Evidence, Item, Rule, Unit, decide, load, paragraphs, registry
from theory.check.figures import Plan, draw
from theory.generalization import claims
from theory.generalization.claims import ball
from theory.generalization.figures import FIGURES

BOUND = Rule("at most", below=math.inf, above=0.0)
WITHIN = Rule("within 0.1", below=0.1, above=0.1)
numbers = st.floats(-5, 5)
errors = st.floats(0.01, 3)


def evidence(*measured: float, predicted: float = 0.0, error: float = 0.0, n: int = 1) -> Evidence:
    return Evidence(tuple(Item("x", value, predicted, error, n) for value in measured))


def claim(rule: Rule = WITHIN, expected: str = "supported", **controls: Evidence) -> Claim:
    return Claim(
        rule=rule,
        measure=lambda *_: evidence(0.0),
        controls={name: lambda *_, brought=brought: brought for name, brought in controls.items()},
        evidence="statistical",
        expected=expected,  # type: ignore[arg-type]
        id="part_name",
    )


def decided(of_claim: Evidence, *, rule: Rule = WITHIN, **controls: Evidence):
    one = claim(rule, **controls)
    brought = {Unit(one.id, ""): of_claim, **{Unit(one.id, name): given for name, given in controls.items()}}
    (verdict,) = decide({one.id: one}, brought, dict.fromkeys(brought, 0.0))
    return verdict


@given(numbers, numbers, errors, st.integers(2, 100))
def test_the_p_value_against_exceeding_a_bound_is_that_of_a_t_test(measured, predicted, error, n) -> None:
    outside, inside = BOUND.p_values(evidence(measured, predicted=predicted, error=error, n=n))
    t = (measured - predicted) / error
    assert outside == pytest.approx(stats.t.cdf(t, n - 1), abs=1e-12)
    assert inside == pytest.approx(min(1, 2 * stats.t.sf(t, n - 1)), abs=1e-12)


@given(numbers, errors, st.integers(2, 100))
def test_an_equivalence_is_two_one_sided_tests(measured, error, n) -> None:
    outside, inside = WITHIN.p_values(evidence(measured, error=error, n=n))
    above, below = stats.t.sf((measured + 0.1) / error, n - 1), stats.t.cdf((measured - 0.1) / error, n - 1)
    assert outside == pytest.approx(max(above, below), abs=1e-12)
    far = stats.t.sf((measured - 0.1) / error, n - 1), stats.t.cdf((measured + 0.1) / error, n - 1)
    assert inside == pytest.approx(min(1, 2 * min(far)), abs=1e-12)


@given(st.lists(st.tuples(numbers, errors), min_size=1, max_size=5))
def test_a_claim_is_supported_by_its_worst_item_and_refuted_by_any(values) -> None:
    items = [Item("x", measured, 0.0, error, 20) for measured, error in values]
    together = WITHIN.p_values(Evidence(tuple(items)))
    alone = [WITHIN.p_values(Evidence((item,))) for item in items]
    assert together[0] == max(p for p, _ in alone)
    assert together[1] == min(1.0, len(items) * min(p for _, p in alone))


@given(numbers, numbers)
def test_without_noise_a_number_is_inside_or_outside(measured, predicted) -> None:
    expected = (0.0, 1.0) if measured <= predicted else (1.0, 0.0)
    assert BOUND.p_values(evidence(measured, predicted=predicted)) == expected


def test_a_relative_region_scales_with_the_size_of_the_prediction() -> None:
    rule = Rule("five per cent", 0.05, 0.05, relative=True)
    assert rule.region(Item("x", 0.0, -2.0)) == pytest.approx((-2.1, -1.9))


def test_an_interval_is_students() -> None:
    low, high = Item("x", 3.0, 0.0, 0.5, 11).interval(0.05)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 10, 3.0, 0.5))
    assert Item("x", 3.0, 0.0).interval() == (3.0, 3.0)


@pytest.mark.parametrize(
    ("measured", "error", "outcome"), [(0.0, 0.001, "supported"), (1.0, 0.001, "refuted"), (0.0, 0.1, "inconclusive")]
)
def test_there_are_three_outcomes(measured, error, outcome) -> None:
    verdict = decided(evidence(measured, error=error, n=30), wrong=evidence(1.0))
    assert (verdict.outcome, verdict.passed) == (outcome, outcome == "supported")
    assert verdict.alarm == (outcome == "refuted")


@pytest.mark.parametrize(("control", "alarm"), [(evidence(0.0), True), (evidence(0.0, error=1.0, n=30), False)])
def test_a_claim_does_not_pass_without_its_control_coming_out_the_other_way(control, alarm) -> None:
    verdict = decided(evidence(0.0, error=0.001, n=30), wrong=control)
    assert verdict.outcome == "supported"
    assert (verdict.passed, verdict.alarm) == (False, alarm)


def test_a_literal_claim_that_is_false_is_expected_to_be_refuted_and_its_control_supported() -> None:
    one = claim(expected="refuted", restated=evidence(0.0))
    brought = {Unit(one.id, ""): evidence(1.0), Unit(one.id, "restated"): evidence(0.0)}
    (verdict,) = decide({one.id: one}, brought, dict.fromkeys(brought, 0.0))
    assert verdict.passed


def test_many_noisy_claims_are_decided_more_carefully_than_one() -> None:
    # t = 4.5 with 30 degrees of freedom has a one-sided p of 4.7e-5: below 0.001 alone, above 0.001 / 42
    just = evidence(0.0, error=0.1 / 4.5, n=31)
    assert decided(just).outcome == "supported"
    claims = {f"part_{i}": claim() for i in range(21)}
    brought = {Unit(name, ""): just if name == "part_0" else evidence(0.1, error=1.0, n=31) for name in claims}
    verdicts = decide(claims, brought, dict.fromkeys(brought, 0.0))
    assert verdicts[0].outcome == "inconclusive"


def test_a_number_on_the_edge_of_its_region_is_decided_either_way_with_the_p_value_of_its_t() -> None:
    inward, outward = (
        WITHIN.p_values(evidence(0.1 + t * 0.01, error=0.01, n=31)) for t in stats.t.ppf([LEVEL, 1 - LEVEL], 30)
    )
    assert inward[0] == pytest.approx(LEVEL)
    assert outward[1] == pytest.approx(2 * LEVEL)


def module(doc: str, one: Claim) -> ModuleType:
    made = ModuleType("theory.part.claims.name", doc)
    made.CLAIM = one  # type: ignore[attr-defined]
    return made


WHOLE = "Something.\n\n" + "\n\n".join(f"{heading}: about {heading}." for heading in HEADINGS)


def test_the_text_of_a_claim_is_its_docstring() -> None:
    loaded = load(module(WHOLE, claim(wrong=evidence(1.0))))
    assert loaded.id == "part_name"
    assert loaded.text == {heading: f"about {heading}." for heading in HEADINGS}


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_docstring_that_lacks_a_heading_is_refused(heading) -> None:
    with pytest.raises(ValueError, match=f"lacks {heading}"):
        load(module(WHOLE.replace(f"{heading}:", "Else:"), claim(wrong=evidence(1.0))))


def test_a_claim_without_a_control_is_refused() -> None:
    with pytest.raises(ValueError, match="has no control"):
        load(module(WHOLE, claim()))


def test_headings_count_at_the_beginning_of_a_line_only() -> None:
    assert paragraphs("Why: because.\n\nThe Source: is not one.") == {"Why": "because.\n\nThe Source: is not one."}


def test_every_file_of_claims_is_in_the_registry_under_its_folder_and_name() -> None:
    root = Path(theory.__path__[0])
    files = {f"{path.parts[-3]}_{path.stem}" for path in root.glob("*/claims/*.py") if path.stem != "__init__"}
    found = registry()
    assert set(found) == files
    assert all(one.controls and one.axes[0] and one.rule.text for one in found.values())
    assert TEST.log2_horizon <= 12


@pytest.fixture
def one_file_more(tmp_path, monkeypatch):
    """The registry with a copy of a claim's file, under another name, in a folder of the part's claims."""
    text = Path(str(ball.__file__)).read_text(encoding="utf-8")
    (tmp_path / "added.py").write_text(text.replace("RADIUS, NUMBER = 0.5, 500", "RADIUS, NUMBER = 0.4, 500"))
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(tmp_path)])
    monkeypatch.setitem(FIGURES, "added", Plan("The mean risk stays below the maximum over a smaller ball."))
    registry.cache_clear()
    yield registry()
    registry.cache_clear()
    sys.modules.pop("theory.generalization.claims.added", None)


def test_a_claim_is_added_by_its_file_and_the_sentence_of_its_figure(one_file_more, tmp_path) -> None:
    added = one_file_more["generalization_added"]
    measures = {"": added.measure, **added.controls}
    evidence_of = {Unit(added.id, name): measure(TEST, 0) for name, measure in measures.items()}
    (verdict,) = decide({added.id: added}, evidence_of, dict.fromkeys(evidence_of, 0.0))
    assert verdict.passed
    assert set(verdict.outcomes) == {"", "s = alpha, without the mass outside", "a step, without the mass outside"}
    assert draw(verdict, tmp_path).name == "generalization_added.png"


@given(st.data())
def test_the_p_values_of_a_share_are_those_of_exact_binomial_tests(data) -> None:
    n = data.draw(st.integers(1, 60))
    k = data.draw(st.integers(0, n))
    predicted, room = data.draw(st.floats(0.2, 0.8)), data.draw(st.floats(0.01, 0.19))
    outside, inside = Rule("near", room, room).p_values(Evidence((Item.share("x", k, n, predicted),)))

    def p_value(edge: float, alternative: str) -> float:
        return float(stats.binomtest(k, n, edge, alternative).pvalue)

    low, high = predicted - room, predicted + room
    assert outside == pytest.approx(max(p_value(low, "greater"), p_value(high, "less")), rel=1e-9)
    assert inside == pytest.approx(min(1, 2 * min(p_value(low, "less"), p_value(high, "greater"))), rel=1e-9)


@pytest.mark.parametrize(("k", "outcome"), [(300, "supported"), (285, "inconclusive"), (0, "refuted")])
def test_no_share_lies_beyond_one(k, outcome) -> None:
    rule = Rule("at least 0.95", below=0.0, above=0.05)
    assert decided(Evidence((Item.share("x", k, 300, 0.95),)), rule=rule, wrong=evidence(1.0)).outcome == outcome
    from_zero = Rule("at most 0.05", below=0.05, above=0.0)
    item = Item.share("x", 300 - k, 300, 0.05)
    assert decided(Evidence((item,)), rule=from_zero, wrong=evidence(1.0)).outcome == outcome


def test_a_share_has_clopper_and_pearsons_interval() -> None:
    exact = stats.binomtest(7, 20).proportion_ci(0.99, "exact")
    assert Item.share("x", 7, 20, 0.5).interval(0.01) == pytest.approx((exact.low, exact.high))


def test_shares_are_decided_together_with_all_other_numbers() -> None:
    """180 of 180 exclude 0.95 at a level of 1e-4; among 21 claims that is not enough."""
    item, rule = Item.share("x", 180, 180, 0.95), Rule("at least 0.95", below=0.0, above=0.05)
    assert item.interval(2e-4)[0] > 0.95
    assert decided(Evidence((item,)), rule=rule).outcome == "supported"
    claims = {"part_0": claim(rule), **{f"part_{i}": claim() for i in range(1, 21)}}
    brought = {Unit(name, ""): evidence(0.1, error=1.0, n=31) for name in claims} | {
        Unit("part_0", ""): Evidence((item,))
    }
    assert decide(claims, brought, dict.fromkeys(brought, 0.0))[0].outcome == "inconclusive"


def test_a_record_keeps_all_of_an_item_but_what_it_was_estimated_from() -> None:
    for item in (Item("x", 1.0, 2.0, 0.1, 7), Item.share("x", 3, 4, 0.5), Item("x", 0.0, 0.0, within=(0.0, 1.0))):
        assert Item(**item.to_dict()) == item
        assert "sample" not in item.to_dict()


def test_how_far_outside_is_in_half_widths_or_relative_to_the_only_edge() -> None:
    assert WITHIN.outside(Item("x", 1.15, 1.0)) == pytest.approx(0.5)
    assert WITHIN.outside(Item("x", 0.9, 1.0)) == pytest.approx(0.0)
    assert WITHIN.outside(Item("x", 1.05, 1.0)) == pytest.approx(-0.5)
    assert BOUND.outside(Item("x", 3.0, 2.0)) == pytest.approx(0.5)
    assert BOUND.outside(Item("x", 1.0, 0.0)) == math.inf
    assert Rule("at least 0.95", below=0.0, above=0.05).outside(Item("x", 0.9, 0.95)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("within", "outcome"),
    [((-0.05, 0.1), "supported"), ((0.05, 0.2), "inconclusive"), ((0.11, 0.2), "refuted"), ((-9, 9), "inconclusive")],
)
def test_an_interval_of_its_own_decides_an_item(within, outcome) -> None:
    item = Item("x", 0.0, 0.0, within=within)
    assert item.interval() == within
    assert decided(Evidence((item,)), wrong=evidence(1.0)).outcome == outcome


def test_the_position_is_in_units_of_the_room_on_its_side() -> None:
    rule = Rule("from 0.9 of the prediction to it", below=0.1, above=0.0)
    item = Item("x", 1.0, 1.0)
    assert [rule.position(item, value) for value in (0.9, 0.95, 1.0, 1.01)] == pytest.approx([-1, -0.5, 0, math.inf])
    assert WITHIN.position(item, 1.05) == pytest.approx(0.5)
    assert BOUND.position(Item("x", 1.0, 2.0), 1.0) == 0.5
