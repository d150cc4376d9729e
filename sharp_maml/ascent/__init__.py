"""Ascents by the name that the setting `ascent` has for them.

A new one is a function of parameters and gradient (`base.Direction`) in a file of its own, and a line in `ASCENTS`.
Read next: `gradient.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sharp_maml.ascent.asam import adaptive
from sharp_maml.ascent.drawn import at_random, on_half
from sharp_maml.ascent.gradient import along_gradient, ascent, within
from sharp_maml.base import Direction

__all__ = ["ASCENTS", "Ascent", "adaptive", "along_gradient", "ascent", "at_random", "on_half", "within"]


class Ascent(NamedTuple):
    """What both ascents go along.

    direction: The direction.
    norm_only: Whether it is made of the gradient of the normalisation layers' parameters alone.
    draws: Whether it draws numbers, which cannot be compiled.
    """

    direction: Direction
    norm_only: bool = False
    draws: bool = False

    def for_names(self, norm: Collection[str]) -> Direction:
        """The direction for a network whose normalisation layers have parameters of these names.

        Raises:
            ValueError: The direction is made of these parameters, and there are none.
        """
        if self.norm_only and not norm:
            raise ValueError("this ascent is along parameters of normalisation layers, and the network has none")
        return within(norm, self.direction) if self.norm_only else self.direction


ASCENTS: dict[str, Ascent] = {
    "gradient": Ascent(along_gradient),
    "asam": Ascent(adaptive),
    "random": Ascent(at_random, draws=True),
    "norm": Ascent(along_gradient, norm_only=True),
    "half": Ascent(on_half, draws=True),
}
