"""Every claim and its controls, from the registry: `pytest -m theory`."""

from __future__ import annotations

import os

import pytest

from theory.__main__ import SEED
from theory.check.budgets import TEST
from theory.check.claim import registry
from theory.check.report import report
from theory.check.verdicts import judge

pytestmark = pytest.mark.theory
CLAIMS = registry()


@pytest.fixture(scope="session")
def verdicts(request: pytest.FixtureRequest):
    """The claims whose tests run, measured at once and decided together."""
    asked = {item.callspec.params["name"] for item in request.session.items if hasattr(item, "callspec") and
             item.originalname == "test_the_claim_comes_out_as_expected_and_its_controls_do_not"}  # fmt: skip
    names = [name for name in CLAIMS if name in asked]
    return {verdict.claim.id: verdict for verdict in judge(names, TEST, SEED, jobs=os.cpu_count() or 1)}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_comes_out_as_expected_and_its_controls_do_not(name: str, verdicts) -> None:
    verdict = verdicts[name]
    assert verdict.passed, {control or "claim": outcome for control, outcome in verdict.outcomes.items()}
    assert verdict.evidence[""].curves, "a claim has a figure"
    text = report([verdict])
    assert all(" ".join(paragraph.split())[1:] in text for paragraph in verdict.claim.text.values())
