"""The lower level on a line: one step beside the exact arg min max."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from sharp_maml import Batch, Params, adapt


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
        seed: Seed of the draw, which all radii and steps share.

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
