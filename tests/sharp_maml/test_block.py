"""The block's two forms against each other, torch's own layers and finite differences; what the fused form refuses.

The fused form is tested with both of its passes, the native ones and torch's.
"""

from __future__ import annotations

from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, max_pool2d

from sharp_maml import kernels
from sharp_maml.models.block import block

FORMS = ["fused", "elementary"]


def problem(
    seed: int = 0, *, images: int = 3, channels: int = 2, filters: int = 4, height: int = 5, width: int = 6
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, weight, scale (of both signs) and shift, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(images, channels, height, width), normal(filters, channels, 3, 3), normal(filters), normal(filters)


def torch_layers(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    z = batch_norm(conv2d(x, weight, padding=1), None, None, scale, shift, training=True)
    return max_pool2d(z.relu(), 2)


def derivatives(function, arguments, seed: int = 1) -> list[Tensor]:
    """Value, gradient of a random function of it, and Hessian-vector product, as the core takes them."""
    generator = torch.Generator().manual_seed(seed)
    arguments = [a.detach().requires_grad_() for a in arguments]
    value = function(*arguments)
    factor = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    vector = [torch.randn(a.shape, generator=generator, dtype=torch.float64) for a in arguments]
    grads = torch.autograd.grad((factor * value.sin()).sum(), arguments, create_graph=True)
    products = torch.autograd.grad(grads, arguments, vector)
    return [each.detach() for each in (value, *grads, *products)]


def test_the_first_and_second_derivatives_agree_with_finite_differences(form: str) -> None:
    arguments = problem()
    assert torch.autograd.gradcheck(lambda *a: block(*a, form=form), arguments)
    assert torch.autograd.gradgradcheck(lambda *a: block(*a, form=form), arguments)


def test_a_block_is_the_composition_of_the_layers_of_torch(form: str) -> None:
    arguments = problem()
    for ours, torchs in zip(
        derivatives(lambda *a: block(*a, form=form), arguments), derivatives(torch_layers, arguments), strict=True
    ):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-10)


@settings(max_examples=30)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    channels_last=st.booleans(),
)
def test_both_forms_agree_for_all_shapes_and_memory_formats(
    images: int, channels: int, filters: int, height: int, width: int, channels_last: bool
) -> None:
    x, *rest = problem(images=images, channels=channels, filters=filters, height=height, width=width)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    results = [derivatives(lambda *a, form=form: block(*a, form=form), (x, *rest)) for form in FORMS]
    with patch.object(kernels, "load", return_value=None):
        results.append(derivatives(lambda *a: block(*a, form="fused"), (x, *rest)))
    for fused, elementary, on_torch in zip(*results, strict=True):
        torch.testing.assert_close(fused, elementary, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(on_torch, elementary, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("kept", [[0], [1], [2, 3], [1, 3]], ids=str)
def test_both_forms_agree_where_only_some_arguments_are_differentiated(kept: list[int]) -> None:
    arguments = [a.detach() for a in problem()]

    def product(form: str) -> list[Tensor]:
        leaves = [a.clone().requires_grad_(i in kept) for i, a in enumerate(arguments)]
        of = [leaves[i] for i in kept]
        grads = torch.autograd.grad(block(*leaves, form=form).sin().sum(), of, create_graph=True)
        return [*grads, *torch.autograd.grad(grads[0].square().sum(), of, materialize_grads=True)]

    for fused, elementary in zip(product("fused"), product("elementary"), strict=True):
        torch.testing.assert_close(fused, elementary, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("passes")
def test_a_gradient_with_respect_to_nothing_but_later_layers_is_that_of_the_elementary_form() -> None:
    """The first derivative uses one block's parameters, the second those of the block before it."""
    x, weight, scale, shift = problem(height=8, width=8, channels=3, filters=3)

    def mixed(form: str) -> Tensor:
        below = block(x, weight, scale, shift, form=form)
        above = block(below, weight.detach().requires_grad_(), scale, shift, form=form)
        (grad,) = torch.autograd.grad(above.square().sum(), shift, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), weight)[0]

    torch.testing.assert_close(mixed("fused"), mixed("elementary"), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("of", range(4), ids=["x", "weight", "scale", "shift"])
def test_a_third_derivative_of_the_fused_form_is_an_error(of: int) -> None:
    arguments = problem()
    derivative = block(*arguments, form="fused").sin().sum()
    with pytest.raises(RuntimeError, match="no third derivative: use batch_norm_form='elementary'"):  # noqa: PT012
        for _ in range(3):
            derivative = torch.autograd.grad(derivative, arguments[of], create_graph=True)[0].square().sum()


@pytest.mark.usefixtures("passes")
def test_a_third_derivative_by_way_of_what_is_above_the_block_is_an_error() -> None:
    arguments, above = problem(), torch.ones((), dtype=torch.float64, requires_grad=True)
    value = (above * block(*arguments, form="fused")).sin().sum()
    (first,) = torch.autograd.grad(value, arguments[1], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), above, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad(second, above)


def test_a_third_derivative_of_the_fused_form_is_an_error_under_transforms_too() -> None:
    x, weight, scale, shift = (a.detach() for a in problem())

    def nested(function, times: int):
        return function if times == 0 else torch.func.grad(lambda w: nested(function, times - 1)(w).sin().sum())

    def of_weight(weight: Tensor) -> Tensor:
        return block(x, weight, scale, shift, form="fused").sin().sum()

    assert nested(of_weight, 2)(weight).isfinite().all()
    with pytest.raises(RuntimeError, match="no third derivative"):
        nested(of_weight, 3)(weight)


def test_under_transforms_the_fused_form_has_the_same_derivatives() -> None:
    arguments = [a.detach() for a in problem()]
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(3, 4, 2, 3, generator=generator, dtype=torch.float64)
    vector = tuple(torch.randn(a.shape, generator=generator, dtype=torch.float64) for a in arguments)

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        def value(*a: Tensor) -> Tensor:
            return (factor * block(*a, form="fused").sin()).sum()

        return torch.func.grad(value, argnums=tuple(range(4)))(*arguments)

    grads, pullback = torch.func.vjp(gradient, *arguments)
    expected = derivatives(lambda *a: block(*a, form="fused"), arguments)[1:]
    for inside, outside in zip((*grads, *pullback(vector)), expected, strict=True):
        torch.testing.assert_close(inside, outside, rtol=1e-10, atol=1e-10)


def test_the_third_derivative_of_the_elementary_form_agrees_with_finite_differences() -> None:
    arguments = [a.detach() for a in problem()]
    generator = torch.Generator().manual_seed(2)
    u, v = ([torch.randn(a.shape, generator=generator, dtype=torch.float64) for a in arguments] for _ in range(2))

    def product(at: list[Tensor]) -> list[Tensor]:
        """H v of a function of the block."""
        at = [a.requires_grad_() for a in at]
        value = block(*at, form="elementary").sin().sum()
        grads = torch.autograd.grad(value, at, create_graph=True)
        return list(torch.autograd.grad(grads, at, v, create_graph=True))

    leaves = [a.clone() for a in arguments]
    third = torch.autograd.grad(product(leaves), leaves, u)
    h = 1e-5
    for index, (argument, exact) in enumerate(zip(arguments, third, strict=True)):
        direction = torch.randn(argument.shape, generator=generator, dtype=torch.float64)
        shifted = [
            product([a + sign * h * direction if i == index else a.clone() for i, a in enumerate(arguments)])
            for sign in (1, -1)
        ]
        numeric = sum(((p - m) * w).sum() / (2 * h) for p, m, w in zip(*shifted, u, strict=True))
        torch.testing.assert_close((exact * direction).sum(), numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("passes")
def test_vmap_of_the_fused_form_is_an_error_that_names_the_other() -> None:
    x, *rest = (a.detach() for a in problem())
    with pytest.raises(RuntimeError, match="does not work under vmap: use batch_norm_form='elementary'"):
        torch.func.vmap(lambda x: block(x, *rest, form="fused"))(torch.stack([x, x + 1]))


def test_vmap_of_the_elementary_form_gives_the_derivatives_of_the_loop() -> None:
    lanes = [[a.detach() for a in problem(seed)] for seed in range(3)]
    stacked = [torch.stack(column) for column in zip(*lanes, strict=True)]

    def second(*arguments: Tensor) -> Tensor:
        def squared_gradient(scale: Tensor) -> Tensor:
            of_weight = torch.func.grad(lambda w: block(arguments[0], w, scale, arguments[3], form="elementary").sum())
            return of_weight(arguments[1]).square().sum()

        return torch.func.grad(squared_gradient)(arguments[2])

    torch.testing.assert_close(
        torch.func.vmap(second)(*stacked), torch.stack([second(*lane) for lane in lanes]), rtol=1e-9, atol=1e-9
    )


def test_statistics_come_from_the_first_items_and_carry_a_gradient(form: str) -> None:
    x, weight, scale, shift = problem(images=5)
    arguments = (x, weight, scale, shift)
    assert torch.autograd.gradcheck(lambda *a: block(*a, statistics_from=2, form=form), arguments)
    changed = x.detach().clone()
    changed[3:] += 1
    before, after = (block(i, weight, scale, shift, statistics_from=2, form=form) for i in (x, changed))
    torch.testing.assert_close(before[:3], after[:3], rtol=0, atol=0)
    torch.testing.assert_close(before[:2], block(x[:2], weight, scale, shift, form=form), rtol=1e-10, atol=1e-10)


def test_a_scale_of_zero_has_finite_derivatives(form: str) -> None:
    x, weight, _, _ = problem()
    scale, shift = (torch.full((4,), value, dtype=torch.float64, requires_grad=True) for value in (0.0, 0.5))
    for value in derivatives(lambda *a: block(*a, form=form), (x, weight, scale, shift)):
        assert value.isfinite().all()
