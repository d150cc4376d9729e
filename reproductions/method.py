"""The algorithm on problems that fit on a page, as records: `python -m reproductions.method`.

Three questions that the first notebook answers. Where do MAML and Sharp-MAML low, up and both go on two tasks with a
sharp and a flat minimum in the plane? What makes a sharp minimum bad, in the manner of the sketch of Keskar et al., but
computed? And how far is the *one step* that the algorithm takes at the lower level from the arg min max that the
problem asks for? Steps and gradients are the package's own. Read next: `notebooks/01_method.ipynb`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.optimize import minimize_scalar
from torch import Tensor

from sharp_maml import (
    Batch,
    Episode,
    Params,
    adapt,
    ascent,
    meta_gradient,
    meta_loss,
    provenance,
    write_atomically,
)

RECORD = Path(__file__).parent / "records" / "method.json"
VARIANTS = {"maml": (0, 0), "low": (1, 0), "up": (0, 1), "both": (1, 1)}
"""Whether the lower and the upper radius are on."""
RADIUS = 0.35
"""Of the balls in which minima are compared."""
BETA_LOW = 0.05
BETA_UP = 0.05
RADII = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
SHOWN_RADIUS = 0.7
STEPS = 300
SETTLING = 1000
START = (-1.35, 0.55)
"""Of the paths that are shown, on the slope of the sharp minimum."""
SIDE = 15
"""The other starts are a grid of so many points a side."""

PLACES = {"sharp": (-1.0, 0.0), "flat": (1.2, 0.0)}
DEPTHS = {"sharp": 1.0, "flat": 1.0}
WIDTHS = {"sharp": 0.22, "flat": 0.8}
SHIFT = 0.25
"""What the test function, or the second task, is moved by."""


def two_basins(x: Tensor) -> Tensor:
    """f(x) = 1.2 + |x|^2 / 20 - sum_k h_k exp(-|x - p_k|^2 / (2 w_k^2)), k in {sharp, flat}.

    Args:
        x: `2`.

    Returns:
        The value, 0-dimensional: a bowl with a narrow and a wide hole of the same depth.
    """
    value = 1.2 + (x**2).sum() / 20
    for name, place in PLACES.items():
        away = ((x - torch.tensor(place, dtype=x.dtype)) ** 2).sum()
        value = value - DEPTHS[name] * torch.exp(-away / (2 * WIDTHS[name] ** 2))
    return value


def loss(params: Params, batch: Batch) -> Tensor:
    """`two_basins` moved by `batch.inputs`, `2`."""
    return two_basins(params["x"] - batch.inputs)


def tasks() -> list[Episode]:
    """Two tasks: the function moved up and down by half of `SHIFT`; support and query are one."""
    moved = [Batch(torch.tensor([0.0, sign * SHIFT / 2], dtype=torch.float64), torch.empty(0)) for sign in (-1, 1)]
    return [Episode(batch, batch) for batch in moved]


def trajectories() -> dict[str, Any]:
    """Runs of every variant and radius from a grid of starts: the paths of one start, and in which basin each run ends.

    A run is `STEPS` iterations of the variant; then `SETTLING` of plain MAML show whose basin it has reached.

    Returns:
        The paths at `SHOWN_RADIUS`, the meta-loss on a grid, its two minima with their sharpness, and by radius the
        number of starts that end in each.
    """
    episodes = tasks()

    def objective(x: Tensor) -> Tensor:
        return meta_loss(loss, {"x": x}, episodes, beta_low=BETA_LOW)

    def gradient(x: Tensor, low: Tensor, up: Tensor) -> Tensor:
        return meta_gradient(loss, {"x": x}, episodes, beta_low=BETA_LOW, alpha_low=low, alpha_up=up).grad["x"]

    def run(x: Tensor, steps: int, low: Tensor, up: Tensor) -> Tensor:
        """Points `steps + 1 x lanes x 2`; a start and two radii a lane."""
        points = [x]
        for _ in range(steps):
            points.append(points[-1] - BETA_UP * torch.func.vmap(gradient)(points[-1], low, up))
        return torch.stack(points)

    off = torch.zeros(len(PLACES), dtype=torch.float64)
    ends = run(torch.tensor(list(PLACES.values()), dtype=torch.float64), SETTLING, off, off)[-1]
    minima = dict(zip(PLACES, ends, strict=True))
    side = torch.linspace(-2, 2, SIDE, dtype=torch.float64)
    starts = torch.cat([torch.tensor([START], dtype=torch.float64), torch.cartesian_prod(side, side)])
    cases = [("maml", 0.0)] + [(name, radius) for name in VARIANTS if name != "maml" for radius in RADII]
    radii = torch.tensor([[on * radius for on in VARIANTS[name]] for name, radius in cases], dtype=torch.float64)
    low, up = radii.repeat_interleave(len(starts), 0).unbind(1)
    path = run(starts.repeat(len(cases), 1), STEPS, low, up)
    off = torch.zeros_like(low)
    ends = run(path[-1], SETTLING, off, off)[-1].view(len(cases), len(starts), 2)[:, 1:]
    path = path.view(STEPS + 1, len(cases), len(starts), 2)[:, :, 0]
    counts = {name: ((ends - x).norm(dim=2) < 0.05).sum(1).tolist() for name, x in minima.items()}
    grid = torch.linspace(-2.2, 2.2, 111, dtype=torch.float64)
    row = torch.func.vmap(lambda y, x: objective(torch.stack([x, y])), (None, 0))
    return {
        "radius": SHOWN_RADIUS,
        "beta_low": BETA_LOW,
        "beta_up": BETA_UP,
        "steps": STEPS,
        "grid": grid.tolist(),
        "surface": torch.func.vmap(row, (0, None))(grid, grid).tolist(),
        "minima": {
            name: {
                "x": x.tolist(),
                "loss": float(objective(x)),
                "eigenvalue": float(torch.linalg.eigvalsh(torch.func.hessian(objective)(x))[-1]),
                "rise_in_ball": _rise_in_ball(objective, x, RADIUS),
            }
            for name, x in minima.items()
        },
        "paths": {
            name: path[:, index].tolist()
            for index, (name, radius) in enumerate(cases)
            if name == "maml" or radius == SHOWN_RADIUS
        },
        "starts": len(starts) - 1,
        "ends": [
            {"variant": name, "radius": radius, **{basin: counts[basin][index] for basin in counts}}
            for index, (name, radius) in enumerate(cases)
        ],
        "one_step": one_step(torch.tensor([-1.3, 0.2], dtype=torch.float64), episodes),
    }


def one_step(x: Tensor, episodes: Sequence[Episode], *, radius: float = 0.35, beta: float = 0.2) -> dict[str, Any]:
    """One iteration of Sharp-MAML both, every point of the algorithm box.

    Args:
        x: theta, `2`.
        episodes: The tasks.
        radius: alpha_low and alpha_up.
        beta: beta_low and beta_up, large enough to be seen.

    Returns:
        theta, eps_m, theta'_m in both passes, eps, and the new theta.
    """
    theta = {"x": x}

    def slope(at: Params, m: int) -> Params:
        return dict(torch.func.grad(loss)(at, episodes[m].support))

    above = [ascent(theta, slope(theta, m), alpha=radius)["x"] - x for m in range(len(episodes))]
    adapted = [adapt(loss, theta, task.support, beta_low=beta, alpha_low=radius)["x"].detach() for task in episodes]
    gradient = meta_gradient(loss, theta, episodes, beta_low=beta, alpha_low=radius).grad
    up = ascent(theta, gradient, alpha=radius)
    # eps_m of the first pass is used again
    adapted_above = [up["x"] - beta * slope({"x": up["x"] + eps}, m)["x"] for m, eps in enumerate(above)]
    final = meta_gradient(loss, theta, episodes, beta_low=beta, alpha_low=radius, alpha_up=radius).grad
    return {
        "radius": radius,
        "beta": beta,
        "theta": x.tolist(),
        "eps_m": [value.tolist() for value in above],
        "adapted": [value.tolist() for value in adapted],
        "eps": (up["x"] - x).tolist(),
        "adapted_above": [value.tolist() for value in adapted_above],
        "next": (x - beta * final["x"]).tolist(),
    }


def _rise_in_ball(objective: Callable[[Tensor], Tensor], x: Tensor, radius: float) -> float:
    """max over |e| <= radius of f(x + e) - f(x), on a polar grid of 64 radii and 256 angles."""
    r, angle = torch.meshgrid(
        torch.linspace(0, radius, 65, dtype=torch.float64)[1:],
        torch.linspace(0, 2 * math.pi, 257, dtype=torch.float64)[:-1],
        indexing="ij",
    )
    points = x + torch.stack([r * torch.cos(angle), r * torch.sin(angle)], -1).reshape(-1, 2)
    return float(torch.func.vmap(objective)(points).max() - objective(x))


def sketch(points: int = 4001, shown: int = 8) -> dict[str, Any]:
    """A sharp and a flat minimum on a line, and what a shift between training and test costs at each.

    The training function is `two_basins` on the first axis; the test function is the same, moved by `SHIFT`. The
    maximum over [x - a, x + a] is taken on a grid of spacing h, so that it is exact up to h sup|f'| / 2.

    Args:
        points: Of the grid.
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


