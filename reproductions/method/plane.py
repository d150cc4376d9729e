"""Two tasks in the plane with a sharp and a flat minimum: where the variants go, and one iteration arrow by arrow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, Params, adapt, ascent, meta_gradient, meta_loss

VARIANTS = {"maml": (0, 0), "low": (1, 0), "up": (0, 1), "both": (1, 1)}
"""Whether the lower and the upper radius are on."""
RADIUS = 0.35
"""Radius of the balls in which minima are compared."""
BETA_LOW = 0.05
BETA_UP = 0.05
RADII = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
SHOWN_RADIUS = 0.7
STEPS = 300
SETTLING = 1000
START = (-1.35, 0.55)
"""Start of the paths that are shown, on the slope of the sharp minimum."""
SIDE = 15
"""The other starts are a grid of so many points per side."""

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


def objective(x: Tensor) -> Tensor:
    """The meta-loss of the two tasks at x, `2`."""
    return meta_loss(loss, {"x": x}, tasks(), beta_low=BETA_LOW)


def run(x: Tensor, steps: int, low: Tensor, up: Tensor) -> Tensor:
    """Many runs at once.

    Args:
        x: Starts, `lanes x 2`.
        steps: Iterations.
        low: Radius of the lower ascent, `lanes`.
        up: Radius of the upper ascent, `lanes`.

    Returns:
        The points of each run, `steps + 1 x lanes x 2`.
    """
    episodes = tasks()

    def gradient(x: Tensor, low: Tensor, up: Tensor) -> Tensor:
        return meta_gradient(loss, {"x": x}, episodes, beta_low=BETA_LOW, alpha_low=low, alpha_up=up).grad["x"]

    points = [x]
    for _ in range(steps):
        points.append(points[-1] - BETA_UP * torch.func.vmap(gradient)(points[-1], low, up))
    return torch.stack(points)


def settled(x: Tensor) -> Tensor:
    """Where plain MAML goes from points, `lanes x 2`: the minima whose basins they are in."""
    off = torch.zeros(len(x), dtype=torch.float64)
    return run(x, SETTLING, off, off)[-1]


def trajectories() -> dict[str, Any]:
    """Runs of every variant and radius from a grid of starts: the paths of one start, and in which basin each run ends.

    A run is `STEPS` iterations of the variant; then `SETTLING` of plain MAML show whose basin it has reached.

    Returns:
        The paths at `SHOWN_RADIUS`, the meta-loss on a grid, its two minima with their sharpness, and by radius the
        number of starts that end in each.
    """
    minima = dict(zip(PLACES, settled(torch.tensor(list(PLACES.values()), dtype=torch.float64)), strict=True))
    side = torch.linspace(-2, 2, SIDE, dtype=torch.float64)
    starts = torch.cat([torch.tensor([START], dtype=torch.float64), torch.cartesian_prod(side, side)])
    cases = [("maml", 0.0)] + [(name, radius) for name in VARIANTS if name != "maml" for radius in RADII]
    radii = torch.tensor([[on * radius for on in VARIANTS[name]] for name, radius in cases], dtype=torch.float64)
    low, up = radii.repeat_interleave(len(starts), 0).unbind(1)
    path = run(starts.repeat(len(cases), 1), STEPS, low, up)
    ends = settled(path[-1]).view(len(cases), len(starts), 2)[:, 1:]
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
        "minima": {name: _minimum(x) for name, x in minima.items()},
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
        "one_step": one_step(torch.tensor([-1.3, 0.2], dtype=torch.float64), tasks()),
    }


def _minimum(x: Tensor) -> dict[str, Any]:
    """A minimum of the meta-loss with its sharpness."""
    return {
        "x": x.tolist(),
        "loss": float(objective(x)),
        "eigenvalue": float(torch.linalg.eigvalsh(torch.func.hessian(objective)(x))[-1]),
        "rise_in_ball": _rise_in_ball(x, RADIUS),
    }


def _rise_in_ball(x: Tensor, radius: float) -> float:
    """max over |e| <= radius of f(x + e) - f(x), f the meta-loss, on a polar grid of 64 radii and 256 angles."""
    r, angle = torch.meshgrid(
        torch.linspace(0, radius, 65, dtype=torch.float64)[1:],
        torch.linspace(0, 2 * math.pi, 257, dtype=torch.float64)[:-1],
        indexing="ij",
    )
    points = x + torch.stack([r * torch.cos(angle), r * torch.sin(angle)], -1).reshape(-1, 2)
    return float(torch.func.vmap(objective)(points).max() - objective(x))


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
