"""The layer around a module: the core's numbers, PyTorch's habits, modules that people have, errors in one line."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from sharp_maml import Batch, Episode, Params, SharpMAML, from_module, meta_gradient
from tests.sharp_maml.oracles import relative_error, unrolled_meta_gradient


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Tied(nn.Module):
    """Smooth, with one parameter in two places, one that is frozen, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.again, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.again.weight = self.body.weight
        self.scale = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)
        self.register_buffer("shift", torch.linspace(-1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.again(torch.tanh(self.body(x) + self.shift))) * self.scale)


def by_hand(p: Params, batch: Batch) -> Tensor:
    """The mean squared error of `Tied`, written out."""
    shift = torch.linspace(-1, 1, 3).double()
    hidden = torch.tanh(batch.inputs @ p["body.weight"].T + p["body.bias"] + shift)
    hidden = torch.tanh(hidden @ p["body.weight"].T + p["again.bias"]) * 0.5
    return ((hidden @ p["head.weight"].T + p["head.bias"] - batch.targets) ** 2).mean()


def tied(seed: int = 0) -> Tied:
    torch.manual_seed(seed)
    return Tied().double()


def regression(seed: int, tasks: int = 2) -> list[Episode]:
    return [
        Episode(
            Batch(normal(4, 3, seed=seed + k), normal(4, 2, seed=seed + k + 50)),
            Batch(normal(5, 3, seed=seed + k + 100), normal(5, 2, seed=seed + k + 150)),
        )
        for k in range(tasks)
    ]


def trained(module: nn.Module) -> Params:
    return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}


def grads(module: nn.Module) -> Params:
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.requires_grad}


radii = st.one_of(st.just(0.0), st.floats(0.01, 1.0))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    beta_low=st.floats(0, 0.5),
    alpha_low=radii,
    alpha_up=radii,
    steps=st.integers(0, 3),
    kind=st.sampled_from(
        [
            {},
            {"perturbation": "recomputed"},
            {"perturbation": "differentiated"},
            {"first_order": True},
            {"first_order": True, "perturbation": "recomputed"},
        ]
    ),
    inner_params=st.sampled_from([None, ["head.weight", "head.bias"], ["body.weight"]]),
    is_fresh=st.booleans(),
)
def test_backward_is_the_meta_gradient_and_the_unrolled_loop(
    seed, beta_low, alpha_low, alpha_up, steps, kind, inner_params, is_fresh
):
    module, episodes = tied(seed), regression(seed)
    options = {"beta_low": beta_low, "alpha_low": alpha_low, "alpha_up": alpha_up, "steps": steps, **kind}
    options["inner_params"] = inner_params
    fresh = {"ascent_episodes": regression(seed + 500)} if is_fresh else {}
    value = SharpMAML(module, loss=mse_loss, **options).backward(episodes, **fresh)
    core = meta_gradient(by_hand, trained(module), episodes, **options, **fresh)
    loop, loss, _ = unrolled_meta_gradient(by_hand, trained(module), episodes, **options, **fresh)
    assert relative_error(grads(module), core.grad) <= 1e-12
    assert relative_error(grads(module), loop) <= 1e-12
    assert value.item() == pytest.approx(core.loss.item(), rel=1e-13)
    assert value.item() == pytest.approx(loss, rel=1e-13)


