"""Models: shapes, parameters, batch-norm contexts, what is refused; any module as a model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, cross_entropy, leaky_relu, linear, max_pool2d

from sharp_maml import Batch, Episode, Params, meta_gradient, sharp_maml_method
from sharp_maml.models import conv4, from_module, mlp, resnet12
from tests.sharp_maml.oracles import relative_error, unrolled_meta_gradient


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def perturbed(params: Params, seed: int = 1) -> Params:
    """Float64, with scales and shifts that are not 1 and 0."""
    noise = generator(seed)
    return {n: v.double() + 0.3 * torch.randn(v.shape, generator=noise, dtype=torch.float64) for n, v in params.items()}


@pytest.mark.parametrize(("ways", "columns"), [(5, 5), (None, 6 * 2 * 2)])
@pytest.mark.parametrize("image_size", [32, 47])
def test_conv4_has_the_shapes_it_promises_without_computing(ways: int | None, columns: int, image_size: int) -> None:
    model = conv4(ways=ways, filters=6, image_size=image_size, channels=1, batch_norm_form="elementary")
    params = {name: value.to("meta") for name, value in model.init(generator()).items()}
    inputs = torch.empty(7, 1, image_size, image_size, device="meta")
    assert model.logits(params, inputs, None).shape == (7, columns)
    assert model.logits(params, inputs, inputs[:3]).shape == (7, columns)


def test_the_parameters_of_conv4_are_those_of_the_paper() -> None:
    params = conv4().init(generator())
    body = [f"{layer}{block}.{what}" for block in range(1, 5) for layer, what in LAYERS]
    assert list(params) == [*body, "head.weight", "head.bias"]
    assert params["head.weight"].shape == (5, 1600)
    assert sum(value.numel() for value in params.values()) == 121_093 - 4 * 64  # without the convolutions' biases
    assert "head.weight" not in conv4(ways=None).init(generator())


LAYERS = [("conv", "weight"), ("norm", "weight"), ("norm", "bias")]


def test_weights_are_drawn_from_the_distribution_of_torchs_own_layers() -> None:
    ours = conv4().init(generator())
    for name, layer in {"conv2.weight": nn.Conv2d(64, 64, 3), "head.weight": nn.Linear(1600, 5)}.items():
        assert ours[name].abs().max() <= layer.weight.abs().max() * 1.01
        assert ours[name].std().item() == pytest.approx(layer.weight.std().item(), rel=0.05)
        assert ours[name].std().item() == pytest.approx(ours[name].abs().max().item() / math.sqrt(3), rel=0.05)
    assert ours["norm3.weight"].eq(1).all()
    assert ours["norm3.bias"].eq(0).all()
    assert {value.dtype for value in ours.values()} == {torch.float32}


def test_the_generator_alone_decides_the_parameters() -> None:
    first, again, other = (conv4(filters=4).init(generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_conv4_is_the_composition_of_torchs_own_layers(form: str) -> None:
    model = conv4(ways=3, filters=4, image_size=18, batch_norm_form=form)
    params, inputs = perturbed(model.init(generator())), normal(6, 3, 18, 18)
    x = inputs
    for index in range(1, 5):
        x = conv2d(x, params[f"conv{index}.weight"], padding=1)
        x = batch_norm(x, None, None, params[f"norm{index}.weight"], params[f"norm{index}.bias"], training=True)
        x = max_pool2d(x.relu(), 2)
    expected = linear(x.flatten(1), params["head.weight"], params["head.bias"])
    torch.testing.assert_close(model.logits(params, inputs, None), expected, rtol=1e-10, atol=1e-10)


def test_the_parameters_of_resnet12_are_those_of_the_papers() -> None:
    """12,424,320 without the head, as users of MetaOptNet's network count them, and 640 features."""
    model = resnet12(ways=None)
    assert sum(value.numel() for value in model.init(generator()).values()) == 12_424_320
    assert model.features == 640
    assert set(model.norm) == {name for name in model.init(generator()) if "norm" in name}
    assert len([value for value in model.init(generator()).values() if value.ndim == 4]) == 12 + 4  # and shortcuts


