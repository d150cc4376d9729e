"""Synthetic tasks: few-shot images made on the spot.

Names are imported when they are first used, so that `python -m synthetic.images` runs its module once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthetic.images import ClassProgram, class_program, contact_sheet, render_images, write_images

__all__ = ["ClassProgram", "class_program", "contact_sheet", "render_images", "write_images"]


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name in __all__:
        return getattr(import_module("synthetic.images"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
