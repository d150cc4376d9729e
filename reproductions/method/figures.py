"""What is drawn of the record: paths, one iteration, and the lower level. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def drawn_trajectories(record: Mapping[str, Any]) -> Figure:
    """The paths from one start, and over the radius the share of starts that end in the flat basin."""
    found = record["trajectories"]
    colours = {name: f"C{place}" for place, name in enumerate(found["paths"])}
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _contours(left, found)
        for name, path in found["paths"].items():
            left.plot(*np.transpose(path), color=colours[name], linewidth=1.6, label=name)
            left.plot(*path[-1], "o", color=colours[name], markeredgecolor="white", zorder=4)
        left.set_title(f"meta-loss, and {found['steps']} iterations from one start, radius {found['radius']}")
        left.legend(loc="upper right")
        for name in found["paths"]:
            mine = [end for end in found["ends"] if end["variant"] == name]
            shares = [100 * end["flat"] / found["starts"] for end in mine]
            if name == "maml":
                right.axhline(shares[0], color=colours[name], linestyle="--", label=name)
            else:
                right.plot([end["radius"] for end in mine], shares, "o-", color=colours[name], label=name)
        right.set(xlabel="radius of each ascent", ylim=(0, 105))
        right.set_title(f"starts of {found['starts']} that end in the flat basin, %")
        right.legend()
    return figure


def drawn_step(record: Mapping[str, Any]) -> Figure:
    """One iteration of Sharp-MAML both, arrow by arrow."""
    found, step = record["trajectories"], record["trajectories"]["one_step"]
    colours = [f"C{place}" for place in range(4)]
    theta, eps = np.array(step["theta"]), np.array(step["eps"])
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.5), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, title, at in (
            (axes[0], "first pass: lower ascent and inner step", theta),
            (axes[1], "second pass at theta + eps, and the update", theta + eps),
        ):
            _contours(axis, found)
            axis.set(xlim=(-2.15, -0.75), ylim=(-0.35, 0.85), title=title)
            axis.plot(*at, "o", color="black", zorder=5)
            for m, eps_m in enumerate(step["eps_m"]):
                _arrow(axis, at, at + eps_m, colours[m], rf"$\epsilon_{m + 1}$")
        for axis, key, name in (
            (axes[0], "adapted", r"$\tilde\theta^1_{}$"),
            (axes[1], "adapted_above", r"$\tilde\theta^2_{}$"),
        ):
            for m, adapted in enumerate(step[key]):
                axis.plot(*adapted, "s", color=colours[m], zorder=5, label=name.replace("{}", str(m + 1)))
        axes[0].annotate(r"$\theta$", theta, xytext=(-14, -12), textcoords="offset points")
        _arrow(axes[1], theta, theta + eps, colours[3], r"$\epsilon$")
        axes[1].plot(*theta, "o", color="0.4", zorder=5)
        axes[1].plot(*step["next"], "*", color=colours[3], markersize=13, zorder=6, label=r"$\theta^{t+1}$")
        for axis in axes:
            axis.legend(loc="lower left")
    return figure


def drawn_lower_level(record: Mapping[str, Any]) -> Figure:
    """Distances to the exact lower level over the inner step."""
    rows = record["lower_level"]["rows"]
    alphas, places = (list(dict.fromkeys(row[key] for row in rows)) for key in ("alpha", "place"))
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 2.7), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, place in zip(axes, places, strict=True):
            for order, alpha in enumerate(alphas):
                mine = [row for row in rows if (row["alpha"], row["place"]) == (alpha, place)]
                for key, look, label in (("plain", "o--", None), ("sharp", "o-", f"alpha_low = {alpha}")):
                    axis.loglog(
                        [row["beta"] for row in mine], [row[key] for row in mine], look,
                        color=f"C{order}", label=label,
                    )  # fmt: skip
            axis.set(xlabel="beta_low", title=f"theta {place}")
        axes[0].set_ylabel("median distance to the exact arg min max")
        axes[0].legend(title="solid: Sharp-MAML's step\ndashed: plain gradient step")
    return figure


def _contours(axis: Axes, found: Mapping[str, Any]) -> None:
    axis.contourf(found["grid"], found["grid"], found["surface"], levels=24, cmap="Greys_r", alpha=0.75)
    for name, at in found["minima"].items():
        axis.plot(*at["x"], "P" if name == "flat" else "X", color="gold", markeredgecolor="black", zorder=3)
    axis.set_aspect("equal")


def _arrow(axis: Axes, start: Any, end: Any, colour: Any, label: str) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.8}, zorder=4)
    axis.annotate(label, (np.array(start) + end) / 2, color=colour, xytext=(4, 4), textcoords="offset points")
