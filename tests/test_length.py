"""Modules and functions are short; `docs/decisions.md` names those that are not, with the reasons, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECISIONS = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
MODULE, FUNCTION = 400, 60
"""The most lines of a module, and of a function without its docstring."""


def too_long(name: str, text: str) -> Iterator[str]:
    """The name of a module, and those of its functions, that have more lines than they may."""
    if len(text.splitlines()) > MODULE:
        yield name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) is not None else None
            of_docstring = (said.end_lineno or 0) - said.lineno + 1 if said else 0
            if (node.end_lineno or 0) - node.lineno + 1 - of_docstring > FUNCTION:
                yield f"{name}: {node.name}"


def test_what_is_too_long_has_its_reason_among_the_decisions_and_nothing_else_has():
    paths = [
        path for path in ROOT.glob("[a-z]*/**/*.py") if path.relative_to(ROOT).parts[0] not in ("tests", "results")
    ]
    assert len(paths) > 150  # the folders were found
    every = {name for path in paths for name in too_long(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))}
    (reasons,) = re.findall(r"\*\*No module is longer than 400 .*?(?=\n\n|\Z)", DECISIONS, re.S)
    named = set(re.findall(r"`([^`]+\.py(?:: \w+)?)`", reasons))
    assert named == every


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\n" * 400, []),
        ("x = 1\n" * 401, ["a.py"]),
        ("def f():\n" + "    x = 1\n" * 59, []),
        ("def f():\n" + "    x = 1\n" * 60, ["a.py: f"]),
        ('def f():\n    """' + "\n" * 9 + '"""\n' + "    x = 1\n" * 59, []),
        ("class A:\n    async def f(self):\n" + "        x = 1\n" * 60, ["a.py: f"]),
    ],
    ids=("lines", "a line too many", "function", "a line too many in it", "docstring", "method"),
)
def test_lines_are_counted_without_docstrings(text, found):
    assert list(too_long("a.py", text)) == found