def test_backward_adds_to_grad_calls_hooks_and_leaves_the_rest_of_the_module_alone():
    module, episodes = tied(), regression(0, tasks=4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parts = []
    for half in (episodes[:2], episodes[2:]):
        other = tied()
        value = SharpMAML(other, beta_low=0.2, loss=mse_loss).backward(half)
        assert (value.ndim, value.requires_grad) == (0, False)
        parts.append(grads(other))
    seen = []
    module.head.bias.register_hook(lambda grad: seen.append(grad.clone()))
    maml = SharpMAML(module, beta_low=0.2, loss=mse_loss)
    for half in (episodes[:2], episodes[2:]):
        maml.backward(half)
    assert relative_error(grads(module), {name: parts[0][name] + parts[1][name] for name in parts[0]}) <= 1e-15
    assert [torch.equal(grad, part["head.bias"]) for grad, part in zip(seen, parts, strict=True)] == [True, True]
    assert module.scale.grad is None
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_optimizer_clipping_and_scheduler_train_the_module_itself():
    module, maml_of = tied(), {"beta_low": 0.1, "alpha_low": 0.01, "alpha_up": 0.01, "loss": mse_loss}
    maml, episodes = SharpMAML(module, **maml_of), regression(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    expected = trained(module)
    for step in range(3):
        optimizer.zero_grad()
        maml.backward(episodes)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        grad, _, _ = unrolled_meta_gradient(by_hand, expected, episodes, beta_low=0.1, alpha_low=0.01, alpha_up=0.01)
        length = torch.sqrt(sum((value**2).sum() for value in grad.values()))
        rate = 0.2 * 0.5**step * min(1, 0.1 / (length.item() + 1e-6))  # as torch clips
        expected = {name: value - rate * grad[name] for name, value in expected.items()}
    assert relative_error(trained(module), expected) <= 1e-12


def steps_by_hand(params: Params, support: Batch, beta: float, steps: int) -> Params:
    for _ in range(steps):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        slope = torch.autograd.grad(by_hand(leaves, support), list(leaves.values()))
        params = {name: params[name] - beta * each for name, each in zip(leaves, slope, strict=True)}
    return params


@pytest.mark.parametrize("steps", [None, 0, 4])
def test_adapt_gives_a_copy_that_took_plain_steps_and_predict_what_it_says(steps):
    module, (episode,) = tied(), regression(1, tasks=1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    maml = SharpMAML(module, beta_low=0.3, alpha_low=0.5, alpha_up=0.5, steps=2, loss=mse_loss)
    adapted = maml.adapt(episode.support, steps=steps)
    expected = steps_by_hand(trained(module), episode.support, 0.3, 2 if steps is None else steps)
    assert relative_error(trained(adapted), expected) <= 1e-14
    for inference in (False, True):
        with torch.inference_mode(inference):
            predicted = maml.predict(episode, steps=steps)
        assert not predicted.requires_grad
        torch.testing.assert_close(predicted, adapted(episode.query.inputs).detach(), rtol=1e-13, atol=1e-13)
    assert adapted.state_dict().keys() == before.keys()
    assert adapted.again.weight is adapted.body.weight
    assert not adapted.scale.requires_grad
    with torch.no_grad():
        for value in adapted.state_dict().values():
            value += 1
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(value.grad is None for value in module.parameters())


def test_an_adapted_module_is_loaded_from_its_state_and_exported():
    module, (episode,) = tied(), regression(1, tasks=1)
    adapted = SharpMAML(module, beta_low=0.3, loss=mse_loss).adapt(episode.support)
    expected = adapted(episode.query.inputs)
    module.load_state_dict(adapted.state_dict())
    assert torch.equal(module(episode.query.inputs), expected)
    exported = torch.export.export(adapted, (episode.query.inputs,)).module()
    torch.testing.assert_close(exported(episode.query.inputs), expected)


class Sum(nn.Module):
    """Two inputs, by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.tanh(self.layer(first) - second)


def test_inputs_may_be_tuples_and_dictionaries():
    torch.manual_seed(0)
    module = Sum().double()

    def loss(p: Params, batch: Batch) -> Tensor:
        first, second = batch.inputs
        predicted = torch.tanh(first @ p["layer.weight"].T + p["layer.bias"] - second)
        return ((predicted - batch.targets) ** 2).mean()

    def episode(seed: int, form) -> Episode:
        return Episode(
            *(Batch(form(normal(4, 3, seed=s), normal(4, 2, seed=s + 9)), normal(4, 2, seed=s + 5)) for s in (seed, 2))
        )

    options = {"beta_low": 0.3, "alpha_low": 0.1, "alpha_up": 0.2, "steps": 2}
    expected, _, _ = unrolled_meta_gradient(
        loss, trained(module), [episode(s, lambda *pair: pair) for s in (0, 1)], **options
    )
    for form in (lambda *pair: pair, lambda first, second: {"second": second, "first": first}):
        module.zero_grad()
        maml = SharpMAML(module, loss=mse_loss, **options)
        maml.backward([episode(s, form) for s in (0, 1)])
        assert relative_error(grads(module), expected) <= 1e-12
        assert maml.predict(episode(0, form)).shape == (4, 2)


class Last(nn.Module):
    """A layer over sequences, its last or mean output, and a head of three classes."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer(x)
        return self.head(result[0][:, -1] if isinstance(result, tuple) else result.mean(1))


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)


def images(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 5)), norm, nn.Tanh(), nn.Flatten(), nn.Linear(20, 3))


def frozen_statistics() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    norm(torch.randn(8, 4, 5))  # running averages unlike those at the start
    return images(norm.eval())


MODULES = {
    "group norm": lambda: images(nn.GroupNorm(2, 4)),
    "batch norm without running averages": lambda: images(nn.BatchNorm1d(4, track_running_stats=False)),
    "frozen batch norm": frozen_statistics,
    "LSTM": lambda: Last(nn.LSTM(4, 6, batch_first=True), 6),
    "GRU": lambda: Last(nn.GRU(4, 6, batch_first=True), 6),
    "transformer": lambda: Last(transformer(), 4),
    "transformer in eval mode": lambda: Last(transformer(), 4).eval(),
    "encoder in eval mode": lambda: Last(nn.TransformerEncoder(transformer(), 2), 4).eval(),
}