def exact_lower_level(theta: float, *, alpha: float, beta: float) -> float:
    """argmin_y max_{|e| <= alpha} l(y + e) + (y - theta)^2 / (2 beta), l(x) = 1 - cos x, for beta < 1.

    The maximum is at an end of [y - alpha, y + alpha], or 2 where the interval holds a top of l. The sum is strongly
    convex, since a maximum of functions with l'' >= -1 is taken; its minimiser lies within beta of theta.

    Args:
        theta: Where the proximal term pulls to.
        alpha: Radius of the ball.
        beta: Inner step, in (0, 1).

    Returns:
        The minimiser, to about 1e-8.
    """

    def objective(y: float) -> float:
        holds_top = math.floor((y + alpha - math.pi) / (2 * math.pi)) > math.floor(
            (y - alpha - math.pi) / (2 * math.pi)
        )
        highest = 2.0 if holds_top else max(1 - math.cos(y - alpha), 1 - math.cos(y + alpha))
        return highest + (y - theta) ** 2 / (2 * beta)

    found = minimize_scalar(objective, bounds=(theta - beta, theta + beta), method="bounded", options={"xatol": 1e-12})
    return float(found.x)


def lower_level(instances: int = 200, seed: int = 0) -> dict[str, Any]:
    """How far one step is from the arg min max: plain, theta - beta l'(theta), and Sharp-MAML's, from `adapt`.

    Args:
        instances: theta drawn uniformly from (-pi, pi), and as many from (-alpha, alpha), near the minimum at 0.
        seed: Of the draw; the same draw for all radii and steps.

    Returns:
        For each radius, place and step the median distance of both to the exact solution and the share of instances in
        which the plain step is nearer; by radius and place the orders in beta, slopes of the medians.
    """
    drawn = np.random.default_rng(seed).uniform(-1, 1, instances)
    betas = np.geomspace(1e-3, 0.5, 10).tolist()
    empty = Batch(torch.empty(0), torch.empty(0))

    def wells(params: Params, _: Batch) -> Tensor:
        return 1 - torch.cos(params["x"])

    def step(thetas: NDArray[np.float64], beta: float, alpha: float) -> NDArray[np.float64]:
        def one(theta: Tensor) -> Tensor:
            return adapt(wells, {"x": theta}, empty, beta_low=beta, alpha_low=alpha)["x"]

        return np.asarray(torch.func.vmap(one)(torch.from_numpy(thetas)).numpy())

    rows, orders = [], []
    for alpha in (0.05, 0.2, 0.5):
        for place, width in (("anywhere", math.pi), ("near the minimum", alpha)):
            thetas, medians = width * drawn, []
            for beta in betas:
                exact = np.array([exact_lower_level(theta, alpha=alpha, beta=beta) for theta in thetas])
                plain, sharp = (np.abs(step(thetas, beta, radius) - exact) for radius in (0.0, alpha))
                medians.append((np.median(plain), np.median(sharp)))
                rows.append(
                    {
                        "alpha": alpha,
                        "place": place,
                        "beta": beta,
                        "plain": float(medians[-1][0]),
                        "sharp": float(medians[-1][1]),
                        "plain_is_nearer": float(np.mean(plain < sharp)),
                    }
                )
            plain_order, sharp_order = np.polyfit(np.log(betas), np.log(medians), 1)[0].tolist()
            orders.append({"alpha": alpha, "place": place, "plain": plain_order, "sharp": sharp_order})
    return {"instances": instances, "seed": seed, "rows": rows, "orders": orders}


