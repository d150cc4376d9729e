"""Directions that draw numbers: what the ascent along the gradient is compared with.

The gradient seeds the draw, so that it is the same in every process and after a resume, and another for each gradient.
Drawing cannot be compiled.
"""

from __future__ import annotations

import hashlib

import torch

from sharp_maml.ascent.gradient import along_gradient, masked
from sharp_maml.base import Params, Pullback


def on_half(params: Params, grad: Params) -> tuple[Params, Pullback]:
    """The normalised gradient of half of the entries, drawn anew for each gradient.

    It stands for the source's computation-efficient variant. Source: the stochastic weight perturbation of Du et al.,
    "Efficient Sharpness-aware Minimization", ICLR 2022.
    """
    generator = _generator(grad)
    draws = {name: torch.rand(value.shape, generator=generator) for name, value in grad.items()}
    return masked(along_gradient, params, grad, {name: (draws[name] < 0.5).to(value) for name, value in grad.items()})


def at_random(params: Params, grad: Params) -> tuple[Params, Pullback]:
    """A direction that is uniform on the sphere and knows nothing of the gradient: the control of the ascent."""
    generator = _generator(grad)
    normal = {name: torch.randn(value.shape, generator=generator).to(value) for name, value in grad.items()}
    unit, _ = along_gradient(params, normal)
    return unit, lambda w: ({}, {name: torch.zeros_like(value) for name, value in w.items()})


def _generator(grad: Params) -> torch.Generator:
    digest = hashlib.blake2b(digest_size=7)
    for value in grad.values():
        digest.update(value.detach().double().sum().cpu().numpy().tobytes())
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))
