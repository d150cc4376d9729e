"""Every sentence names its noun: in sources, pages and notebooks none begins with "Of ..." or "The same ...".

Pages below `docs/` are written from sources and records, and the sources are read here. Strings of code count, since
messages, headings and parts of pages are among them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "sharp_maml", "sharp_maml_command", "synthetic", "theory", "reproductions", "benchmarks", "publish", "notebooks",
    "examples", "requirements", "tests",
)  # fmt: skip
TEXTS = [
    path
    for path in (
        *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".ipynb")),
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("*.md"),
    )
    if path != Path(__file__)  # which has the words to name them
]
NOUNLESS = re.compile(r"""(?:^\s*|[.:!?"']\s+|["'#|-]\s*)((?:Of|The same|That of|Those of)\b.*)""", re.M)
KEPT = (
    "Of a drawn instance there is one",
    "Of {len(record['decisions'])} comparisons",
    "The same checkpoints in `support` mode",
    "The same core",
    "The same problem from a grid of starts",
    "The same work, executed otherwise",
)
"""Sentences that begin so and may: their noun is beside them."""


def nounless(text: str) -> list[str]:
    """The sentences of a text, to the end of their line, that begin with a reference to a noun and not with one."""
    return [found for found in NOUNLESS.findall(text) if not found.startswith(KEPT)]


def test_every_sentence_names_its_noun() -> None:
    texts = {path: nounless(path.read_text(encoding="utf-8")) for path in TEXTS}
    assert len(texts) > 300  # the folders were found
    assert {str(path.relative_to(ROOT)): found for path, found in texts.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        '"""Of the solver."""',
        '    """The same with another constant."""',
        "        seed: Of the starts.",
        "    The mean. That of a sample is larger.",
        "Returns:\n    Those of the checkpoint.",
        "# The same, executed otherwise.",
        '    "## Of tasks",',
        "| a claim | The same. | a chapter |",
        "- Of prior work",
    ],
)
def test_a_sentence_without_a_noun_is_found(text) -> None:
    assert len(nounless(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '"""Tolerance of the solver, the same for all."""',
        "        seed: Seed of the starts: of those alone.",
        "# Offsets of the same length. Those offsets are kept.",
        "The samples of a task and\nthose of another.",
        "## The same work, executed otherwise",
    ],
)
def test_a_sentence_with_a_noun_is_not(text) -> None:
    assert nounless(text) == []
