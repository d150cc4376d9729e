"""Networks as pure functions of their parameters, by the name that the setting `model` has for them.

A model is mostly a pair: `init` draws parameters from an explicit generator, `logits` maps parameters and inputs to
class scores. A new network is a function (`Network`) in a file of its own, and a line in `MODELS`. Read next:
`model.py`, `conv4.py`.
"""

from __future__ import annotations

from typing import Protocol

from sharp_maml.models.conv4 import conv4
from sharp_maml.models.mlp import mlp
from sharp_maml.models.model import Form, Model, in_bfloat16
from sharp_maml.models.module import from_module
from sharp_maml.models.resnet12 import resnet12

__all__ = ["MODELS", "Form", "Model", "Network", "conv4", "from_module", "in_bfloat16", "mlp", "resnet12"]


class Network(Protocol):
    """A network of images: from its settings to a model, whose arguments are those of `conv4`."""

    def __call__(
        self, *, ways: int | None, filters: int, image_size: int, channels: int, batch_norm_form: Form
    ) -> Model:
        """The model."""


MODELS: dict[str, Network] = {"conv4": conv4, "resnet12": resnet12}
