"""Which code a number comes from: digests of a module and of all that it imports from this repository.

A result keeps them. A claim that was measured by other code is refused, so that no number stands in a report beside
code that would not give it; what other results show says which code has changed since. Docstrings, comments and blank
lines do not count, nor does what is not Python. A name that a package hands on is looked up where it is defined, so
that a claim that uses the meta-gradient does not depend on the trainer. Read next: `results.py`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository, where this package lies in it: an installed one is asked for no digest."""


def sources(module: str) -> dict[str, str]:
    """Digests of the code of a module and, through its imports, of all modules of this repository that it uses.

    Args:
        module: Its name, with the packages that it is in.

    Returns:
        Sixteen hexadecimal digits of SHA-256 by module, in alphabetical order.

    Raises:
        ValueError: The repository has no such module.
    """
    if _text(module) is None:
        raise ValueError(f"module must be one of the repository around {ROOT}, got {module}")
    found, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _imported(name) - found
    return {name: _digest(name) for name in sorted(found)}


def changed(held: Mapping[str, str]) -> list[str]:
    """The modules whose code today has another digest than the given one, or is gone."""
    return [module for module, digest in held.items() if _text(module) is None or _digest(module) != digest]


def joint_sources(parts: Iterable[Mapping[str, str] | None]) -> dict[str, str] | None:
    """The digests of what was measured in parts, some of them perhaps by earlier code.

    Args:
        parts: The digests of each part; None for a part that holds none.

    Returns:
        All of them, of a module with several the one that is not today's; None if any part holds none.
    """
    joint: dict[str, str] = {}
    for held in parts:
        if held is None:
            return None
        since = changed(held)
        joint |= {module: digest for module, digest in held.items() if module in since or module not in joint}
    return joint


@cache
def _text(module: str) -> str | None:
    """The source of a module; None if it is not of this repository."""
    place = ROOT.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_text(module) or "")


@cache
def _imported(module: str) -> set[str]:
    """The modules of this repository in which the names that a module imports are defined."""
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _text(alias.name) is not None}
        elif isinstance(node, ast.ImportFrom) and node.module and _text(node.module) is not None:
            found |= {_home(node.module, alias.name) for alias in node.names}
    return found


def _home(module: str, name: str) -> str:
    """The module that defines a name, which the given one may only hand on."""
    if _text(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and _text(node.module) is not None:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _home(node.module, alias.name)
    return module


@cache
def _digest(module: str) -> str:
    return hashlib.sha256("\n".join(_code(_text(module) or "")).encode()).hexdigest()[:16]


def _code(text: str) -> Iterator[str]:
    """The lines of a source text without docstrings, those of constants too, and comments."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            lines[first:last] = [""] * (last - first)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and lines[row - 1]:
            lines[row - 1] = lines[row - 1][:column]
    return (line.rstrip() for line in lines if line.strip())
