"""What the figure of each claim of the generalization bound says, and how it is drawn."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sharp_maml.paper import wrapped
from theory.check.claim import LEVEL, Verdict
from theory.check.figures import ALLOWED, CONTROL, Plan, line, lines, plain_ticks

LEAST = 1e-8
"""Probabilities are drawn down to this one; smaller ones lie there."""


def probabilities(verdict: Verdict, axes: Axes, *, controls: tuple[str, ...] = ()) -> None:
    """Curves of probabilities in logarithms, as far as is of interest."""
    lines(verdict, axes, controls=controls)
    axes.set(yscale="log", ylim=(LEAST, 2))
    plain_ticks(axes)


def ranked(verdict: Verdict, axes: Axes) -> None:
    """Shares in ascending order with the intervals by which they are decided against one half."""
    items = sorted(verdict.evidence[""].items, key=lambda item: item.measured)
    found = np.array([(*item.interval(LEVEL / len(items)), item.measured) for item in items])
    low, high, share = found.T
    place = np.arange(len(items))
    for label, mine, color in (
        ("decided: larger", high < 0.5, "C1"),
        ("not decided", (low <= 0.5) & (high >= 0.5), "C7"),
        ("decided: smaller", low > 0.5, "C0"),
    ):
        axes.vlines(place[mine], low[mine], high[mine], color=color, lw=0.8)
        axes.plot(place[mine], share[mine], "o", color=color, markersize=2.5, label=label)
    axes.axhline(0.5, color="black", linestyle="--", label="one half")
    axes.set(xlabel="cell, in the order of its share", ylabel="share of data sets\nwith a smaller bound for up")


def shares(verdict: Verdict, axes: Axes) -> None:
    """The claim's and the controls' shares with their intervals, a row each, over what the rule allows."""
    items = verdict.evidence[""].items
    rows = [(item, item.label, False) for item in items]
    rows += [(verdict.evidence[name].items[0], name, True) for name in verdict.claim.controls]
    axes.axvspan(*verdict.claim.rule.region(items[0]), color=ALLOWED, lw=0, label="allowed")
    for y, (item, _, is_control) in enumerate(rows):
        look: dict[str, Any] = CONTROL | {"linestyle": "none"} if is_control else {"color": "C0", "marker": "o"}
        axes.plot(item.interval(), [y, y], color=look["color"])
        label = "control" if is_control else "claim"
        axes.plot(item.measured, y, label=label if y in (0, len(items)) else None, **look)
    axes.set_yticks(range(len(rows)), [wrapped(label, 26) for _, label, _ in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="coverage")


def over(verdict: Verdict, axes: Axes) -> None:
    """The claim's and the controls' numbers over the first number in their labels, over what the rule allows."""
    axes.axhspan(*verdict.claim.rule.region(verdict.evidence[""].items[0]), color=ALLOWED, label="allowed")
    markers = iter("ox+1234")
    for name, brought in verdict.evidence.items():
        x = [float(re.findall(r"= (\d+)", item.label)[0]) for item in brought.items]
        look: dict[str, Any] = (CONTROL if name else {"color": "C0"}) | {"marker": next(markers)}
        axes.plot(x, [item.measured for item in brought.items], label=name or "measured", **look)
    axes.set(xscale="log", yscale="log", xlabel=verdict.claim.axes[0], ylabel="measured / predicted")
    plain_ticks(axes)


def bounds(verdict: Verdict, axes: Axes) -> None:
    """Risk and maximum over the ball, with the two solutions."""
    for place, curve in enumerate(verdict.evidence[""].curves):
        is_point = curve.role == "points"
        line(axes, curve, color=("black", "C0", "C1", "C2")[place], marker="os"[place % 2] if is_point else "")
    axes.set(xlabel="x", ylabel="risk on the data")


def with_and_without(verdict: Verdict, axes: Axes) -> None:
    """A row a term: how likely a violation is with the whole bound, and without the term."""
    whole = verdict.evidence[""].items
    rows = zip(whole, verdict.claim.controls, strict=True)
    for y, (item, control) in enumerate(rows):
        without = verdict.evidence[control].items[0].measured
        axes.plot([max(item.measured, LEAST), without], [y, y], color="0.8", zorder=0)
        axes.plot(max(item.measured, LEAST), y, "o", color="C0", label=None if y else "whole bound")
        axes.plot(without, y, label=None if y else "control, without the term", **CONTROL | {"linestyle": "none"})
    axes.axvline(whole[0].predicted, color="black", linestyle="--", label="delta")
    axes.set_yticks(range(len(whole)), [name.removeprefix("without ") for name in verdict.claim.controls])
    axes.set(ylim=(len(whole) - 0.5, -0.5), xscale="log", xlabel="probability of a violation,\nor 10⁻⁸ if it is less")
    plain_ticks(axes)


FIGURES = {
    "as_trained": Plan(
        "As trained, Sharp-MAML's bound is the larger one in most cells that are decided, not the smaller.", (ranked,)
    ),
    "ball": Plan(
        "With deviation s the mean risk stays below the maximum over the ball; with deviation alpha it does not."
    ),
    "carried_over": Plan("The bound of SAM, carried over without C, is violated more often than delta allows."),
    "compare": Plan(
        "The minimiser of the maximum over the ball, x_up, need not be that of the risk, x_maml.", (bounds,)
    ),
    "coverage": Plan("The bound covers the risk as often as it must; without one of its terms it does not.", (shares,)),
    "gap": Plan("The gap falls with the root of n and of M, but for a new task no n helps."),
    "kl": Plan(
        "For the risk over support sets N must be M: with N = n M violations are too likely.",
        (partial(probabilities, controls=("over support sets, N = n M",)),),
    ),
    "maximum": Plan("The enclosure of the maximum over a ball is so narrow that its two ends coincide."),
    "perturbation": Plan("Where Sharp-MAML up ends, a perturbation raises the risk: the theorem's condition holds."),
    "sam_step": Plan(
        "One sample can turn a normalised ascent step round, whatever n is; a gradient step it cannot.",
        (partial(lines, paired="its bound"),),
    ),
    "square_root": Plan(
        "Without the square root a bound is violated nearly every second time; with it, hardly ever.", (probabilities,)
    ),
    "stability": Plan("What one sample of n can change is what gamma_A says, 2 beta L0^2 / n.", (over,)),
    "tail": Plan("Wherever the square root is small enough, the tail term is not needed."),
    "terms": Plan(
        "Every term of the bound is needed: without it violations are likelier than delta.", (with_and_without,)
    ),
}
"""By the name of the claim's file."""
