"""What the figure of each claim about networks says, and how it is drawn."""

from __future__ import annotations

from collections import Counter

from matplotlib.axes import Axes

from theory.check.claim import Verdict
from theory.check.figures import MARKERS, Plan

KINDS = {"minimum": "o", "saddle": "x", "maximum": "^"}


def points(verdict: Verdict, axes: Axes) -> None:
    """The stationary points of each objective: a colour an objective, a marker a kind."""
    objectives: dict[str, str] = {}
    for curve in verdict.evidence[""].curves:
        name, _, kind = curve.label.rpartition(": ")
        color = objectives.setdefault(name, f"C{len(objectives)}")
        axes.plot(curve.x, curve.y, KINDS[kind], color=color, markersize=4.5, label=curve.label)
    axes.set(xlabel=verdict.claim.axes[0], ylabel=verdict.claim.axes[1])


def numbers(verdict: Verdict, axes: Axes) -> None:
    """The number of points of MAML over that of ERM; the area of a marker is the number of instances."""
    largest = 0.0
    for place, curve in enumerate(verdict.evidence[""].curves):
        often = Counter(zip(curve.x, curve.y, strict=True))
        x, y = ([pair[i] + 0.12 * (place - 1.5) * (1 - 2 * i) for pair in often] for i in (0, 1))
        sizes = [2.0 * n for n in often.values()]
        axes.scatter(x, y, sizes, color=f"C{place}", marker=MARKERS[place], lw=0, alpha=0.8, label=curve.label)
        largest = max(largest, *curve.x, *curve.y)
    axes.plot([0, largest], [0, largest], "--", color="black", label="as many")
    axes.set(xlabel=verdict.claim.axes[0], ylabel=verdict.claim.axes[1])


FIGURES = {
    "counts": Plan(
        "Every stationary point of a neuron is enclosed, and all else excluded; a long step adds some.", (points,)
    ),
    "literal": Plan(
        "ReLU networks often have fewer stationary points with MAML than with ERM, or as many.", (numbers,)
    ),
}
"""By the name of the claim's file."""
