"""The shifts of a sensitivity record, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from reproductions.sensitivity.measure import REFERENCE, shifts
from sharp_maml.paper import say


def drawn(record: Mapping[str, Any]) -> Figure:
    """The shifts with their intervals over seeds, a point per seed, and the gains that the source prints."""
    moved = shifts(record["accuracies"])
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 1.4 + 0.42 * len(moved)), layout="constrained")
        axes = figure.subplots()
        colour, orange = "C0", "C1"
        for y, (name, estimate) in enumerate(moved.items()):
            own = [of_seed[name] - of_seed[REFERENCE] for of_seed in record["accuracies"].values()]
            axes.plot(own, [y] * len(own), "o", color=colour, alpha=0.35)
            if np.isfinite(estimate.low):
                axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2)
            axes.plot(estimate.mean, y, "D", color=colour, markersize=5)
        for label, gain in record["gains"].items():
            axes.axvline(gain, color=orange, linewidth=1)
            axes.annotate(
                f"{label}: {gain:+.2f}", (gain, -0.9), rotation=90, color=orange, fontsize=7, ha="right", va="top"
            )
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_yticks(range(len(moved)), list(moved))
        axes.set_ylim(len(moved) - 0.5, -1)
        axes.set_xlabel(
            f"shift of the accuracy of {record['label']}, percentage points; lines: gains printed by the source"
        )
        name, most = max(moved.items(), key=lambda pair: abs(pair[1].mean))
        least = min(map(abs, record["gains"].values()))
        moves = f"What moves the accuracy most, {name}, does so by {most.mean:+.2f} points"
        say(figure, f"{moves}; the least gain printed is {least:.2f}.")
    return figure
