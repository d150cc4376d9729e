"""What a shift between training and test costs at a sharp and at a flat minimum of a function on a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from reproductions.method.plane import PLACES, RADIUS, SHIFT, WIDTHS, two_basins


def sketch(points: int = 4001, shown: int = 8) -> dict[str, Any]:
    """A sharp and a flat minimum on a line, and what a shift between training and test costs at each.

    The training function is `two_basins` on the first axis; the test function is the same, moved by `SHIFT`. The
    maximum over [x - a, x + a] is taken on a grid of spacing h, so that it is exact up to h sup|f'| / 2.

    Args:
        points: Points of the grid.
        shown: Every so many of them are recorded.

    Returns:
        Both functions, the ascent objective, and the numbers at the two minima.
    """
    x = np.linspace(-2.5, 2.5, points)
    h = float(x[1] - x[0])

    def train(at: NDArray[np.float64]) -> NDArray[np.float64]:
        both = torch.stack([torch.as_tensor(at), torch.zeros(len(at), dtype=torch.float64)], 1)
        return np.asarray(torch.func.vmap(two_basins)(both).numpy())

    f, moved = train(x), train(x - SHIFT)
    window = 2 * round(RADIUS / h) + 1
    highest = maximum_filter1d(f, window, mode="nearest")
    minima = {}
    for name, place in PLACES.items():
        near = np.flatnonzero(np.abs(x - place[0]) < 2 * WIDTHS[name])
        index = int(near[np.argmin(f[near])])
        minima[name] = {
            "x": float(x[index]),
            "train": float(f[index]),
            "test": float(moved[index]),
            "rise": float(highest[index] - f[index]),
        }
    inner = slice(window, -window)
    return {
        "shift": SHIFT,
        "radius": RADIUS,
        "x": x[::shown].tolist(),
        "train": f[::shown].tolist(),
        "test": moved[::shown].tolist(),
        "highest": highest[::shown].tolist(),
        "minimiser_of_train": float(x[inner][np.argmin(f[inner])]),
        "minimiser_of_highest": float(x[inner][np.argmin(highest[inner])]),
        "remainder": float(np.abs(np.gradient(f, h)).max() * h / 2),
        "minima": minima,
    }
