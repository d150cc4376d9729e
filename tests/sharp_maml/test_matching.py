from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharp_maml.base import Batch, Episode, Execution, Method, Params
from sharp_maml.matching import embed_query, embed_support, lstm_cell, matching_method, matching_params

WAYS, FEATURES, INPUTS = 3, 4, 6


def embed(params: Params, inputs: Tensor, context: Tensor | None) -> Tensor:
    """A smooth network that is centred by the mean of its context, as a batch norm is."""
    return torch.tanh((inputs - (inputs if context is None else context).mean(0)) @ params["weight"])


def parameters(seed: int = 0, *, scale: float = 2.0) -> Params:
    generator = torch.Generator().manual_seed(seed)
    params = {"weight": torch.randn(INPUTS, FEATURES, generator=generator)} | matching_params(generator, FEATURES)
    return {name: scale * value.double() for name, value in params.items()}


def drawn(seed: int, *, shots: int = 2, queries: int = 2) -> Episode:
    generator = torch.Generator().manual_seed(seed)

    def batch(each: int) -> Batch:
        inputs = torch.randn(WAYS * each, INPUTS, generator=generator, dtype=torch.float64)
        return Batch(inputs, torch.arange(WAYS).repeat(each))

    return Episode(batch(shots), batch(queries))


def method(*, fce: bool, batch_norm: str = "transductive", reads: int = 5) -> Method:
    return matching_method(embed, fce=fce, ways=WAYS, batch_norm=batch_norm, reads=reads)  # type: ignore[arg-type]


def nll(which: Method, params: Params, episodes: list[Episode]) -> float:
    """The loss from the predictions alone."""
    values = [
        -which.predict(params, one)[torch.arange(len(one.query.targets)), one.query.targets].mean() for one in episodes
    ]
    return float(sum(values)) / len(values)


@pytest.mark.parametrize("fce", [False, True])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
def test_the_gradient_agrees_with_finite_differences(fce: bool, batch_norm: str) -> None:
    which, params = method(fce=fce, batch_norm=batch_norm), parameters()
    episodes = [drawn(1), drawn(2)]
    result = which.gradient(params, episodes)
    generator = torch.Generator().manual_seed(9)
    for name, value in params.items():
        direction, step = torch.randn(value.shape, generator=generator, dtype=torch.float64), 1e-5
        above, below = (nll(which, params | {name: value + sign * step * direction}, episodes) for sign in (1, -1))
        slope = float((result.grad[name] * direction).sum())
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-9), name
    assert float(result.loss) == pytest.approx(nll(which, params, episodes))
    assert result.loss_ascent is result.loss


@pytest.mark.parametrize("fce", [False, True])
def test_every_parameter_that_is_used_gets_a_gradient(fce: bool) -> None:
    grad = method(fce=fce).gradient(parameters(), [drawn(1)]).grad
    assert all(bool(value.any()) == (fce or name == "weight") for name, value in grad.items())


def test_the_gradient_is_detached_and_leaves_the_parameters_alone() -> None:
    params = {name: value.requires_grad_() for name, value in parameters().items()}
    before = {name: value.detach().clone() for name, value in params.items()}
    result = method(fce=True).gradient(params, [drawn(1)])
    assert not result.loss.requires_grad
    assert not any(value.requires_grad for value in result.grad.values())
    assert all(torch.equal(params[name], before[name]) and params[name].grad is None for name in params)
    assert not method(fce=True).predict(params, drawn(1)).requires_grad


def test_without_context_embeddings_the_probabilities_are_those_of_the_formula() -> None:
    # Embeddings (1, 0), (0, 1) and (-1, 0) for the support; the query points the way of the first.
    support = Batch(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([0, 1, 1]))
    query = Batch(torch.tensor([[7.0, 0.0]]), torch.tensor([0]))
    plain = matching_method(lambda params, inputs, context: inputs, fce=False, ways=2)
    probability = math.e / (math.e + 1 + 1 / math.e)
    expected = torch.tensor([[probability, 1 - probability]]).log()
    torch.testing.assert_close(plain.predict({}, Episode(support, query)), expected)


@given(seed=st.integers(0, 1000), fce=st.booleans(), shots=st.integers(1, 3), queries=st.integers(1, 3))
def test_probabilities_sum_to_one(seed: int, fce: bool, shots: int, queries: int) -> None:
    predicted = method(fce=fce).predict(parameters(seed), drawn(seed, shots=shots, queries=queries))
    assert predicted.shape == (WAYS * queries, WAYS)
    torch.testing.assert_close(predicted.exp().sum(1), torch.ones(WAYS * queries, dtype=torch.float64))


@given(seed=st.integers(0, 1000), order=st.permutations(range(2 * WAYS)))
def test_the_order_of_the_support_set_does_not_matter_without_context_embeddings(seed: int, order: list[int]) -> None:
    episode = drawn(seed)
    turned = Episode(Batch(*(part[order] for part in episode.support)), episode.query)
    plain, params = method(fce=False), parameters(seed)
    torch.testing.assert_close(plain.predict(params, turned), plain.predict(params, episode))


@given(seed=st.integers(0, 1000), order=st.permutations(range(2 * WAYS)), fce=st.booleans())
def test_the_predictions_follow_the_order_of_the_queries(seed: int, order: list[int], fce: bool) -> None:
    episode = drawn(seed)
    turned = Episode(episode.support, Batch(*(part[order] for part in episode.query)))
    which, params = method(fce=fce), parameters(seed)
    torch.testing.assert_close(which.predict(params, turned), which.predict(params, episode)[order])