def drawn_trajectories(record: Mapping[str, Any]) -> Figure:
    """The paths from one start, and over the radius the share of starts that end in the flat basin."""
    found = record["trajectories"]
    colours = dict(zip(VARIANTS, sns.color_palette("colorblind"), strict=False))
    with sns.axes_style("ticks"):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _contours(left, found)
        for name, path in found["paths"].items():
            left.plot(*np.transpose(path), color=colours[name], linewidth=1.6, label=name)
            left.plot(*path[-1], "o", color=colours[name], markeredgecolor="white", zorder=4)
        left.set_title(
            f"meta-loss, and {found['steps']} iterations from one start, radius {found['radius']}", fontsize=10
        )
        left.legend(loc="upper right")
        for name in VARIANTS:
            mine = [end for end in found["ends"] if end["variant"] == name]
            shares = [100 * end["flat"] / found["starts"] for end in mine]
            if name == "maml":
                right.axhline(shares[0], color=colours[name], linestyle="--", label=name)
            else:
                right.plot([end["radius"] for end in mine], shares, "o-", color=colours[name], label=name)
        right.set(xlabel="radius of each ascent", ylim=(0, 105))
        right.set_title(f"starts of {found['starts']} that end in the flat basin, %", fontsize=10)
        right.legend()
        sns.despine(ax=right)
    return figure


