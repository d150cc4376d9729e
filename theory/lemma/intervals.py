"""Intervals of float64, many at a time, rounded outwards: whatever is computed with them holds the exact value.

Sums and products are widened to the next float on either side. Sine, cosine and hyperbolic tangent are widened by
`ERROR`, far more than the few units in the last place by which NumPy's are off (a test compares them with rigorous
balls). Read next: `field.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ERROR = 4e-15
"""Room for the error of an elementary function whose values lie in [-1, 1]."""
LARGEST_ANGLE = 1e4
"""Angles up to here have a sine and a cosine; beyond, the interval is [-1, 1]."""
NEAR = 1e-9
"""An angle this close to where a sine or cosine turns is taken to reach it."""


@dataclass(frozen=True, eq=False)
class Interval:
    """[low, high], elementwise."""

    low: Array
    high: Array

    @classmethod
    def point(cls, value: Array) -> Interval:
        """The interval that holds floats and nothing else."""
        return cls(value, value)

    @classmethod
    def around(cls, low: Array, high: Array) -> Interval:
        """[low, high], each moved outwards by one float."""
        return cls(np.nextafter(low, -np.inf), np.nextafter(high, np.inf))

    @property
    def middle(self) -> Array:
        """A float within."""
        return self.low / 2 + self.high / 2

    @property
    def width(self) -> Array:
        """high - low, rounded."""
        return self.high - self.low

    def __add__(self, other: Interval | float) -> Interval:
        """The sum."""
        other = _interval(other)
        return Interval.around(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval | float) -> Interval:
        """The difference."""
        other = _interval(other)
        return Interval.around(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval | float) -> Interval:
        """The product."""
        other = _interval(other)
        products = (self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high)
        return Interval.around(
            np.minimum(np.minimum(products[0], products[1]), np.minimum(products[2], products[3])),
            np.maximum(np.maximum(products[0], products[1]), np.maximum(products[2], products[3])),
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> Interval:
        """The difference from a number."""
        return _interval(other) - self

    def __neg__(self) -> Interval:
        """The negative."""
        return Interval(-self.high, -self.low)

    def square(self) -> Interval:
        """The square, never negative."""
        ends = np.square(self.low), np.square(self.high)
        low = np.where((self.low <= 0) & (self.high >= 0), 0.0, np.minimum(*ends))
        found = Interval.around(low, np.maximum(*ends))
        return Interval(np.maximum(found.low, 0.0), found.high)

    def cos(self) -> Interval:
        """The cosine: 1 or -1 where a multiple of pi lies within or near, otherwise the ends."""
        ends = np.cos(self.low), np.cos(self.high)
        low, high = np.minimum(*ends) - ERROR, np.maximum(*ends) + ERROR
        wild = (self.width >= 2 * math.pi) | (np.maximum(np.abs(self.low), np.abs(self.high)) > LARGEST_ANGLE)
        return Interval(
            np.where(wild | _meets(self, math.pi), -1.0, np.maximum(low, -1.0)),
            np.where(wild | _meets(self, 0.0), 1.0, np.minimum(high, 1.0)),
        )

    def sin(self) -> Interval:
        """The sine."""
        ends = np.sin(self.low), np.sin(self.high)
        low, high = np.minimum(*ends) - ERROR, np.maximum(*ends) + ERROR
        wild = (self.width >= 2 * math.pi) | (np.maximum(np.abs(self.low), np.abs(self.high)) > LARGEST_ANGLE)
        return Interval(
            np.where(wild | _meets(self, -math.pi / 2), -1.0, np.maximum(low, -1.0)),
            np.where(wild | _meets(self, math.pi / 2), 1.0, np.minimum(high, 1.0)),
        )

    def tanh(self) -> Interval:
        """The hyperbolic tangent, which increases."""
        return Interval(
            np.maximum(np.tanh(self.low) - ERROR, -1.0),
            np.minimum(np.tanh(self.high) + ERROR, 1.0),
        )

    def intersection(self, other: Interval) -> Interval:
        """The intersection of two enclosures of the same number."""
        return Interval(np.maximum(self.low, other.low), np.minimum(self.high, other.high))

    def holds(self, value: float) -> NDArray[np.bool_]:
        """Whether a number lies within."""
        return (self.low <= value) & (value <= self.high)

    def inside(self, other: Interval) -> NDArray[np.bool_]:
        """Whether this lies in the interior of another one."""
        return (other.low < self.low) & (self.high < other.high)


def _interval(value: Interval | float) -> Interval:
    return value if isinstance(value, Interval) else Interval.point(np.float64(value))  # type: ignore[arg-type]


def _meets(angle: Interval, turn: float) -> NDArray[np.bool_]:
    """Whether some turn + 2 pi k lies within NEAR of the interval."""
    first = np.ceil((angle.low - NEAR - turn) / (2 * math.pi))
    return turn + 2 * math.pi * first <= angle.high + NEAR
