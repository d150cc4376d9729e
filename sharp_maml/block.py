"""One block of conv4 (convolution, batch norm, ReLU, max-pooling) in two forms with the same values.

`elementary` is written in plain torch operations: any derivative, `torch.func.vmap`, statistics of other inputs than
those normalised. `fused` is what training runs: one `torch.autograd.Function` whose first and second derivative are
the closed forms below, in the native kernels of the convolution and its two adjoints. It pools before it normalises,
so that one activation of full size is kept instead of three, and only one pass is made over it where torch makes four.
A third derivative and `vmap` of it are errors, never wrong numbers. Read next: `models.py`.

Notation. C(x, w) is the convolution, I(g, w) and W(x, g) its adjoints in x and w. Per channel, over the N entries of
y = C(x, w): mean m, variance, r = 1 / sqrt(variance + eps) and h = (y - m) r. P picks the entry of y that is largest in
its window, P^T puts it back. Sums are per channel.

    forward     z = P h scale + shift,  output = max(z, 0)                                  (scale >= 0, see `block`)
    backward    from e, the output's gradient where z > 0 and 0 elsewhere:
                b = sum e,  a = sum e P h       the gradients of shift and scale
                g = scale r (P^T e - b/N - h a/N),  I(g, w),  W(x, g)                       gradients of y, x and w
    second      of  <g, u> + a A + b B + ...  with u = C(X, w) + C(x, V), given the factors X, V, A, B that multiply
                the gradients of x, w, scale, shift; with p = sum u, q = sum u h, E = sum e P u - b p/N - a q/N:
                for e:      scale r (P u - p/N - P h q/N) + A P h + B
                for scale:  r E
                for y:      G = r (k u + c P^T e) - r (k p + c b)/N - r h (k q + c a + scale r E)/N
                            with k = -scale r a/N, c = A - scale r q/N
                for x:      I(G, w) + I(g, V)
                for w:      W(x, G) + W(X, g)
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import conv2d, max_pool2d

Form = Literal["fused", "elementary"]
"""How a block is differentiated: fast and twice, or in plain operations and as often as one likes."""

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
        weight: Of the convolution, `filters x channels x 3 x 3`.
        scale: Of the batch norm, `filters`.
        shift: Of the batch norm, `filters`.
        statistics_from: Mean and variance are those of this many first items, and normalise all of them; the block is
            then elementary. None: of all items.
        form: See `Form`.

    Returns:
        `n x filters x height // 2 x width // 2`.

    Raises:
        RuntimeError: `vmap` over the fused form, or a third derivative of it.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015; the second derivative is derived here.
    """
    if form == "elementary" or statistics_from is not None:
        y = conv2d(x, weight, padding=1)
        first = y[:statistics_from]
        mean = first.mean((0, 2, 3), keepdim=True)
        variance = (first - mean).square().mean((0, 2, 3), keepdim=True)
        z = (y - mean) * (torch.rsqrt(variance + EPS) * _per_channel(scale)) + _per_channel(shift)
        return max_pool2d(z.relu(), 2)
    # The largest z of a window is at the largest y only where scale >= 0. A negative scale changes sign together with
    # its filter, which leaves z as it is.
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    return _Block.apply(x, weight * sign.view(-1, 1, 1, 1), scale * sign, shift)[0]


class _Once(Function):
    """A function with one form of derivative, and none under `vmap`."""

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        raise RuntimeError("vmap over the fused block is not supported: use batch_norm_form='elementary'")


