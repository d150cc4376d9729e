"""Figures for print: one style (`paper.mplstyle`), a paper's widths, a sentence above, as pixels and as lines.

Matplotlib comes with the extra `figures`; nothing else of the core needs it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = "sharp_maml.paper"
COLUMN, PAGE = 3.3, 6.8
"""Inches: a column of a paper, for one panel, and both columns, for several."""


def wrapped(text: str, width: int) -> str:
    """A text in as few lines of so many characters as it needs, about equally long; a formula stays whole."""
    if "$" in text:
        return text
    count = len(textwrap.wrap(text, width))
    return "\n".join(next(rows for n in range(1, width + 1) if len(rows := textwrap.wrap(text, n)) <= count))


def say(figure: Figure, sentence: str) -> str:
    """Put a sentence above a figure, in lines that fit its width; returns them."""
    lines = wrapped(sentence, int(14 * figure.get_figwidth()))
    figure.suptitle(lines)
    return lines


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Save a figure as PNG and, beside it, as PDF, in a folder that is made for it, without date and version.

    Args:
        figure: What to save.
        path: The PNG file.
        options: More that `Figure.savefig` is given, for both.
    """
    from matplotlib import style

    path.parent.mkdir(parents=True, exist_ok=True)
    with style.context(STYLE):  # ticks are made when they are drawn
        figure.savefig(path, metadata={"Software": None}, **options)
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None}, **options)
