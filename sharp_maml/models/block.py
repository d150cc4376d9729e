"""One block of conv4, convolution, batch norm, ReLU and max-pooling, in two forms that have the same values.

`elementary` is written in plain torch operations: right to any derivative, under `torch.func.vmap`, and with statistics
of other inputs than those normalised. `fused` is what training runs: a `torch.autograd.Function` whose first and second
derivatives are the closed forms below, on torch's kernels of the convolution and of its two adjoints. It pools before
it scales and shifts, so that one activation of full size is kept where torch keeps three. What is between the
convolutions exists twice: in torch's operations, as `_Torch` below, and natively, as `Kernels`. A third derivative of
the fused form and `vmap` are errors, never wrong numbers. Read next: `kernels.py`; `conv4.py`, which stacks four of
these.

Notation: C(x, w) is the convolution; I(g, w) and W(x, g) are its adjoints in x and in w. Per channel, over the n
entries of y = C(x, w): r = 1 / sqrt(variance + 1e-5) and h = (y - mean) r. P picks from each window the entry where y
is largest, or smallest where scale < 0, and P^T puts it back. Sums, like scale and shift, are one number per channel.

Forward: the output is max(P h scale + shift, 0).

Backward, from e (the output's gradient, where the output is positive):
    shift: b = sum e,    scale: a = sum e P h,    y: g = scale r (P^T e - b/n - h a/n),    x: I(g, w),    w: W(x, g).

Second backward: the derivatives of <I(g, w), X> + <W(x, g), V> + a A + b B, that is of <g, u> + a A + b B with
u = C(X, w) + C(x, V). With p = sum u, q = sum u h, k = -scale r a/n, c = A - scale r q/n and
E = sum e P u - (b p + a q)/n:
    e: scale r (P u - p/n) + c P h + B,    scale: r E,    x: I(g, V),    w: W(X, g),
    y: r (k u + c P^T e - (k p + c b)/n - h (k q + c a + scale r E)/n), which joins g in the backward pass above.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import conv2d, max_pool2d

from sharp_maml.kernels import Kernels, native
from sharp_maml.models.model import Form

EPS = 1e-5
"""Added to the variance, as in torch and in the released code."""


def block(
    x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *, statistics_from: int | None = None, form: Form
) -> Tensor:
    """max-pool(ReLU(batch norm(convolution(x)))), by the statistics of the batch.

    With z = scale (y - mean) / sqrt(variance + 1e-5) + shift per channel of y = convolution(x, weight), 3 x 3 with
    padding 1, the output is the largest of max(z, 0) over 2 x 2 windows.

    Args:
        x: Inputs, `n x channels x height x width`.
        weight: Weight of the convolution, `filters x channels x 3 x 3`.
        scale: Scale of the batch norm, `filters`.
        shift: Shift of the batch norm, `filters`.
        statistics_from: Mean and variance are those of this many first items, and normalise all of them; the block is
            then elementary. None: of all items.
        form: `fused` is right to the second derivative; `elementary` to any, and under `vmap`.

    Returns:
        `n x filters x height // 2 x width // 2`.

    Raises:
        RuntimeError: `vmap` over the fused form, or a third derivative of it.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015; the second derivative is derived here.
    """
    if form == "elementary" or statistics_from is not None:
        z = normalised(conv2d(x, weight, padding=1), scale, shift, statistics_from)
        return max_pool2d(z.relu(), 2)
    passes = native(x, weight, scale, shift) or _Torch()
    weight = weight.contiguous(memory_format=torch.channels_last)  # once, not in every convolution
    output: Tensor = _Forward.apply(passes, x, weight, scale, shift)[0]  # type: ignore[no-untyped-call]
    return output


def normalised(y: Tensor, scale: Tensor, shift: Tensor, statistics_from: int | None) -> Tensor:
    """Batch norm in plain operations, by the statistics of the first items as in `block`; `y` is `n x c x h x w`."""
    first = y[:statistics_from]
    mean = first.mean((0, 2, 3), keepdim=True)
    # divided by n and not by n - 1, as torch's batch norm does where it normalises a batch
    variance = (first - mean).square().mean((0, 2, 3), keepdim=True)
    return (y - mean) * (torch.rsqrt(variance + EPS) * _per_channel(scale)) + _per_channel(shift)


class _Once(Function):
    """What the three functions share: they are never vmapped, and know their signature.

    Torch binds the arguments of every call to it, and would find it anew each time, which shows on small images.
    """

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        raise RuntimeError("the fused block does not work under vmap: use batch_norm_form='elementary'")


class _Forward(_Once):
    """x, weight, scale, shift -> the output, y, constants. y is an output so that its second gradient can come back."""

    @staticmethod
    def forward(
        passes: Kernels | _Torch, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, ...]:
        y = _convolution(x, weight)
        output, *constants = passes.pool(y, scale, shift)
        return output, y, *constants

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.passes = inputs[0]
        ctx.save_for_backward(*inputs[1:4], *output)
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)  # zeros for the constants would cost as much as the activations

    @staticmethod
    def backward(ctx: Any, d: Tensor | None, d_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, weight, scale, output, y, *constants = ctx.saved_tensors
        # None where only y has a gradient, which a second backward alone can give it
        d = torch.zeros_like(output) if d is None else d
        # in a list the constants are no inputs to autograd: what comes through them is in the derivative in y
        results = _Backward.apply(  # type: ignore[no-untyped-call]
            ctx.passes, ctx.needs_input_grad[1], d_y, d, x, weight, scale, y, [output.detach(), *constants]
        )
        return None, *results[:4]


class _Backward(_Once):
    """d, x, weight, scale, y -> the gradients of x, weight, scale, shift, and what the second backward needs.

    `d`: the gradient of the output. `d_y`: what the second backward adds to g.
    """

    @staticmethod
    def forward(
        passes: Kernels | _Torch,
        needs_dx: bool,
        d_y: Tensor | None,
        d: Tensor,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        y: Tensor,
        constants: Sequence[Tensor],
    ) -> tuple[Tensor | None, ...]:
        a, b, g, e = passes.back(d, d_y, y, scale, constants)
        # images need no gradient, which saves the first block one of its convolutions
        dx = _adjoint_in_x(g, x, weight) if needs_dx else None
        return dx, _adjoint_in_w(g, x, weight), a, b, g, e

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.passes, _, d_y, _, x, weight, scale, y, constants = inputs
        # what a second backward adds to g makes this call a part of it: one more derivative is the third
        ctx.is_second = d_y is not None
        ctx.save_for_backward(x, weight, scale, y, *output[2:], *constants)
        ctx.mark_non_differentiable(*output[4:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, X: Tensor | None, V: Tensor | None, A: Tensor | None, B: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        if ctx.is_second:
            _refuse_third_derivative()
        needs_dx = ctx.needs_input_grad[4]
        results = _SecondBackward.apply(ctx.passes, needs_dx, X, V, A, B, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return None, None, None, *results, None


class _SecondBackward(_Once):
    """Factors X, V, A, B of the gradients -> the derivatives of the sum of the products in d, x, weight, scale, y."""

    @staticmethod
    def forward(
        passes: Kernels | _Torch,
        needs_dx: bool,
        X: Tensor | None,
        V: Tensor | None,
        A: Tensor | None,
        B: Tensor | None,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        y: Tensor,
        a: Tensor,
        b: Tensor,
        g: Tensor,
        e: Tensor,
        *constants: Tensor,
    ) -> tuple[Tensor | None, ...]:
        # a factor that nobody asked for is None, and its convolution is left out instead of done with zeros
        V = None if V is None else V.contiguous(memory_format=torch.channels_last)
        terms = [_convolution(*pair) for pair in ((x, V), (X, weight)) if pair[0] is not None and pair[1] is not None]
        de, ds, dy = passes.second(terms or [torch.zeros_like(y)], A, B, y, scale, a, b, e, constants)
        dx = _adjoint_in_x(g, x, V) if needs_dx and V is not None else None
        dw = _adjoint_in_w(g, X, weight) if X is not None else None
        return de, dx, dw, ds, dy

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> NoReturn:
        _refuse_third_derivative()


class _Torch:
    """What is between the convolutions, in torch's operations, as few as it takes: for every device and type.

    On small images, and most of all on a GPU, an operation costs more than its arithmetic. So three of torch's own
    passes do the algebra of the channels. With N(y; A, B) = A h + B, the batch norm of y, and its adjoint,
    D(t; s) = s r (t - mean t - h mean(t h)), which has sum t and sum t h as by-products, the equations above are

        P h scale = |scale| max-pool N(y; sign, 0)    where sign is 1 or, for scale < 0, -1,
        g = D(m; scale)    where m = P^T e,
        e: P (scale U + N(y; A, B))    where U = D(u; 1),    scale: r E = sum G u    where G = D(m; 1),
        y: c G + k U + N(y; -scale r (r E)/n, 0).
    """

    def pool(self, y: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        """y -> the output, and constants of the two others."""
        one = torch.ones_like(scale)
        # z is largest where sign(scale) y is: pooled first, what follows is on a quarter of the entries
        signed, mean, r = _norm(y, one.copysign(scale), None)
        largest, index = torch.ops.aten.max_pool2d_with_indices(signed, [2, 2], [2, 2])
        output = torch.addcmul(_per_channel(shift), largest, _per_channel(scale.abs())).relu_()
        return output, one, mean, r, index

    def back(
        self, d: Tensor, d_y: Tensor | None, y: Tensor, scale: Tensor, constants: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """d, d_y -> a, b, g + d_y, m."""
        output, _, mean, r, index = constants
        e = torch.ops.aten.threshold_backward(d, output, 0)
        m = torch.ops.aten.max_pool2d_with_indices_backward(e, y, [2, 2], [2, 2], [0, 0], [1, 1], False, index)
        g, a, b = _norm_backward(m, y, scale, mean, r)
        return a, b, g if d_y is None else g.add_(d_y), m

    def second(
        self,
        terms: list[Tensor],
        A: Tensor | None,
        B: Tensor | None,
        y: Tensor,
        scale: Tensor,
        a: Tensor,
        b: Tensor,
        m: Tensor,
        constants: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """u, the sum of the terms, A, B -> the derivatives in d, scale and y."""
        output, one, mean, r, index = constants
        # written into: the terms were made for this sum, and nobody else has them
        u = terms[0] if len(terms) == 1 else terms[0].add_(terms[1])
        A, B = (torch.zeros_like(scale) if t is None else t for t in (A, B))
        U, q, _ = _norm_backward(u, y, one, mean, r)
        G, _, _ = _norm_backward(m, y, one, mean, r)
        rE = (G * u).sum((0, 2, 3))
        t = scale * r.to(scale) * (-scale.numel() / y.numel())
        de = _pick(_norm(y, A, B)[0].addcmul_(U, _per_channel(scale)), index)
        dy = _norm(y, t * rE, None)[0]
        dy.addcmul_(G, _per_channel(torch.addcmul(A, t, q))).addcmul_(U, _per_channel(t * a))
        return torch.ops.aten.threshold_backward(de, output, 0), rE, dy


def _refuse_third_derivative() -> NoReturn:
    raise RuntimeError("the fused block has no third derivative: use batch_norm_form='elementary'")


def _convolution(x: Tensor, w: Tensor) -> Tensor:
    """C(x, w), in `channels_last` whatever the format of the inputs: the passes work in this format."""
    return conv2d(x, w, padding=1).contiguous(memory_format=torch.channels_last)


def _adjoint_in_x(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """I(g, w); of x the shape is used."""
    return _convolution_backward(g, x, w, [True, False, False])[0]


def _adjoint_in_w(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """W(x, g); of w the shape is used."""
    return _convolution_backward(g, x, w, [False, True, False])[1]


def _convolution_backward(g: Tensor, x: Tensor, w: Tensor, mask: list[bool]) -> tuple[Tensor, ...]:
    """Torch's own kernels. Its double backward takes W(X, g) for a convolution with kernels as large as the image."""
    result: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
    )
    return result


def _norm(y: Tensor, scale: Tensor, shift: Tensor | None) -> tuple[Tensor, ...]:
    """N(y; scale, shift), mean and r."""
    result: tuple[Tensor, ...] = torch.ops.aten.native_batch_norm(y, scale, shift, None, None, True, 0.0, EPS)
    return result


def _norm_backward(t: Tensor, y: Tensor, scale: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    """D(t; scale), sum t h and sum t."""
    result: tuple[Tensor, ...] = torch.ops.aten.native_batch_norm_backward(
        t, y, scale, None, None, mean, r, True, EPS, [True, True, True]
    )
    return result


def _pick(y: Tensor, index: Tensor) -> Tensor:
    """P y: from each window of y, which is `channels_last`, the entry that was kept."""
    images, channels, height, width = index.shape
    picked = _flat(y).gather(1, _flat(index))
    return picked.view(images, height, width, channels).permute(0, 3, 1, 2)


def _flat(x: Tensor) -> Tensor:
    """`n x pixels x channels`: a view of what is `channels_last`."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _per_channel(x: Tensor) -> Tensor:
    return x.view(1, -1, 1, 1)
