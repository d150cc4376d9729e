"""What the figure of each claim of the rate says, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from theory.check.claim import Item, Verdict
from theory.check.figures import ALLOWED, CONTROL, MARKERS, Plan, lines, of_controls, plain_ticks, scales


def ratios(
    verdict: Verdict, axes: Axes, *, labels: Sequence[str] = (), limits: tuple[float, float] | None = None
) -> None:
    """The curves over what the rule allows; where controls have no curves, their numbers as levels."""
    axes.axhspan(*verdict.claim.rule.region(verdict.evidence[""].items[0]), color=ALLOWED, lw=0, label="allowed")
    lines(verdict, axes, labels=labels)
    levels = [] if of_controls(verdict) else [verdict.evidence[name].items[0] for name in verdict.claim.controls]
    away = sum(not limits[0] < item.measured < limits[1] for item in levels) if limits else 0
    for place, item in enumerate(levels):
        label = f"controls ({away} outside)" if away else "controls"
        axes.axhline(item.measured, label=None if place else label, **CONTROL | {"marker": ""})
    axes.set_ylim(limits)


def slopes(verdict: Verdict, axes: Axes, *, mine: str = "as the theorem asks", others: str = "controls") -> None:
    """Every curve over its first value, so that slopes can be compared, beside T^(-1/2)."""
    measured = [curve for curve in verdict.evidence[""].curves if curve.role == "measured"]
    for curves, label, look in (
        (measured, mine, {"color": "C0", "marker": "o", "alpha": 0.8}),
        (of_controls(verdict), others, CONTROL),
    ):
        for place, curve in enumerate(curves):
            axes.plot(curve.x, np.divide(curve.y, curve.y[0]), label=None if place else label, **look)
    horizons = np.array(sorted({x for curve in measured for x in curve.x}))
    axes.plot(horizons, (horizons / horizons[0]) ** -0.5, "--", color="black", label="T^(-1/2)")
    scales(verdict, axes, measured)
    axes.set(ylabel="average / its value\nat the first T")


def against(verdict: Verdict, axes: Axes, *, part: int = 0) -> None:
    """Each number over the predicted one, in logarithms for a bound from above; of controls what leaves the region.

    Colours tell apart what the labels have in their part of this number, between commas.
    """
    rule, is_bound = verdict.claim.rule, np.isinf(verdict.claim.rule.below)
    groups: dict[str, list[Item]] = {}
    for item in verdict.evidence[""].items:
        groups.setdefault(item.label.split(", ")[part], []).append(item)
    every = [item.predicted for item in verdict.evidence[""].items if item.predicted]
    ends = np.array([min(every), max(every)])
    for place, (label, items) in enumerate(groups.items()):
        _points(axes, items, label=label, color=f"C{place}", marker=MARKERS[place])
    wrong = [i for name in verdict.claim.controls for i in verdict.evidence[name].items if rule.outside(i) > 0]
    _points(axes, wrong, label="controls", **CONTROL)
    if is_bound:
        axes.plot(ends, ends, "--", color="black", label="equal")
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], ends[0] / 10))
        plain_ticks(axes)
    else:
        axes.fill_between(ends, ends - rule.below, ends + rule.above, color=ALLOWED, lw=0, label="allowed")
    axes.set(xlabel="bound" if is_bound else "predicted", ylabel="measured")


def _points(axes: Axes, items: Sequence[Item], **look: Any) -> None:
    x, ends = [item.predicted for item in items], np.array([item.interval() for item in items])
    axes.vlines(x, *ends.T, color=look["color"], lw=0.8)
    axes.plot(x, [item.measured for item in items], **look | {"linestyle": "none"})


SHOWN = (
    *(f"both, {data}" for data in ("fresh samples", "shared minibatches", "drawn instances")),
    "up, fresh samples",
    "low, fresh samples",
    "MAML",
)

FIGURES = {
    "algebra": Plan("For a long horizon nothing of the bound is left but its term of order T^(-1/2)."),
    "assumptions": Plan(
        "With kinked tasks the bias of the lower ascent does not vanish with its radius; no bias exceeds its constant.",
        (partial(lines, paired="its constant"),),
    ),
    "bound": Plan(
        "The average squared gradient norm stays below the bound that has every constant in it.",
        (partial(lines, labels=("maml", "both", "bound, maml", "bound, both"), paired="its bound"),),
    ),
    "constant": Plan(
        "Times the root of T, the average tends to the limit that was predicted, with and without perturbations.",
        (partial(lines, labels=("maml", "both", "limit", "leading coefficient of the bound")),),
    ),
    "erm_limit": Plan(
        "With the inner step that the theorem prescribes, MAML tends to plain SGD on the query losses.", (ratios,)
    ),
    "heavy_tails": Plan(
        "Where the query noise has a variance the rate holds; without one the average falls more slowly."
    ),
    "matches_maml": Plan("Sharp-MAML's average tends to that of MAML.", (partial(ratios, labels=SHOWN),)),
    "no_ascent_needed": Plan(
        "Perturbations that always point the same way do as well as those along the gradient.", (ratios,)
    ),
    "phase": Plan("The exponent of every term of the bound is the one that its step or radius predicts.", (against,)),
    "pieces": Plan(
        "No piece of the bound exceeds its constant; without any one of its terms some piece does.", (against,)
    ),
    "quarter": Plan(
        "Radii that fall as slowly as T^(-1/4) keep the rate; radii or inner steps that fall more slowly lose it.",
        (partial(slopes, mine="order T^(-1/4)", others="controls: T^(-1/5), T^(-1/8)"),),
    ),
    "separation": Plan(
        "On steep tasks with a smooth F the lower ascent loses the rate, and the upper one keeps it.",
        (partial(slopes, mine="up, and all on kinked tasks", others="controls: low and both, steep"),),
    ),
    "sharp": Plan(
        "On quadratics the average reaches the bound, and each of its terms alone.",
        (partial(ratios, limits=(0.98, 1.04)),),
    ),
    "slope": Plan(
        "Under the theorem's schedules the average falls as T^(-1/2); under wrong ones it does not.",
        (slopes,),
    ),
    "tail": Plan(
        "A run far above its bound is no more probable than Markov says, and with normal noise far less.", (lines,)
    ),
    "worst_case": Plan(
        "No smooth function is worse than the bound, and without a bias, b\u00a0=\u00a00, some function is as bad.",
        (partial(against, part=1),),
    ),
}
"""By the name of the claim's file."""
