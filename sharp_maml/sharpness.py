"""How sharp a minimum is: the loss on a plane, the spectrum of the Hessian, and Keskar's epsilon-sharpness.

Everything is measured of a function of the parameters, f: params -> a 0-dimensional tensor, which may be an inner loss
or the meta-loss of `meta.py`. The Hessian is never formed; its products are those of the core. With conv4 a Hessian of
the meta-loss is a third derivative and needs `batch_norm_form="elementary"`. Read next: `meta.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from sharp_maml.base import Batch, Params
from sharp_maml.estimates import Estimate, interval_over_seeds
from sharp_maml.meta import gradient_and_product
from sharp_maml.tree import add_scaled

Function = Callable[[Params], Tensor]
"""Parameters -> a number (0-dimensional), differentiable."""

_NO_DATA = Batch(torch.empty(0), torch.empty(0))


def filter_normalised_direction(params: Params, generator: torch.Generator) -> Params:
    """A random direction d with |d_f| = |x_f| for every filter f of the parameters x; 0 for scales, shifts and biases.

    A filter is what makes one output: the first index of a weight. The scale of a layer that a batch norm follows does
    not change the network; on such directions it does not change the picture either.

    Args:
        params: x; parameters of one dimension get a zero direction.
        generator: Draws the normal entries, on its device; same generator, same draw for all networks of one shape.

    Returns:
        The direction.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4.
    """
    direction = {}
    for name, value in params.items():
        drawn = torch.randn(value.shape, generator=generator, device=generator.device, dtype=torch.float32).to(value)
        if value.ndim < 2:
            direction[name] = torch.zeros_like(value)
            continue
        own, wanted = (tensor.flatten(1).norm(dim=1).view(-1, *[1] * (value.ndim - 1)) for tensor in (drawn, value))
        direction[name] = drawn * (wanted / own)
    return direction


@torch.no_grad()
def loss_on_plane(
    function: Function, params: Params, directions: tuple[Params, Params], coordinates: Sequence[float]
) -> NDArray[np.float64]:
    """f(x + a d_1 + b d_2) for all a, b among the coordinates.

    Args:
        function: f.
        params: x.
        directions: d_1 and d_2, with the names of `params`.
        coordinates: n numbers.

    Returns:
        The values, `n x n`: rows are a, columns are b.
    """
    first, second = directions
    rows = (add_scaled(params, first, a) for a in coordinates)
    return np.array([[float(function(add_scaled(row, second, b))) for b in coordinates] for row in rows])


def hessian(function: Function, params: Params) -> LinearOperator:
    """The Hessian of f at x as an operator on vectors that hold all parameters one after the other.

    The graph of the gradient is made once and kept as long as the operator.

    Args:
        function: f, twice differentiable.
        params: x.

    Returns:
        The operator, `d x d`, float64 outside and of the parameters' dtype inside.
    """
    grad, product = gradient_and_product(lambda x, _: function(x), params, _NO_DATA, None, keep_graph=True)
    size = sum(value.numel() for value in grad.values())

    def matvec(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return to_vector(product(from_vector(vector.ravel(), params)))

    return LinearOperator((size, size), matvec=matvec, dtype=np.float64)


def leading_eigenvalues(operator: LinearOperator, count: int, *, seed: int = 0, tolerance: float = 1e-3) -> list[float]:
    """The algebraically largest eigenvalues of a symmetric operator, by Lanczos' method.

    Args:
        operator: `d x d`, with `count` < d.
        count: How many.
        seed: Seed of the starting vector.
        tolerance: Relative accuracy of an eigenvalue.

    Returns:
        The eigenvalues, largest first.

    Raises:
        ValueError: `count` is out of range.
        scipy.sparse.linalg.ArpackNoConvergence: The method did not converge.

    Source: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide", 1998, through scipy.
    """
    size = operator.shape[0]
    if not 1 <= count < size:
        raise ValueError(f"count must be in [1, {size - 1}], got {count}")
    start = np.random.default_rng(seed).standard_normal(size)
    values = eigsh(operator, k=count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return sorted((float(value) for value in values), reverse=True)


def hessian_trace(operator: LinearOperator, samples: int, *, seed: int = 0) -> Estimate:
    """Hutchinson's estimate of a trace: the mean of z^T H z over vectors z of random signs.

    Args:
        operator: H, symmetric.
        samples: Vectors, at least 2.
        seed: Seed of the signs.

    Returns:
        The estimate with Student's 95% interval over the vectors.

    Raises:
        ValueError: There are fewer than two samples.

    Source: Hutchinson, Communications in Statistics 1989.
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, operator.shape[0]))
    return interval_over_seeds([float(z @ operator.matvec(z)) for z in signs])


def epsilon_sharpness(
    function: Function, params: Params, epsilon: float, *, iterations: int = 10, seed: int = 0
) -> float:
    """100 (max f(x + y) - f(x)) / (1 + f(x)) over the box |y_i| <= epsilon (|x_i| + 1).

    The maximum is sought by L-BFGS-B from a random point of the box, so that the value is a lower bound.

    Args:
        function: f, > -1 at x.
        params: x.
        epsilon: Relative size of the box, > 0.
        iterations: Iterations of the search, at most.
        seed: Seed of its starting point.

    Returns:
        The sharpness in per cent, >= 0.

    Raises:
        ValueError: `epsilon` is not positive.

    Source: Keskar et al., "On Large-Batch Training for Deep Learning", ICLR 2017, metric 2.1 with A = I; ten iterations
    are theirs.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    x = to_vector(params)
    half = epsilon * (np.abs(x) + 1)

    def negated(y: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        leaves = {name: value.requires_grad_() for name, value in from_vector(x + y, params).items()}
        value = function(leaves)
        grads = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return -float(value.detach()), -to_vector(dict(zip(leaves, grads, strict=True)))

    with torch.no_grad():
        here = float(function(params))
    start = np.random.default_rng(seed).uniform(-half, half)
    found = minimize(
        negated, start, jac=True, method="L-BFGS-B", bounds=np.stack([-half, half], 1), options={"maxiter": iterations}
    )
    return 100 * max(0.0, -float(found.fun) - here) / (1 + here)


def to_vector(params: Params) -> NDArray[np.float64]:
    """All parameters one after the other, in the order of their names' insertion."""
    return np.concatenate([value.detach().cpu().double().numpy().ravel() for value in params.values()])


def from_vector(vector: NDArray[np.float64], like: Params) -> Params:
    """The inverse of `to_vector`, with the shapes, dtypes and devices of `like`."""
    parts = np.split(vector, np.cumsum([value.numel() for value in like.values()])[:-1])
    return {
        name: torch.from_numpy(part).view(value.shape).to(value, copy=True)
        for part, (name, value) in zip(parts, like.items(), strict=True)
    }
