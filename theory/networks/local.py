"""Constants of the rate's theorem at one point: what its assumptions come to where a network is.

Losses are means over samples, which lie along the first dimension of every tensor of a batch: one sample is what the
algorithm draws, all of them stand for the expectation. A constant of a point is a lower bound of the constant that
holds everywhere: it can show that an assumed constant is exceeded, and never that one holds. Eigenvalues come from
Lanczos' method on the core's Hessian products. Derived here. Read next: `regime.py`, which measures trained networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from sharp_maml import (
    Batch,
    Episode,
    LossFn,
    MetaGradient,
    Params,
    QueryLoss,
    adapt,
    add_scaled,
    dot,
    hessian,
    mean,
    meta_loss,
    norm,
)

Function = Callable[[Params], Tensor]
"""Parameters -> a number (0-dimensional), twice differentiable."""

Gradient = Callable[[Params, Sequence[Episode]], MetaGradient]
"""The meta-gradient of an algorithm: `meta_gradient` with its settings."""

SCALES = (1.0, 0.1, 0.01)
"""Lengths at which quotients are taken, in units of the inner step."""

TOLERANCE = 1e-2
"""Relative accuracy of an eigenvalue; differences between networks and to the theorem are far larger."""


def extremes(operator: LinearOperator, *, tolerance: float = TOLERANCE) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of a symmetric operator, both from one run of Lanczos' method.

    Args:
        operator: `d x d`, symmetric, d > 2.
        tolerance: Relative accuracy of an eigenvalue.

    Returns:
        The two eigenvalues.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: The method did not converge.
    """
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    if not operator.matvec(start).any():  # the method cannot begin where a random vector is mapped to 0
        return 0.0, 0.0
    values = eigsh(operator, k=2, which="BE", v0=start, tol=tolerance, return_eigenvectors=False)
    return float(values.min()), float(values.max())


def operator_norm(operator: LinearOperator, *, tolerance: float = TOLERANCE) -> float:
    """The largest |eigenvalue| of a symmetric operator; arguments and errors are those of `extremes`."""
    low, high = extremes(operator, tolerance=tolerance)
    return max(-low, high)


def gradient(function: Function, params: Params) -> Params:
    """grad f(x), with the names of x."""
    return dict(torch.func.grad(function)(params))


def moved(params: Params, direction: Params, radius: float) -> Params:
    """x + r u, the point at a distance r > 0 along a vector of any length but 0."""
    return add_scaled(params, direction, radius / float(norm(direction)))


def gradient_quotient(function: Function, params: Params, direction: Params, radius: float) -> float:
    """|grad f(x + r u) - grad f(x)| / r, which no Lipschitz constant of grad f is below.

    It sees kinks between the two points, which no Hessian at a point does.

    Args:
        function: f.
        params: x.
        direction: A vector along u, of any length but 0.
        radius: r > 0.

    Returns:
        The quotient.
    """
    away = gradient(function, moved(params, direction, radius))
    return float(norm(add_scaled(away, gradient(function, params), -1.0))) / radius


def hessian_quotient(function: Function, params: Params, direction: Params, radius: float) -> float:
    """|Hess f(x + r u) - Hess f(x)| / r in the operator norm, which no Lipschitz constant of Hess f is below.

    Where the Hessian jumps between the two points, the quotient grows without bound as r shrinks.

    Args:
        function: f.
        params: x.
        direction: A vector along u, of any length but 0.
        radius: r > 0.

    Returns:
        The quotient.
    """
    away = hessian(function, moved(params, direction, radius))
    return operator_norm(away - hessian(function, params)) / radius


def deviation(vectors: Sequence[Params]) -> float:
    """The standard deviation sqrt(E |v - E v|^2) of independent vectors, its square without bias.

    Args:
        vectors: Samples of v, at least 2.

    Returns:
        The standard deviation.

    Raises:
        ValueError: There are fewer than two samples.
    """
    _at_least_two(len(vectors))
    centre = mean(vectors)
    away = [add_scaled(vector, centre, -1.0) for vector in vectors]
    return math.sqrt(sum(float(dot(one, one)) for one in away) / (len(vectors) - 1))


def hessian_deviation(functions: Sequence[Function], params: Params) -> float:
    """A proxy of sqrt(E |H - E H|^2) in the operator norm: the root of half the mean of |H - H'|^2 over pairs.

    With D^2 = E |H - H'|^2 of two independent samples the standard deviation lies between D/2 (the triangle inequality)
    and D (Jensen's), and the proxy is D / sqrt 2: exact where two values are equally probable and for a norm with an
    inner product, and never wrong by more than a factor of sqrt 2 up to the noise of the mean.

    Args:
        functions: Samples of f, at least 2, which make pairs in their order.
        params: x.

    Returns:
        The proxy.

    Raises:
        ValueError: There are fewer than two samples.
    """
    _at_least_two(len(functions))
    pairs = list(zip(functions[::2], functions[1::2], strict=False))
    squares = [operator_norm(hessian(one, params) - hessian(other, params)) ** 2 for one, other in pairs]
    return math.sqrt(sum(squares) / len(squares) / 2)


