"""Sharp-MAML: sharpness-aware model-agnostic meta-learning as pure functions of parameters.

This file is the public API. To read the package in order: `base.py`, `tree.py`, `ascent.py`, `meta.py`, `train.py`.
"""

from .ascent import ascent
from .base import (
    Batch,
    DataError,
    Episode,
    LossFn,
    MetaGradient,
    Method,
    NonFiniteError,
    Params,
    QueryLoss,
)
from .meta import adapt, meta_gradient, meta_loss, sharp_maml_method

__all__ = [
    "Batch",
    "DataError",
    "Episode",
    "LossFn",
    "MetaGradient",
    "Method",
    "NonFiniteError",
    "Params",
    "QueryLoss",
    "adapt",
    "ascent",
    "meta_gradient",
    "meta_loss",
    "sharp_maml_method",
]
