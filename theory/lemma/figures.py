"""What the figure of each claim about stationary points says, and how it is drawn."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes

from theory.check.claim import Verdict
from theory.check.figures import Plan, line, lines, plain_ticks, scales

KINDS = {"minimum": "o", "saddle": "x", "maximum": "^", "flat": "s"}
COLOURS = {"ERM": "C1", "MAML": "C0"}


def landscape(verdict: Verdict, axes: Axes, *, case: str = "") -> None:
    """The objectives of ERM and of MAML with all their stationary points; curves were shifted, so no values."""
    for curve in verdict.evidence[""].curves:
        if not curve.label.startswith(case):
            continue
        name, _, kind = curve.label.removeprefix(case).strip().partition(": ")
        look = {"color": COLOURS[name], "marker": KINDS.get(kind, ""), "markersize": 4.5, "zorder": 2 + bool(kind)}
        label = f"{name}: {kind}" if kind else name
        axes.plot(curve.x, curve.y, label=label, linestyle="none" if kind else "-", **look)  # type: ignore[arg-type]
    axes.set(title=case, xlabel="x", yticks=[])
    axes.set_ylabel("loss")


def plane(verdict: Verdict, axes: Axes, *, objective: str) -> None:
    """The stationary points of one function of two parameters."""
    for curve in verdict.evidence[""].curves:
        name, kind = curve.label.split(": ")
        if name == objective:
            place = list(KINDS).index(kind)
            axes.plot(curve.x, curve.y, KINDS[kind], color=f"C{place}", markersize=4.5, label=kind)
    # Both objectives have the same window, so that they can be compared.
    points = [(x, y) for curve in verdict.evidence[""].curves for x, y in zip(curve.x, curve.y, strict=True)]
    (left, right), (bottom, top) = (
        (min(values) - room, max(values) + room)
        for values in zip(*points, strict=True)
        for room in [0.08 * (max(values) - min(values)) or 1.0]
    )
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set(title=objective, xlabel="x_1", ylabel="x_2")


def bifurcation(verdict: Verdict, axes: Axes) -> None:
    """Where the stationary points are, over the step."""
    for curve, color in zip(verdict.evidence[""].curves, ("C0", "C1"), strict=True):
        line(axes, curve, color=color, marker=".", markersize=2)
    scales(verdict, axes, ())


def histogram(verdict: Verdict, axes: Axes) -> None:
    """How many functions have how many stationary points."""
    (curve,) = verdict.evidence[""].curves
    axes.bar(curve.x, curve.y, color="C0", width=0.7, label=curve.label)
    axes.set(yscale="log", xlabel=verdict.claim.axes[0], ylabel=verdict.claim.axes[1], xticks=list(curve.x))
    plain_ticks(axes)


def phase(verdict: Verdict, axes: Axes) -> None:
    """Shares of sets of tasks: more points are lines, fewer are dashed, a colour a number of tasks."""
    for place, curve in enumerate(verdict.evidence[""].curves):
        look = (
            {"linestyle": "-", "marker": "o"} if curve.label.startswith("more") else {"linestyle": "--", "marker": "v"}
        )
        line(axes, curve, color=f"C{place // 2}", **look)
    axes.axvline(1, color="black", lw=0.6)
    scales(verdict, axes, ())


def gaps(verdict: Verdict, axes: Axes) -> None:
    """The inequality's two sides, one minus the other."""
    lines(verdict, axes)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_ylabel("right minus left side")


FIGURES = {
    "bifurcation": Plan(
        "The stationary points of one pair of tasks come and go with the inner step, at the steps predicted.",
        (bifurcation,),
    ),
    "common": Plan(
        "What is stationary for every task is stationary for MAML, which may have more points.", (landscape,)
    ),
    "core": Plan("From every start, gradient descent with the core ends in a minimum that was counted exactly."),
    "counterexamples": Plan(
        "MAML can have fewer stationary points than ERM (C2), more with several tasks (C5) and with one (C8).",
        tuple(partial(landscape, case=case) for case in ("C2", "C5", "C8")),
    ),
    "descent": Plan(
        "For one inner step MAML's objective lies below ERM's by at least what the inequality says.", (gaps,)
    ),
    "engines": Plan("On all these functions two engines that share no algorithm count the same.", (histogram,)),
    "fold": Plan(
        "Longer inner steps fold fewer of these polynomials, but give more of them a minimum that ERM has not."
    ),
    "literal": Plan(
        "As worded the lemma is false: here ERM has two minima, and MAML has one.",
        tuple(partial(landscape, case=case) for case in ("C0", "C1")),
    ),
    "morse": Plan(
        "A function that rises on both sides has one minimum more than maxima, and so has MAML's.",
    ),
    "phase": Plan(
        "One task: MAML never has fewer stationary points, and more only for beta_low L1 > 1. Several: either occurs.",
        (phase,),
    ),
    "single": Plan(
        "With one task MAML has as many stationary points as ERM for short inner steps, and more for long ones."
    ),
    "small_step": Plan("For every set of tasks there is a step below which ERM and MAML have equal numbers."),
    "tanh": Plan(
        "In a square of the plane every stationary point is enclosed, and their indices add up as they must.",
        tuple(partial(plane, objective=name) for name in ("ERM", "MAML, beta L1 = 9/10")),
    ),
    "torus": Plan(
        "On the torus minima less saddles plus maxima are 0, for ERM and for MAML.",
        tuple(partial(plane, objective=name) for name in ("ERM", "MAML, beta L1 = 9/10")),
    ),
}
"""By the name of the claim's file."""