@given(seed=st.integers(0, 1000), fce=st.booleans())
def test_in_support_mode_a_query_does_not_see_the_other_queries(seed: int, fce: bool) -> None:
    episode = drawn(seed)
    alone = Episode(episode.support, Batch(*(part[:1] for part in episode.query)))
    which, params = method(fce=fce, batch_norm="support"), parameters(seed)
    torch.testing.assert_close(which.predict(params, alone), which.predict(params, episode)[:1])


def test_context_embeddings_change_the_prediction_and_so_does_the_number_of_reads() -> None:
    params, episode = parameters(), drawn(1)
    plain, once, twice = (
        which.predict(params, episode)
        for which in (method(fce=False), method(fce=True, reads=1), method(fce=True, reads=2))
    )
    assert not torch.allclose(plain, once)
    assert not torch.allclose(once, twice)


def test_the_gradient_is_the_mean_over_episodes() -> None:
    which, params = method(fce=True), parameters()
    together = which.gradient(params, [drawn(1), drawn(2)])
    one, two = (which.gradient(params, [drawn(seed)]) for seed in (1, 2))
    torch.testing.assert_close(together.grad["weight"], (one.grad["weight"] + two.grad["weight"]) / 2)
    torch.testing.assert_close(together.loss, (one.loss + two.loss) / 2)


def test_gradient_and_loss_are_averaged_over_ranks() -> None:
    def twice(params: Params) -> Params:
        return {name: 2 * value for name, value in params.items()}

    sharded = matching_method(embed, fce=False, ways=WAYS, execution=Execution(twice)).gradient(
        parameters(), [drawn(1)]
    )
    alone = method(fce=False).gradient(parameters(), [drawn(1)])
    torch.testing.assert_close(sharded.grad["weight"], 2 * alone.grad["weight"])
    torch.testing.assert_close(sharded.loss, 2 * alone.loss)


@given(seed=st.integers(0, 1000))
def test_the_cell_is_that_of_torch(seed: int) -> None:
    torch.manual_seed(seed)
    theirs = torch.nn.LSTMCell(FEATURES, FEATURES, dtype=torch.float64)
    params = {
        "one.weight_ih": theirs.weight_ih,
        "one.weight_hh": theirs.weight_hh,
        "one.bias": theirs.bias_ih + theirs.bias_hh,
    }
    x, h, c = torch.randn(3, 5, FEATURES, dtype=torch.float64)
    torch.testing.assert_close(lstm_cell(params, "one", x, h, c), theirs(x, (h, c)))


def test_the_support_embedding_is_a_bidirectional_lstm_with_a_residual_connection() -> None:
    params = parameters()
    theirs = torch.nn.LSTM(FEATURES, FEATURES, bidirectional=True, dtype=torch.float64)
    state = {}
    for name, suffix in (("fce.forward", "l0"), ("fce.backward", "l0_reverse")):
        state[f"weight_ih_{suffix}"] = params[f"{name}.weight_ih"]
        state[f"weight_hh_{suffix}"] = params[f"{name}.weight_hh"]
        state[f"bias_ih_{suffix}"] = params[f"{name}.bias"]
        state[f"bias_hh_{suffix}"] = torch.zeros_like(params[f"{name}.bias"])
    theirs.load_state_dict(state)
    embedded = torch.randn(7, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs, _ = theirs(embedded)
    expected = outputs[:, :FEATURES] + outputs[:, FEATURES:] + embedded
    torch.testing.assert_close(embed_support(params, embedded), expected.detach())


def test_the_query_embedding_follows_the_equations_of_the_paper_one_query_at_a_time() -> None:
    params = parameters()
    generator = torch.Generator().manual_seed(2)
    support = torch.randn(4, FEATURES, dtype=torch.float64, generator=generator)
    queries = torch.randn(3, FEATURES, dtype=torch.float64, generator=generator)
    # A cell of torch has no recurrent input wider than its output, so [f', h, r] goes in as one input.
    cell = torch.nn.LSTMCell(3 * FEATURES, FEATURES, dtype=torch.float64).requires_grad_(False)
    zeros = torch.zeros(4 * FEATURES, FEATURES, dtype=torch.float64)
    wide = torch.cat([params["fce.query.weight_ih"], params["fce.query.weight_hh"]], dim=1)
    bias = params["fce.query.bias"]
    cell.load_state_dict({"weight_ih": wide, "weight_hh": zeros, "bias_ih": bias, "bias_hh": torch.zeros_like(bias)})
    for index, query in enumerate(queries):
        h = c = torch.zeros(FEATURES, dtype=torch.float64)
        for _ in range(3):
            weights = [math.exp(float(h @ g)) for g in support]
            read = sum((w * g for w, g in zip(weights, support, strict=True)), torch.zeros_like(h)) / sum(weights)
            h, c = cell(torch.cat([query, h, read]), (torch.zeros_like(h), c))
            h = h + query
        torch.testing.assert_close(embed_query(params, queries, support, reads=3)[index], h)


def test_the_parameters_are_a_function_of_the_generator() -> None:
    one, again, other = (matching_params(torch.Generator().manual_seed(seed), 9) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in one)
    assert one["fce.query.weight_hh"].shape == (36, 18)
    assert all(value.abs().max() <= 1 / 3 and value.dtype == torch.float32 for value in one.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: method(fce=False, batch_norm="running"), "batch_norm must be one of transductive, support"),
        (lambda: method(fce=True, reads=0), "reads must be >= 1, got 0"),
        (lambda: matching_method(embed, fce=False, ways=1), "ways must be >= 2, got 1"),
        (lambda: matching_params(torch.Generator(), 0), "features must be >= 1, got 0"),
        (lambda: method(fce=False).gradient(parameters(), []), "episodes is empty"),
    ],
)
def test_a_setting_out_of_range_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
