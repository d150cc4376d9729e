"""The sharpness-aware perturbation: a step of fixed length along a direction made of the gradient.

Both levels of Sharp-MAML are this one function: `meta.py` applies it to an episode's support gradient (eps_m) and to
the meta-gradient (eps). The direction is the normalised gradient; the others stand for what the source's ascent is
compared with, and are named by the setting `ascent`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from sharp_maml.base import Params
from sharp_maml.tree import add_scaled, dot

Product = Callable[[Params], Params]

Direction = Callable[[Params], tuple[Params, Product]]
"""A direction of ascent: gradient g -> (u, w -> (du/dg)^T w), where u has length 1, or is 0 where g gives no direction.

All three have the names of g. The product is what a gradient that flows through u needs."""


def along_gradient(grad: Params) -> tuple[Params, Product]:
    """u = g / |g|, whose product is w -> (w - u <u, w>) / |g|: the maximiser of the linearised loss over a ball.

    The entries are divided by the largest of them first, so that the square neither overflows nor vanishes, and a zero
    norm is replaced before the root is taken: masking it afterwards would give NaN in a derivative.

    Source: the source's algorithm box; Foret et al., "Sharpness-Aware Minimization", ICLR 2021, eq. 2.
    """
    largest = torch.stack([value.detach().abs().amax() for value in grad.values() if value.numel()]).amax()
    is_zero = largest == 0
    largest = torch.where(is_zero, 1, largest)
    scaled = {name: value / largest for name, value in grad.items()}  # the reciprocal of a subnormal is infinite
    square = sum((value * value).sum() for value in scaled.values())
    reciprocal = torch.where(is_zero, 0, 1 / torch.sqrt(torch.where(is_zero, 1, square)))
    unit = {name: value * reciprocal for name, value in scaled.items()}

    def product(w: Params) -> Params:
        across = add_scaled(w, unit, -dot(unit, w))
        return {name: value * (reciprocal / largest) for name, value in across.items()}

    return unit, product


def on_norm(grad: Params) -> tuple[Params, Product]:
    """The normalised gradient of the parameters of normalisation layers alone, whose names begin with `norm`.

    Source: Mueller et al., "Normalization Layers Are All That Sharpness-Aware Minimization Needs", NeurIPS 2023
    (arXiv 2306.04226), where it does better than the ascent on all parameters.
    """
    return _masked(grad, {name: torch.full_like(value, name.startswith("norm")) for name, value in grad.items()})


def on_half(grad: Params) -> tuple[Params, Product]:
    """The normalised gradient of half of the entries, drawn anew for each gradient.

    It stands for the source's computation-efficient variant. Source: the stochastic weight perturbation of Du et al.,
    "Efficient Sharpness-aware Minimization", ICLR 2022.
    """
    generator = _generator(grad)
    draws = {name: torch.rand(value.shape, generator=generator) for name, value in grad.items()}
    return _masked(grad, {name: (draws[name] < 0.5).to(value) for name, value in grad.items()})


def at_random(grad: Params) -> tuple[Params, Product]:
    """A direction that is uniform on the sphere and knows nothing of the gradient: the control of the ascent."""
    generator = _generator(grad)
    normal = {name: torch.randn(value.shape, generator=generator).to(value) for name, value in grad.items()}
    unit, _ = along_gradient(normal)
    return unit, lambda w: {name: torch.zeros_like(value) for name, value in w.items()}


DIRECTIONS: dict[str, Direction] = {
    "gradient": along_gradient, "random": at_random, "norm": on_norm, "half": on_half,
}  # fmt: skip
"""Directions by the name that the setting `ascent` has for them."""


def ascent(params: Params, grad: Params, *, alpha: float | Tensor, direction: Direction = along_gradient) -> Params:
    """params + alpha * u, with the unit vector u of a direction; `params` where the gradient is zero.

    Args:
        params: Parameters.
        grad: Gradient on some or all of their names; the other names stay where they are.
        alpha: Radius of the ball, >= 0, in the units of the parameters; may be a tensor (one a lane under `vmap`). The
            Python number 0 skips all work.
        direction: What u is; by default the normalised gradient.

    Returns:
        The perturbed parameters.

    Raises:
        ValueError: `alpha` is a negative number.

    Source: the source's algorithm box (eps_m and eps); Foret et al., "Sharpness-Aware Minimization", ICLR 2021, eq. 2.
    """
    if not isinstance(alpha, Tensor):
        if alpha < 0:
            raise ValueError(f"alpha is a radius and must be >= 0, got {alpha}")
        if alpha == 0:
            return dict(params)
    unit, _ = direction(grad)
    return add_scaled(params, unit, alpha)


def _masked(grad: Params, mask: Params) -> tuple[Params, Product]:
    """The normalised gradient after a product with a mask of zeros and ones, entry by entry."""
    unit, product = along_gradient({name: value * mask[name] for name, value in grad.items()})
    return unit, lambda w: {name: value * mask[name] for name, value in product(w).items()}


def _generator(grad: Params) -> torch.Generator:
    """A generator that the gradient seeds, so that a draw is the same in every process and after a resume."""
    digest = hashlib.blake2b(digest_size=7)
    for value in grad.values():
        digest.update(value.detach().double().sum().cpu().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))