def test_resnet12_is_the_composition_of_torchs_own_layers(form: str) -> None:
    model = resnet12(ways=3, filters=2, image_size=18, batch_norm_form=form)
    params, inputs = perturbed(model.init(generator())), normal(6, 3, 18, 18)

    def layer(x: Tensor, conv: str, norm: str, padding: int) -> Tensor:
        x = conv2d(x, params[f"{conv}.weight"], padding=padding)
        return batch_norm(x, None, None, params[f"{norm}.weight"], params[f"{norm}.bias"], training=True)

    x = inputs
    for block in ("block1", "block2", "block3", "block4"):
        y = leaky_relu(layer(x, f"{block}.conv1", f"{block}.norm1", 1), 0.1)
        y = leaky_relu(layer(y, f"{block}.conv2", f"{block}.norm2", 1), 0.1)
        y = layer(y, f"{block}.conv3", f"{block}.norm3", 1) + layer(x, f"{block}.shortcut", f"{block}.norm0", 0)
        x = max_pool2d(leaky_relu(y, 0.1), 2)
    assert [params[f"block{k}.conv3.weight"].shape[0] for k in (1, 2, 3, 4)] == [2, 5, 10, 20]
    expected = linear(x.mean((2, 3)), params["head.weight"], params["head.bias"])
    torch.testing.assert_close(model.logits(params, inputs, None), expected, rtol=1e-10, atol=1e-10)


def test_with_a_context_the_logits_of_a_query_do_not_depend_on_the_others(form: str) -> None:
    model = conv4(filters=4, image_size=18, batch_norm_form=form)
    params, context, inputs = perturbed(model.init(generator())), normal(5, 3, 18, 18), normal(6, 3, 18, 18, seed=2)
    together = model.logits(params, inputs, context)
    alone = torch.cat([model.logits(params, inputs[i : i + 1], context) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(together, model.logits(params, inputs, None))
    itself = model.logits(params, context, context)
    torch.testing.assert_close(itself, model.logits(params, context, None), rtol=1e-10, atol=1e-10)


def test_the_gradient_flows_through_the_statistics_of_the_context(form: str) -> None:
    model = conv4(ways=2, filters=2, image_size=16, channels=1, batch_norm_form=form)
    params, context, inputs = perturbed(model.init(generator())), normal(2, 1, 16, 16), normal(2, 1, 16, 16, seed=2)
    names = ["conv1.weight", "norm2.bias", "conv4.weight"]

    def logits(*values: Tensor) -> Tensor:
        return model.logits({**params, **dict(zip(names, values[:-1], strict=True))}, inputs, values[-1])

    assert torch.autograd.gradcheck(logits, [v.requires_grad_() for v in (*(params[n] for n in names), context)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 1}, "ways must be at least 2, or None for features without a head; got 1"),
        ({"image_size": 15}, "image_size must be at least 16, so that 4 poolings fit; got 15"),
        ({"filters": 0}, "filters must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"batch_norm_form": "native"}, "batch_norm_form must be one of fused, elementary, got 'native'"),
    ],
)
def test_conv4_refuses_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv4(**settings)


def test_a_module_names_its_last_layer_and_its_normalisation_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(8, 4), nn.Tanh())
    model = from_module(module)
    assert (model.head, model.norm) == (["3.weight", "3.bias"], ["1.weight", "1.bias"])
    assert mlp(sizes=[6, 4, 3]).head == ("layer2.weight", "layer2.bias")
    assert mlp(sizes=[6, 4, 3]).features == 4


@pytest.mark.parametrize("shape", [(2, 3, 20, 20), (2, 1, 16, 16), (3, 16, 16)])
def test_conv4_refuses_inputs_of_another_shape(shape: tuple[int, ...]) -> None:
    model = conv4(filters=2, image_size=16)
    with pytest.raises(ValueError, match=f"inputs must be n x 3 x 16 x 16, got {' x '.join(map(str, shape))}"):
        model.logits(model.init(generator()), torch.rand(shape), None)


def test_an_mlp_is_affine_maps_with_the_activation_between_them() -> None:
    model = mlp(sizes=[6, 4, 3], activation=torch.sin)
    params, inputs = model.init(generator()), torch.rand(5, 2, 3, generator=generator(1))
    hidden = torch.sin(inputs.flatten(1) @ params["layer1.weight"].T + params["layer1.bias"])
    expected = hidden @ params["layer2.weight"].T + params["layer2.bias"]
    torch.testing.assert_close(model.logits(params, inputs, None), expected)
    assert torch.equal(model.logits(params, inputs, inputs), model.logits(params, inputs, None))


@pytest.mark.parametrize("sizes", [[3], [3, 0, 2]])
def test_an_mlp_refuses_sizes_that_cannot_be(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="sizes must be two or more numbers >= 1"):
        mlp(sizes=sizes)


