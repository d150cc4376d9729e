"""Synthetic tasks: few-shot images made on the spot, and families of small tasks whose constants are known.

Names are imported when they are first used, so that `python -m synthetic.images` runs its module once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthetic.exact import Exact, ExactFamily
    from synthetic.family import Constants, Family, apart
    from synthetic.images import ClassProgram, class_program, contact_sheet, render_images, write_images
    from synthetic.logcosh import LogCosh
    from synthetic.opposed import Opposed
    from synthetic.polynomial import PolynomialRegression
    from synthetic.quadratic import Quadratic
    from synthetic.rational import Rational
    from synthetic.tanh import Tanh
    from synthetic.torus import FREQUENCIES, Torus
    from synthetic.wells import Wells
    from synthetic.welsch import Welsch

__all__ = [
    "FREQUENCIES",
    "ClassProgram",
    "Constants",
    "Exact",
    "ExactFamily",
    "Family",
    "LogCosh",
    "Opposed",
    "PolynomialRegression",
    "Quadratic",
    "Rational",
    "Tanh",
    "Torus",
    "Wells",
    "Welsch",
    "apart",
    "class_program",
    "contact_sheet",
    "render_images",
    "write_images",
]

_MODULES = {
    "FREQUENCIES": "torus",
    "ClassProgram": "images",
    "Constants": "family",
    "Exact": "exact",
    "ExactFamily": "exact",
    "Family": "family",
    "LogCosh": "logcosh",
    "Opposed": "opposed",
    "PolynomialRegression": "polynomial",
    "Quadratic": "quadratic",
    "Rational": "rational",
    "Tanh": "tanh",
    "Torus": "torus",
    "Wells": "wells",
    "Welsch": "welsch",
    "apart": "family",
    "class_program": "images",
    "contact_sheet": "images",
    "render_images": "images",
    "write_images": "images",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name in _MODULES:
        return getattr(import_module(f"synthetic.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
