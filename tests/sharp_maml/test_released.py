"""The meta-gradients of the authors' released code, on one fixed meta-batch in float64.

`tests/data/released_numbers.npz` holds numbers that the released code gave (commit 5ad914e, the variant that has all
others in it); the code itself is not here. Its convolutions have a bias, whose gradient is zero before a batch norm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sharp_maml import Batch, Episode, Params, meta_gradient
from sharp_maml.models import conv4
from tests.sharp_maml.oracles import relative_error

FILE = Path(__file__).parents[1] / "data" / "released_numbers.npz"
VARIANTS = [f"{name}-{steps}" for name in ("maml", "low", "up", "both", "both-released-radius") for steps in (1, 5)]


@pytest.fixture(scope="module")
def released() -> dict[str, np.ndarray]:
    with np.load(FILE) as numbers:
        return dict(numbers)


def renamed(name: str) -> str:
    """`features.layer1.norm.weight` -> `norm1.weight`; `classifier.weight` -> `head.weight`."""
    if name.startswith("classifier"):
        return name.replace("classifier", "head")
    _, layer, kind, what = name.split(".")
    return f"{kind}{layer.removeprefix('layer')}.{what}"


def tree(numbers: dict[str, np.ndarray], prefix: str) -> Params:
    found = {renamed(key.removeprefix(prefix)): value for key, value in numbers.items() if key.startswith(prefix)}
    return {name: torch.from_numpy(value).double() for name, value in found.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_meta_gradient_is_that_of_the_released_code(
    released: dict[str, np.ndarray], variant: str, form: str
) -> None:
    model = conv4(filters=6, image_size=16, batch_norm_form=form)
    params, expected = tree(released, "params/"), tree(released, f"{variant}/grad/")
    biases = [name for name in params if name.startswith("conv") and name.endswith("bias")]
    assert len(biases) == 4
    for name in biases:
        params.pop(name)
        assert expected.pop(name).abs().max() < 1e-12
    assert list(model.init(torch.Generator())) == list(params)

    def half(name: str, index: int) -> Batch:
        inputs, targets = (torch.from_numpy(released[f"{name}_{what}"][index]) for what in ("inputs", "targets"))
        return Batch(inputs.double(), targets.long())

    def loss(params: Params, batch: Batch) -> Tensor:
        return cross_entropy(model.logits(params, batch.inputs, None), batch.targets)

    alpha_low, alpha_up, beta_low, steps = released[f"{variant}/settings"].tolist()
    result = meta_gradient(
        loss,
        params,
        [Episode(half("support", index), half("query", index)) for index in range(3)],
        alpha_low=alpha_low,
        alpha_up=alpha_up,
        beta_low=beta_low,
        steps=int(steps),
        perturbation="differentiated",
        inner_params=[name for name in map(renamed, released["inner_params"].tolist()) if name in params],
    )
    assert relative_error(result.grad, expected) < 1e-10
    assert result.loss.item() == pytest.approx(released[f"{variant}/loss"].item(), rel=1e-10)
