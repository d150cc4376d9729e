"""Every claim has a figure, drawn from its tracked record: `pytest -m theory`."""

from __future__ import annotations

from pathlib import Path

import pytest

from theory.check.claim import registry
from theory.check.figures import draw
from theory.check.verdicts import TRACKED, read

pytestmark = pytest.mark.theory


@pytest.fixture(scope="module")
def verdicts():
    return {verdict.claim.id: verdict for verdict in read(TRACKED)}


@pytest.mark.parametrize("name", registry())
def test_a_claim_is_drawn_as_pixels_and_as_lines(name: str, verdicts, tmp_path: Path) -> None:
    path = draw(verdicts[name], tmp_path)
    assert path.stat().st_size > 10_000
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
