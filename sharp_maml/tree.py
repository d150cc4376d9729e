"""Arithmetic on parameters: the small vocabulary that the updates are written in.

Every function maps dictionaries to a new dictionary or to a 0-dimensional tensor, and works unchanged under
`torch.func` transforms. Read next: `ascent/gradient.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharp_maml.base import Params


def add_scaled(a: Params, b: Params, scale: float | Tensor) -> Params:
    """a + scale * b on the names of `b`; the other names of `a` are kept.

    Args:
        a: Parameters.
        b: Parameters whose names are among those of `a`, shapes equal name by name.
        scale: A number, or a 0-dimensional tensor (one per lane under `vmap`).

    Returns:
        New parameters with the names of `a`, in its order.
    """
    return {name: value + scale * b[name] if name in b else value for name, value in a.items()}


def dot(a: Params, b: Params) -> Tensor:
    """Sum over names of the inner products <a, b>, 0-dimensional; `a` and `b` have the same names."""
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()


def norm(a: Params) -> Tensor:
    """Euclidean norm over all entries of all names, 0-dimensional; not differentiable at zero."""
    return torch.sqrt(dot(a, a))


def mean(trees: Sequence[Params]) -> Params:
    """Mean of parameters that share their names; `trees` is not empty."""
    return {name: sum((tree[name] for tree in trees[1:]), trees[0][name]) / len(trees) for name in trees[0]}