class _Block(_Once):
    """(x, w, scale, shift) -> output, y and what the derivatives need; y is there for its second-order gradient G."""

    @staticmethod
    def forward(x, w, scale, shift):
        y = conv2d(x, w, padding=1).contiguous(memory_format=torch.channels_last)
        mean, variance = torch.batch_norm_update_stats(y, None, None, 0.0)
        r = torch.rsqrt(variance + EPS)
        largest, index = torch.ops.aten.max_pool2d_with_indices(y, [2, 2], [2, 2])
        centred = largest.sub_(_per_channel(mean))
        output = torch.addcmul(_per_channel(shift), centred, _per_channel(r * scale)).relu_()
        return output, y, mean, r, centred, index

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, scale, _ = inputs
        ctx.save_for_backward(x, w, scale, *output)
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, d_output, G, *_):
        x, w, scale, output, *rest = ctx.saved_tensors
        e = torch.ops.aten.threshold_backward(d_output, output.detach(), 0)
        dx, dw, dscale, dshift, _ = _Gradient.apply(ctx.needs_input_grad[0], G, e, x, w, scale, *rest)
        return dx, dw, dscale, dshift


class _Gradient(_Once):
    """(e, x, w, scale, y) -> the gradients of x, w, scale and shift, and that of y for the second derivative."""

    @staticmethod
    def forward(needs_dx, G, e, x, w, scale, y, mean, r, centred, index):
        n = y.numel() // len(scale)
        b = _sum(e)
        a = _sum(e * centred) * r
        k = scale * r
        g = _affine(y, -k * r * a / n, mean, -k * b / n)
        _put(g, index, e * _per_channel(k))
        if G is not None:
            g += G
        return (_input_gradient(g, x, w) if needs_dx else None), _weight_gradient(g, x, w), a, b, g

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, _, *saved = inputs
        *_, a, b, g = output
        ctx.save_for_backward(*saved, a, b, g)
        ctx.mark_non_differentiable(g)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, X, V, A, B, _):
        de, dx, dw, dscale, G = _SecondGradient.apply(ctx.needs_input_grad[3], X, V, A, B, *ctx.saved_tensors)
        return None, None, de, dx, dw, dscale, G, None, None, None, None


class _SecondGradient(_Once):
    @staticmethod
    def forward(needs_dx, X, V, A, B, e, x, w, scale, y, mean, r, centred, index, a, b, g):
        n = y.numel() // len(scale)
        u = torch.zeros_like(y) if V is None else conv2d(x, V, padding=1).contiguous(memory_format=torch.channels_last)
        if X is not None:
            u += conv2d(X, w, padding=1)
        A = torch.zeros_like(a) if A is None else A
        B = torch.zeros_like(b) if B is None else B
        p = _sum(u)
        q = (torch.linalg.vecdot(_flat(u), _flat(y), dim=1).sum(0) - mean * p) * r
        Pu = _pick(u, index)
        s = scale * r
        E = _sum(e * Pu) - (b * p + a * q) / n
        de = _affine(centred, r * (A - s * q / n), None, B - s * p / n).addcmul_(Pu, _per_channel(s))
        k = -s * a / n
        c = A - s * q / n
        G = _affine(y, -r * r * (k * q + c * a + s * E) / n, mean, -r * (k * p + c * b) / n)
        G.addcmul_(u, _per_channel(r * k))
        _put(G, index, e * _per_channel(r * c))
        dx = _input_gradient(g, x, V) if needs_dx and V is not None else None
        dw = None if X is None else _weight_gradient(g, X, w)
        return de, dx, dw, r * E, G

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError("the fused block has two derivatives, a third was asked for: use batch_norm_form='elementary'")


def _per_channel(x):
    return x.view(1, -1, 1, 1)

def _sum(x):
    return x.sum((0, 2, 3))

def _affine(x, slope, centre, offset):
    if centre is not None:
        offset = offset - slope * centre
    return torch.addcmul(_per_channel(offset), x, _per_channel(slope))

def _flat(x):
    return x.permute(0, 2, 3, 1).flatten(1, 2)

def _pick(x, index):
    return _flat(x).gather(1, _flat(index)).view(index.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)

def _put(x, index, values):
    _flat(x).scatter_add_(1, _flat(index), _flat(values))

def _input_gradient(g, x, w):
    return torch.ops.aten.convolution_backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False])[0]

def _weight_gradient(g, x, w):
    return torch.ops.aten.convolution_backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])[1]