def sequences(seed: int) -> list[Episode]:
    targets = torch.arange(6) % 3
    return [
        Episode(Batch(normal(6, 5, 4, seed=s), targets), Batch(normal(6, 5, 4, seed=s + 7), targets))
        for s in (seed, seed + 1)
    ]


def meta_loss_by_hand(module: nn.Module, params: Params, episodes: list[Episode], beta: float) -> float:
    """F at the given parameters: a copy of the module and `torch.optim.SGD`, one step per task."""
    total = 0.0
    for support, query in episodes:
        adapted = copy.deepcopy(module)
        adapted.load_state_dict(adapted.state_dict() | params)
        optimizer = torch.optim.SGD(adapted.parameters(), lr=beta)
        cross_entropy(adapted(support.inputs), support.targets).backward()
        optimizer.step()
        total += cross_entropy(adapted(query.inputs), query.targets).item() / len(episodes)
    return total


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("adapted_names", ["all", "head"])
def test_modules_that_people_have_have_the_slope_that_finite_differences_give(name, adapted_names):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    if adapted_names == "head":  # a body that is a constant
        module.requires_grad_(False)
        (module.head if isinstance(module, Last) else module[-1]).requires_grad_(True)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    flags = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    episodes = sequences(0)
    value = SharpMAML(module, beta_low=0.2).backward(episodes)
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == flags
    assert torch.backends.cudnn.enabled
    params = trained(module)
    assert value.item() == pytest.approx(meta_loss_by_hand(module, params, episodes, 0.2), rel=1e-12)
    along = {key: normal(*each.shape, seed=3) / 10 for key, each in params.items()}
    h, weights = 1e-2, {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
    slope = sum(
        w * sign * meta_loss_by_hand(module, {k: v + sign * j * h * along[k] for k, v in params.items()}, episodes, 0.2)
        for j, w in weights.items()
        for sign in (1, -1)
    )
    got = sum((grad * along[key]).sum().item() for key, grad in grads(module).items())
    assert got == pytest.approx(slope / h, rel=1e-8)
    assert all(torch.equal(before[key], each) for key, each in module.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODULES)
def test_a_gpu_finds_the_gradient_of_the_cpu(name, gpu):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    on_gpu = copy.deepcopy(module).to(gpu)
    options = {"beta_low": 0.2, "alpha_low": 0.1, "alpha_up": 0.1}
    SharpMAML(module, **options).backward(sequences(0))
    moved = [Episode(*(Batch(*(part.to(gpu) for part in half)) for half in each)) for each in sequences(0)]
    SharpMAML(on_gpu, **options).backward(moved)
    assert relative_error({key: value.cpu() for key, value in grads(on_gpu).items()}, grads(module)) <= 1e-10


class Padded(nn.Module):
    """An encoder of padded sequences, of which torch's fast path, taken without gradients, says something else."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.TransformerEncoder(transformer(), 1), nn.Linear(4, 3)

    def forward(self, tokens: Tensor, is_padding: Tensor) -> Tensor:
        return self.head(self.encoder(tokens, src_key_padding_mask=is_padding).mean(1))


def test_predictions_are_of_the_function_that_the_training_differentiates():
    torch.manual_seed(0)
    module = Padded().double().eval()
    padding = torch.arange(5) >= torch.tensor([5, 3, 4, 2, 5, 3])[:, None]
    episode = Episode(
        *(Batch({"tokens": half.inputs, "is_padding": padding}, half.targets) for half in sequences(0)[0])
    )
    maml = SharpMAML(module, beta_low=0.2, inner_params=["head.weight"])
    value = maml.backward([episode])
    assert cross_entropy(maml.predict(episode), episode.query.targets).item() == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.layer._flat_weights")  # torch, of any LSTM
@pytest.mark.parametrize("name", ["frozen batch norm", "LSTM", "transformer in eval mode"])
def test_their_adapted_copies_predict_and_export(name):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    episode = sequences(0)[0]
    maml = SharpMAML(module, beta_low=0.2)
    maml.backward([episode])
    adapted = maml.adapt(episode.support).eval()
    expected = adapted(episode.query.inputs)
    torch.testing.assert_close(maml.predict(episode), expected, rtol=1e-12, atol=1e-12)
    exported = torch.export.export(adapted, (episode.query.inputs,)).module()
    torch.testing.assert_close(exported(episode.query.inputs), expected)


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
def test_the_masks_of_dropout_are_held_within_a_call(perturbation):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    episodes = regression(0)
    options = {"beta_low": 0.3, "alpha_low": 0.1, "alpha_up": 0.2, "steps": 2, "perturbation": perturbation}
    torch.manual_seed(5)
    masks = {
        id(half.inputs): nn.functional.dropout(torch.ones(len(half.inputs), 8).double())
        for episode in episodes
        for half in episode
    }
    after = torch.rand(1)

    def loss(p: Params, batch: Batch) -> Tensor:
        hidden = torch.tanh(batch.inputs @ p["0.weight"].T + p["0.bias"]) * masks[id(batch.inputs)]
        return ((hidden @ p["3.weight"].T + p["3.bias"] - batch.targets) ** 2).mean()

    expected, value, _ = unrolled_meta_gradient(loss, trained(module), episodes, **options)
    maml = SharpMAML(module, loss=mse_loss, **options)
    torch.manual_seed(5)
    assert maml.backward(episodes).item() == pytest.approx(value, rel=1e-13)
    assert relative_error(grads(module), expected) <= 1e-12
    assert torch.equal(torch.rand(1), after)  # passes after the first drew nothing
    assert maml.backward(episodes).item() != value  # the next call draws anew
    module.eval()
    assert maml.backward(episodes) == maml.backward(episodes)


def test_a_module_that_writes_into_its_buffers_is_refused_and_keeps_them():
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return super().forward(x)

    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    running = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    episode = Episode(Batch(torch.rand(3, 4), torch.arange(3)), Batch(torch.rand(3, 4), torch.arange(3)))
    for module, message in (
        (Counting(), r"Counting.forward changes its buffer calls"),
        (spectral, r"forward changes its buffer parametrizations\.weight\.0\._"),
        (running, r"0 \(BatchNorm1d\) updates running averages.*track_running_stats=False"),
    ):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        maml = SharpMAML(module, beta_low=0.1)
        with pytest.raises(ValueError, match=message):
            maml.backward([episode])
        with pytest.raises(ValueError, match=message):
            maml.adapt(episode.support)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        assert all(value.grad is None for value in module.parameters())
    for module in (spectral, running):
        assert torch.isfinite(SharpMAML(module.eval(), beta_low=0.1).backward([episode]))


class Distances(nn.Linear):
    """Distances to prototypes, which torch differentiates once."""

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.weight)


def classes(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Episode:
    return Episode(*2 * [Batch(torch.rand(n, 4, dtype=dtype).to(device), torch.arange(n))])


@pytest.mark.parametrize(
    ("module", "episodes", "options", "message"),
    [
        (nn.Linear(4, 3), [classes(4)], {}, r"go up to 3, but the module predicts 3 classes, 0 to 2: .* 4 outputs"),
        (nn.Linear(4, 3), [classes(4)], {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "targets go up to 3"),
        (nn.Linear(4, 3), [classes(3, torch.float64)], {}, r"inputs are torch.float64, .* torch.float32: convert"),
        (nn.Linear(4, 3), [classes(3, device="meta")], {}, "inputs are on meta, the module on cpu: move one of them"),
        (nn.Linear(4, 3, device="meta"), [classes(3)], {}, "inputs are on cpu, the module on meta: move one of them"),
        (nn.Linear(4, 3), classes(3), {}, r"episodes must be a list of Episode\(support, query\), got a Batch in it"),
        (nn.Linear(4, 3), [], {}, "episodes is empty"),
        (nn.Linear(4, 3), [classes(3)], {"beta_low": -1}, "beta_low must be a finite number >= 0"),
        (nn.Linear(4, 3), [classes(3)], {"inner_params": ["head"]}, "inner_params must name some of weight, bias"),
        (
            nn.Linear(4, 3),
            [classes(3)],
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            r"loss must return the mean over a batch, 0-dimensional; got \(3,\)",
        ),
        (nn.Linear(4, 3).requires_grad_(False), [classes(3)], {}, "no parameter that requires a gradient"),
        (Distances(4, 3), [classes(3)], {}, r"a layer without them \(.*_cdist_backward.* first_order=True"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(module, episodes, options, message):
    flags = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(ValueError, match=message) as caught:
        SharpMAML(module, **{"beta_low": 0.1, **options}).backward(episodes)
    assert "\n" not in str(caught.value)
    assert all(value.grad is None for value in module.parameters())
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == flags


def test_an_error_of_the_modules_own_comes_through_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        SharpMAML(nn.Linear(5, 3), beta_low=0.1).backward([classes(3)])


def test_first_order_needs_no_second_derivatives():
    module = Distances(4, 3, bias=False)
    maml = SharpMAML(module, beta_low=0.1, alpha_low=0.1, alpha_up=0.1, first_order=True)
    assert torch.isfinite(maml.backward([classes(3)]))
    assert module.weight.grad.abs().sum() > 0


def test_the_names_of_inner_params_are_those_of_the_module_and_of_the_core():
    assert list(from_module(tied()).init(torch.Generator())) == list(trained(tied()))
