"""The sharpness-aware perturbation, and its direction in the source: the normalised gradient.

Both levels of Sharp-MAML are one function: `meta.py` applies it to an episode's support gradient (eps_m) and to the
meta-gradient (eps). Other directions lie beside this file, one per file; the setting `ascent` names them. Read next:
`meta.py`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from sharp_maml.base import Direction, Params, Pullback
from sharp_maml.tree import add_scaled, dot


def along_gradient(params: Params, grad: Params) -> tuple[Params, Pullback]:
    """u = g / |g|, with (du/dg)^T w = (w - u <u, w>) / |g|: the maximiser of the linearised loss over a ball.

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

    def pullback(w: Params) -> tuple[Params, Params]:
        across = add_scaled(w, unit, -dot(unit, w))
        return {}, {name: value * (reciprocal / largest) for name, value in across.items()}

    return unit, pullback


def masked(direction: Direction, params: Params, grad: Params, mask: Params) -> tuple[Params, Pullback]:
    """A direction of the gradient after a product with a mask of zeros and ones, entry by entry, and its pullback."""
    unit, pullback = direction(params, {name: value * mask[name] for name, value in grad.items()})

    def masked_pullback(w: Params) -> tuple[Params, Params]:
        of_params, of_grad = pullback(w)
        return of_params, {name: value * mask[name] for name, value in of_grad.items()}

    return unit, masked_pullback


def within(names: Collection[str], direction: Direction = along_gradient) -> Direction:
    """A direction made of the gradient of some parameters alone; the others have a zero gradient to it.

    Args:
        names: Names of parameters. Those that the gradient does not have are left out.
        direction: The direction.

    Returns:
        The direction; its vector has all the names of the gradient.

    Source: with the parameters of normalisation layers, Mueller et al., "Normalization Layers Are All That
    Sharpness-Aware Minimization Needs", NeurIPS 2023 (arXiv 2306.04226), where it does better than the ascent on all.
    """

    def restricted(params: Params, grad: Params) -> tuple[Params, Pullback]:
        return masked(
            direction, params, grad, {name: torch.full_like(value, name in names) for name, value in grad.items()}
        )

    return restricted


def ascent(params: Params, grad: Params, *, alpha: float | Tensor, direction: Direction = along_gradient) -> Params:
    """params + alpha * u, with the vector u of a direction; `params` where the gradient is zero.

    Args:
        params: Parameters.
        grad: Gradient on some or all of their names; the other names stay where they are.
        alpha: Radius, >= 0, in the units of the parameters; may be a tensor (one per lane under `vmap`). The Python
            number 0 skips all work.
        direction: What u is; by default the normalised gradient, and `alpha` the radius of a ball.

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
    unit, _ = direction(params, grad)
    return add_scaled(params, unit, alpha)
