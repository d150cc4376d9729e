"""Matching Networks, the baseline of the table: a nearest-neighbour classifier whose embedding is trained on episodes.

Nothing adapts: a query's class probabilities are an attention over the support set's labels. With full context
embeddings two LSTMs first let every embedding see the support set. They are written out from elementary operations, so
that parameters stay a dictionary, as everywhere here. Read next: `methods.py`, which puts a network under it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import linear, nll_loss, normalize, one_hot

from sharp_maml.base import PLAIN, Batch, BatchNorm, Episode, Execution, Logits, MetaGradient, Method, Params
from sharp_maml.meta import meta_gradient

READS = 5
"""Read steps K over the support set. The paper leaves K open."""

_FORWARD, _BACKWARD, _QUERY = "fce.forward", "fce.backward", "fce.query"


def matching_params(generator: torch.Generator, features: int) -> Params:
    """Fresh parameters of the full context embeddings: the LSTMs over the support set, both ways, and over the query.

    Uniform within 1 / sqrt(features), as torch draws those of an LSTM. Gates are stacked in torch's order: input,
    forget, cell, output.

    Args:
        generator: Source of all randomness.
        features: Width F of an embedding, which the residual connections make that of the LSTMs too.

    Returns:
        `fce.forward.*`, `fce.backward.*` and `fce.query.*`, each with `weight_ih` (`4 F x F`), `weight_hh` (`4 F x F`;
        `4 F x 2 F` for the query, which also reads the support set) and `bias` (`4 F`); float32, on the generator's
        device.

    Raises:
        ValueError: `features` is below 1.
    """
    if features < 1:
        raise ValueError(f"features must be >= 1, got {features}")

    def uniform(*shape: int) -> Tensor:
        unit = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
        return (2 * unit - 1) / math.sqrt(features)

    params: Params = {}
    for name, recurrent in ((_FORWARD, features), (_BACKWARD, features), (_QUERY, 2 * features)):
        params[f"{name}.weight_ih"] = uniform(4 * features, features)
        params[f"{name}.weight_hh"] = uniform(4 * features, recurrent)
        params[f"{name}.bias"] = uniform(4 * features)
    return params


def matching_method(
    embed: Logits,
    *,
    fce: bool,
    ways: int,
    batch_norm: BatchNorm = "transductive",
    reads: int = READS,
    execution: Execution = PLAIN,
) -> Method:
    """Matching Networks for classification.

    P(y | x, S) = sum_i a(x, x_i) [y_i = y] with a = softmax over i of cos(f(x), g(x_i)); the loss is -log P of the
    query labels. Without full context embeddings f and g are both `embed`. The softmax has no temperature, as in the
    paper: with a cosine, P never comes near 0 or 1.

    Args:
        embed: The network without its head, (params, inputs, context) -> `n x features`.
        fce: Whether f and g see the whole support set: see `embed_support` and `embed_query`.
        ways: Number of classes.
        batch_norm: `transductive` normalises the query set by its own statistics, `support` by the support set's.
        reads: Read steps K of `embed_query`, at least 1.
        execution: See `meta_gradient`.

    Returns:
        The method; its logits are log-probabilities, `n_query x ways`, and it adapts nothing.

    Raises:
        ValueError: A setting is out of range.

    Source: Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, eq. 1 and section 2.1.
    """
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"batch_norm must be one of {', '.join(get_args(BatchNorm))}, got {batch_norm!r}")
    if ways < 2:
        raise ValueError(f"ways must be >= 2, got {ways}")
    if reads < 1:
        raise ValueError(f"reads must be >= 1, got {reads}")

    def log_probabilities(params: Params, episode: Episode, mode: BatchNorm | None = None) -> Tensor:
        support, query = episode.support.inputs, episode.query.inputs
        g = embed(params, support, None)
        f = embed(params, query, support if (mode or batch_norm) == "support" else None)
        if fce:
            g = embed_support(params, g)
            f = embed_query(params, f, g, reads=reads)
        attention = (normalize(f, dim=1) @ normalize(g, dim=1).T).softmax(dim=1)
        # The logarithm is safe: of n cosines no softmax is below exp(-2) / n, and every class has a support example.
        return (attention @ one_hot(episode.support.targets, ways).to(attention.dtype)).log()

    def loss(params: Params, episode: Episode) -> Tensor:
        return nll_loss(log_probabilities(params, episode), episode.query.targets)

    def no_adaptation(params: Params, batch: Batch) -> Tensor:
        raise NotImplementedError("there are no inner steps")  # pragma: no cover

    def gradient(params: Params, episodes: Sequence[Episode]) -> MetaGradient:
        return meta_gradient(
            no_adaptation,
            params,
            episodes,
            beta_low=0.0,
            steps=0,
            query_loss=loss,
            execution=execution,
        )

    return Method(gradient, lambda params, support: params, torch.no_grad()(log_probabilities))


def embed_support(params: Params, embedded: Tensor) -> Tensor:
    """Full context embedding of the support set, g(x_i, S) = h_i + h'_i + g'(x_i).

    h runs an LSTM over g'(x_1), g'(x_2), ... and h' another one from the last to the first, so the result depends on
    the order of the support set. Both begin at zero.

    Args:
        params: Parameters with those of `matching_params`.
        embedded: g', `n_support x features`.

    Returns:
        g, `n_support x features`.

    Source: Vinyals et al. 2016, appendix A.2.
    """

    def hidden_states(name: str, inputs: Tensor) -> Tensor:
        h = c = torch.zeros_like(inputs[0])
        states = []
        for x in inputs:
            h, c = lstm_cell(params, name, x, h, c)
            states.append(h)
        return torch.stack(states)

    return hidden_states(_FORWARD, embedded) + hidden_states(_BACKWARD, embedded.flip(0)).flip(0) + embedded


def embed_query(params: Params, embedded: Tensor, support: Tensor, *, reads: int = READS) -> Tensor:
    """Full context embedding of the queries, f(x, S) = attLSTM(f'(x), g(S), K) = h_K.

    For k = 1, ..., K, from h_0 = c_0 = 0 (which the paper leaves open):

    - r_{k-1} = sum_i a_i g(x_i) with a = softmax over i of h_{k-1} . g(x_i);
    - h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1}) and h_k = h^_k + f'(x).

    Args:
        params: Parameters with those of `matching_params`.
        embedded: f', `n_query x features`; every query goes its own way.
        support: g(S), `n_support x features`.
        reads: Number K of steps.

    Returns:
        f, `n_query x features`.

    Source: Vinyals et al. 2016, appendix A.1, eqs. 3-6.
    """
    h = c = torch.zeros_like(embedded)
    for _ in range(reads):
        read = (h @ support.T).softmax(dim=1) @ support
        h, c = lstm_cell(params, _QUERY, embedded, torch.cat([h, read], dim=1), c)
        h = h + embedded
    return h


def lstm_cell(params: Params, name: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: c' = sigma(f) c + sigma(i) tanh(g) and h' = sigma(o) tanh(c').

    (i, f, g, o) = W_ih x + W_hh h + b. What comes in as h may be wider than what goes out.

    Args:
        params: Parameters with `name.weight_ih`, `name.weight_hh` and `name.bias`.
        name: Which LSTM.
        x: Input, `... x features`.
        h: Recurrent input, `... x recurrent`.
        c: Cell, `... x features`.

    Returns:
        Output and cell, each `... x features`.

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers et al. 2000.
    """
    gates = linear(x, params[f"{name}.weight_ih"], params[f"{name}.bias"]) + linear(h, params[f"{name}.weight_hh"])
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
