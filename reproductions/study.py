"""What the studies share: where records lie, filling a page, the console."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "records"

WIDTH = 100
"""Columns of the output where there is no terminal; every table fits them."""


def console(*, highlight: bool = True) -> Console:
    """Standard output: as wide as the terminal, or `WIDTH` columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=highlight)


def rounded(values: Any, digits: int) -> Any:
    """Numbers of a record, however nested, to so many significant digits; whatever is no float stays as it is."""
    if isinstance(values, dict):
        return {key: rounded(value, digits) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value, digits) for value in values]
    return float(f"{values:.{digits}g}") if isinstance(values, float) else values


def put_between(page: str, name: str, text: str) -> str:
    """A page with the text between its marks `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Marks that stand inside a line, as in a cell of a table, have the text on that line.

    Raises:
        ValueError: The page has not both marks, in this order.
    """
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    head, _, rest = page.partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise ValueError(f"the page needs the marks {begin} and {end}, in this order")
    newline = "\n" if rest.startswith("\n") else ""
    return f"{head}{begin}{newline}{text}{end}{tail}"