def bias(algorithm: Gradient, exact: Gradient, params: Params, tasks: Sequence[Episode]) -> tuple[Params, Params]:
    """The mean of an algorithm's meta-gradient over samples, less the meta-gradient of the mean losses; and the latter.

    With N samples per task the second stands for grad F up to an error that shrinks like 1/N, so that a bias that comes
    from the support samples is found short by about a share of 1/N. Both have noise: the inner product of what two
    independent sets of samples give has the square of the bias as its mean, which the square of one does not.

    Args:
        algorithm: The meta-gradient of one sample, with its perturbations.
        exact: The meta-gradient without them.
        params: x.
        tasks: M tasks with N samples each.

    Returns:
        The bias and grad F, with the names of x.
    """
    of_all = exact(params, tasks).grad
    number = len(tasks[0].support.targets)
    each = [algorithm(params, [sample(task, i) for task in tasks]).grad for i in range(number)]
    return add_scaled(mean(each), of_all, -1.0), of_all


def sample(task: Episode, *which: int) -> Episode:
    """Some samples of a task, along the first dimension of its tensors."""
    rows = list(which)
    return Episode(*(Batch(half.inputs[rows], half.targets[rows]) for half in task))


def of_task(
    loss: LossFn, query_loss: QueryLoss, params: Params, task: Episode, *, beta_low: float, steps: int, seed: int
) -> dict[str, float]:
    """The constants of one task at x and, those of the query loss, at T(x), which all of its support samples adapt.

    L1 and L2 are of the first sample of the support loss, Lq of that of the query loss: what the algorithm meets.

    Args:
        loss: Support loss, the mean over the samples of a batch.
        query_loss: Query loss, likewise.
        params: x.
        task: Samples of the task, at least 2.
        beta_low: Inner step size.
        steps: Number of inner steps.
        seed: Seed of the random direction.

    Returns:
        By name: the extreme eigenvalues of the support Hessian (`low`, `high`), `L0`, `L1`, `Lq`, `sg`, `sH`, `sq`; the
        norm of the support gradient (`slope`) and the length of the inner step (`step`); and for every scale, along
        the gradient and a random direction, the quotients of gradient and Hessian (`L1 gradient 0.1`, ...).
    """
    count = len(task.support.targets)
    episodes = [sample(task, i) for i in range(count)]
    supports = [_on(loss, one.support) for one in episodes]
    adapted = adapt(loss, params, task.support, beta_low=beta_low, steps=steps)
    adapted = {name: value.detach() for name, value in adapted.items()}
    slopes = [gradient(support, params) for support in supports]
    queries = [_on(query_loss, one) for one in episodes]
    of_queries = [gradient(query, adapted) for query in queries]
    first = supports[0]
    low, high = extremes(hessian(first, params))
    slope = float(norm(slopes[0]))
    step = beta_low * slope
    found = {
        "low": low,
        "high": high,
        "L0": float(norm(of_queries[0])),
        "L1": max(-low, high),
        "Lq": operator_norm(hessian(queries[0], adapted)),
        "sg": deviation(slopes),
        "sH": hessian_deviation(supports, params),
        "sq": deviation(of_queries),
        "slope": slope,
        "step": step,
    }
    generator = torch.Generator().manual_seed(seed)
    directions = {
        "gradient": {name: -value for name, value in slopes[0].items()},
        "random": {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in params.items()
        },
    }
    for name, direction in directions.items():
        for scale in SCALES:
            found[f"L1 {name} {scale:g}"] = gradient_quotient(first, params, direction, scale * step)
            found[f"L2 {name} {scale:g}"] = hessian_quotient(first, params, direction, scale * step)
    return found


def of_tasks(
    loss: LossFn,
    query_loss: QueryLoss,
    algorithm: Gradient,
    exact: Gradient,
    params: Params,
    tasks: Sequence[Episode],
    *,
    beta_low: float,
    steps: int,
) -> dict[str, float]:
    """What the meta-objective F of some tasks is like at x.

    Args:
        loss: Support loss, the mean over the samples of a batch.
        query_loss: Query loss, likewise.
        algorithm: The meta-gradient of the algorithm.
        exact: The meta-gradient without perturbations.
        params: x.
        tasks: M tasks with 2 N samples each, N > 0.
        beta_low: Inner step size.
        steps: Number of inner steps.

    Returns:
        By name: F on one sample of every task (`loss`), the extreme eigenvalues of its Hessian (`low`, `high`) and
        `L_F`; the square of the bias of the meta-gradient (`bias^2`) and of grad F (`slope^2`), both without bias,
        and so perhaps negative.
    """
    drawn = [sample(task, 0) for task in tasks]

    def objective(x: Params) -> Tensor:
        return meta_loss(loss, x, drawn, beta_low=beta_low, steps=steps, query_loss=query_loss)

    low, high = extremes(hessian(objective, params))
    number = len(tasks[0].support.targets) // 2
    halves = [range(number), range(number, 2 * number)]
    (one, slope), (other, another) = (
        bias(algorithm, exact, params, [sample(task, *half) for task in tasks]) for half in halves
    )
    with torch.no_grad():
        value = float(objective(params))
    return {
        "loss": value,
        "low": low,
        "high": high,
        "L_F": max(-low, high),
        "bias^2": float(dot(one, other)),
        "slope^2": float(dot(slope, another)),
    }


def _on(loss: Callable[[Params, Any], Tensor], data: Any) -> Function:
    """The loss on given data as a function of the parameters."""
    return lambda params: loss(params, data)


def _at_least_two(count: int) -> None:
    if count < 2:
        raise ValueError(f"a deviation needs at least 2 samples, got {count}: draw more")