def drawn_step(record: Mapping[str, Any]) -> Figure:
    """One iteration of Sharp-MAML both, arrow by arrow."""
    found, step = record["trajectories"], record["trajectories"]["one_step"]
    colours = sns.color_palette("colorblind")
    theta, eps = np.array(step["theta"]), np.array(step["eps"])
    with sns.axes_style("ticks"):
        figure = Figure(figsize=(10.5, 5), layout="constrained")
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
            axis.legend(loc="lower left", fontsize=8)
    return figure


def drawn_sketch(record: Mapping[str, Any]) -> Figure:
    """Training and test function with the two minima; beside them the maximum over the ball."""
    found = record["sketch"]
    with sns.axes_style("ticks"):
        figure = Figure(figsize=(10.5, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        left.plot(found["x"], found["train"], label="training function")
        left.plot(found["x"], found["test"], "--", label=f"test function: moved by {found['shift']}")
        for name, at in found["minima"].items():
            left.annotate(
                "", (at["x"], at["test"]), (at["x"], at["train"]), arrowprops={"arrowstyle": "->", "color": "tab:red"}
            )
            left.annotate(
                f"{name}: +{at['test'] - at['train']:.2f}",
                (at["x"], at["test"]),
                xytext=(5, 6),
                textcoords="offset points",
            )
        left.set(xlabel="x", ylabel="loss", title="what a shift costs")
        right.plot(found["x"], found["train"], label="training function")
        right.plot(found["x"], found["highest"], color="tab:green", label=f"maximum within {found['radius']}")
        for key, colour in (("minimiser_of_train", "tab:blue"), ("minimiser_of_highest", "tab:green")):
            right.axvline(found[key], color=colour, linestyle=":")
        right.set(xlabel="x", title="what the upper level minimises; dotted: minimisers")
        for axis in (left, right):
            axis.legend(fontsize=8, loc="upper center")
        sns.despine(fig=figure)
    return figure


def drawn_lower_level(record: Mapping[str, Any]) -> Figure:
    """Distances to the exact lower level over the inner step."""
    rows = record["lower_level"]["rows"]
    alphas, places = (list(dict.fromkeys(row[key] for row in rows)) for key in ("alpha", "place"))
    with sns.axes_style("ticks"):
        figure = Figure(figsize=(10.5, 3.8), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, place in zip(axes, places, strict=True):
            for colour, alpha in zip(sns.color_palette("colorblind"), alphas, strict=False):
                mine = [row for row in rows if (row["alpha"], row["place"]) == (alpha, place)]
                for key, style, label in (("plain", "o--", None), ("sharp", "o-", f"alpha_low = {alpha}")):
                    axis.loglog(
                        [row["beta"] for row in mine], [row[key] for row in mine], style,
                        color=colour, markersize=3.5, label=label,
                    )  # fmt: skip
            axis.set(xlabel="beta_low", title=f"theta {place}")
        axes[0].set_ylabel("median distance to the exact arg min max")
        axes[0].legend(fontsize=8, title="solid: Sharp-MAML's step\ndashed: plain gradient step", title_fontsize=8)
        sns.despine(fig=figure)
    return figure


def _contours(axis: Axes, found: Mapping[str, Any]) -> None:
    axis.contourf(found["grid"], found["grid"], found["surface"], levels=24, cmap="Greys_r", alpha=0.75)
    for name, at in found["minima"].items():
        axis.plot(*at["x"], "P" if name == "flat" else "X", color="gold", markeredgecolor="black", zorder=3)
    axis.set_aspect("equal")


def _arrow(axis: Axes, start: Any, end: Any, colour: Any, label: str) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.8}, zorder=4)
    axis.annotate(label, (np.array(start) + end) / 2, color=colour, xytext=(4, 4), textcoords="offset points")


def measure() -> dict[str, Any]:
    """The whole record."""
    return {
        "schema": 1,
        **provenance(),
        "trajectories": trajectories(),
        "sketch": sketch(),
        "lower_level": lower_level(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.method", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=RECORD, help=f"the record; default: {RECORD.name}, tracked")
    options = parser.parse_args(arguments)
    record = measure()
    try:
        write_atomically(options.output, (json.dumps(_rounded(record)) + "\n").encode())
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for end in record["trajectories"]["ends"]:
        print(
            f"{end['variant']}, radius {end['radius']}: {end['flat']} of {record['trajectories']['starts']} starts end "
            f"in the flat minimum, {end['sharp']} in the sharp one"
        )
    for order in record["lower_level"]["orders"]:
        print(
            f"alpha_low = {order['alpha']}, theta {order['place']}: the distance to the exact lower level is of order "
            f"{order['sharp']:.2f} in beta_low by Sharp-MAML's step, {order['plain']:.2f} by a plain one"
        )
    print(f"record: {options.output}")
    return 0


def _rounded(values: Any) -> Any:
    """Six significant digits, which is what is drawn."""
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


if __name__ == "__main__":
    sys.exit(main())
