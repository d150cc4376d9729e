"""The sharpness-aware perturbation: a step of fixed length along the normalised gradient.

Both levels of Sharp-MAML are this one function: `meta.py` applies it to an episode's support gradient (eps_m) and to
the meta-gradient (eps).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharp_maml.base import Params
from sharp_maml.tree import add_scaled


def direction(grad: Params) -> tuple[Params, Tensor]:
    """Unit vector grad / |grad| and the reciprocal norm 1 / |grad|; both are zero where the gradient is.

    The entries are divided by the largest of them first, so that the square neither overflows nor vanishes, and a zero
    norm is replaced before the root is taken: masking it afterwards would give NaN in a derivative.

    Args:
        grad: A gradient.

    Returns:
        The unit vector, with the names of `grad`, and 1 / |grad| (0-dimensional).
    """
    largest = torch.stack([value.detach().abs().amax() for value in grad.values() if value.numel()]).amax()
    is_zero = largest == 0
    largest = torch.where(is_zero, 1, largest)
    scaled = {name: value / largest for name, value in grad.items()}  # the reciprocal of a subnormal is infinite
    square = sum((value * value).sum() for value in scaled.values())
    reciprocal = torch.where(is_zero, 0, 1 / torch.sqrt(torch.where(is_zero, 1, square)))
    return {name: value * reciprocal for name, value in scaled.items()}, reciprocal / largest


def ascent(params: Params, grad: Params, *, alpha: float | Tensor) -> Params:
    """params + alpha * grad / |grad|: the maximiser of the linearised loss over a ball; `params` where grad is zero.

    Args:
        params: Parameters.
        grad: Gradient on some or all of their names; the other names stay where they are.
        alpha: Radius of the ball, >= 0, in the units of the parameters; may be a tensor (one a lane under `vmap`). The
            Python number 0 skips all work.

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
