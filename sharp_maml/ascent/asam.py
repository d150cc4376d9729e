"""The adaptive ascent of ASAM: a radius in proportion to each parameter, which no rescaling of the weights changes."""

from __future__ import annotations

from sharp_maml.ascent.gradient import along_gradient
from sharp_maml.base import Params, Pullback

ETA = 0.01
"""What is added to the size of a parameter, as in the source, so that one that is zero can move."""


def adaptive(params: Params, grad: Params, *, eta: float = ETA) -> tuple[Params, Pullback]:
    """u = T^2 g / |T g| with T = |theta| + eta, entry by entry.

    It maximises the linearised loss among the u with |T^-1 u| <= 1, so that a radius is a share of the parameters'
    sizes and not a length. With h = T g and v = h / |h|, u is T v, and from w come

        (du/dg)^T w = T z  and  (du/dtheta)^T w = sign(theta) (v w + g z),  where z = (dv/dh)^T (T w).

    Where an entry of theta is 0, |theta| has no derivative, and 0 is taken for it.

    Args:
        params: Parameters theta.
        grad: Gradient g on some or all of their names.
        eta: What is added to |theta|, >= 0. With 0, u at (c theta, g / c) is c u, as weights before a batch norm need.

    Returns:
        u on the names of `grad`, and its pullback, both parts on these names.

    Source: Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
    Networks", ICML 2021 (arXiv 2102.11600), with its elementwise operator on all parameters. The pullback is derived
    here.
    """
    size = {name: params[name].abs() + eta for name in grad}
    v, pullback = along_gradient(params, {name: size[name] * value for name, value in grad.items()})

    def adaptive_pullback(w: Params) -> tuple[Params, Params]:
        _, z = pullback({name: size[name] * value for name, value in w.items()})
        of_params = {name: params[name].sign() * (v[name] * w[name] + grad[name] * z[name]) for name in grad}
        return of_params, {name: size[name] * z[name] for name in grad}

    return {name: size[name] * value for name, value in v.items()}, adaptive_pullback