class Attention(nn.Module):
    """A network unlike conv4: patches, group norm, attention, tied and frozen parameters, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 3, stride=3)
        self.norm = nn.GroupNorm(2, 8)
        self.queries = nn.Linear(8, 8)
        self.keys = self.queries  # a shared layer
        self.values = nn.Linear(8, 8)
        self.values.weight = self.queries.weight  # a shared parameter
        self.head = nn.Linear(8, 3)
        self.frozen = nn.Parameter(torch.full((8,), 0.5), requires_grad=False)
        self.register_buffer("positions", torch.linspace(0, 1, 9).view(1, 9, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.tanh(self.norm(self.patches(x))).flatten(2).mT + self.positions + self.frozen
        scores = (self.queries(tokens) @ self.keys(tokens).mT).softmax(-1)
        return self.head((scores @ self.values(tokens)).mean(1))


@pytest.mark.parametrize("perturbation", ["reused", "differentiated"])
def test_a_module_of_ones_own_has_the_meta_gradient_of_the_unrolled_loop(perturbation: str) -> None:
    torch.manual_seed(0)
    module = Attention().double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    episodes = [
        Episode(
            Batch(normal(3, 1, 9, 9, seed=seed), torch.arange(3)),
            Batch(normal(6, 1, 9, 9, seed=9), torch.arange(6) % 3),
        )
        for seed in range(2)
    ]
    settings = {"beta_low": 0.3, "alpha_low": 0.1, "alpha_up": 0.2, "steps": 2, "perturbation": perturbation}
    model = from_module(module)
    params = model.init(generator())
    assert not {"frozen", "keys.weight", "values.weight"} & set(params)
    ours = meta_gradient(
        lambda p, b: cross_entropy(model.logits(p, b.inputs, None), b.targets), params, episodes, **settings
    )

    def by_hand(p: Params, batch: Batch) -> Tensor:
        tokens = conv2d(batch.inputs, p["patches.weight"], p["patches.bias"], stride=3)
        tokens = torch.tanh(torch.nn.functional.group_norm(tokens, 2, p["norm.weight"], p["norm.bias"])).flatten(2).mT
        tokens = tokens + torch.linspace(0, 1, 9).view(1, 9, 1) + 0.5
        keys = linear(tokens, p["queries.weight"], p["queries.bias"])
        values = linear(tokens, p["queries.weight"], p["values.bias"])
        tokens = (keys @ keys.mT).softmax(-1) @ values
        return cross_entropy(linear(tokens.mean(1), p["head.weight"], p["head.bias"]), batch.targets)

    expected, value, value_above = unrolled_meta_gradient(by_hand, params, episodes, **settings)
    assert relative_error(ours.grad, expected) < 1e-6  # the positions are float32 in one and not in the other
    assert ours.loss.item() == pytest.approx(float(value), abs=1e-6)
    assert ours.loss_ascent.item() == pytest.approx(float(value_above), abs=1e-6)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_init_of_a_module_copies_its_parameters() -> None:
    module = nn.Linear(2, 3)
    model = from_module(module)
    params = model.init(generator())
    params["weight"] += 1
    assert torch.equal(params["weight"] - 1, module.weight.detach() + 1 - 1)
    inputs = torch.rand(4, 2)
    torch.testing.assert_close(model.logits(params, inputs, None), inputs @ (module.weight + 1).T + module.bias)


def test_a_module_with_running_averages_is_refused_unless_they_are_frozen() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d\) updates running averages.*track_running_stats=False"):
        from_module(module)
    model = from_module(module.eval())
    assert model.logits(model.init(generator()), torch.rand(2, 3, 4, 4), None).shape == (2, 2)
    with pytest.raises(ValueError, match="the module \\(BatchNorm2d\\)"):
        from_module(nn.BatchNorm2d(3))


def test_a_module_without_anything_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        from_module(nn.Flatten())


class Centred(nn.Linear):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x - (x if context is None else context).mean(0))


def test_a_module_may_take_a_context_and_must_where_it_is_given_one() -> None:
    params, inputs, context = {}, torch.rand(4, 2), torch.rand(3, 2)
    model = from_module(Centred(2, 3))
    params = model.init(generator())
    expected = linear(inputs - context.mean(0), params["weight"], params["bias"])
    torch.testing.assert_close(model.logits(params, inputs, context), expected)
    episode = Episode(Batch(context, torch.arange(3)), Batch(inputs, torch.arange(4) % 3))
    method = sharp_maml_method(from_module(nn.Linear(2, 3)).logits, beta_low=0.1, batch_norm="support")
    with pytest.raises(ValueError, match=r"Linear\.forward takes no `context`, which batch_norm='support' needs"):
        method.gradient(params, [episode])
