"""What every registered network and ascent must have; and that one of each can be added at run time, and trains."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sharp_maml import (
    ASCENTS,
    MODELS,
    Ascent,
    Batch,
    Episode,
    check_method,
    from_module,
    load_checkpoint,
    meta_gradient,
    mlp,
    sharp_maml_method,
)
from sharp_maml.config import Config
from sharp_maml.train import train
from tests.sharp_maml.oracles import relative_error, smooth_loss, smooth_problem
from tests.sharp_maml.tiny import tiny_config, tiny_dataset

SIZES = {"filters": 2, "image_size": 16, "channels": 1}


def network(name: str, form: str = "elementary", ways: int | None = 3):
    return MODELS[name](ways=ways, batch_norm_form=form, **SIZES)


def parameters(name: str, dtype: torch.dtype = torch.float64) -> dict:
    """Away from the ones and zeros in which batch norm begins."""
    generator = torch.Generator().manual_seed(0)
    params = network(name).init(generator)
    return {
        key: (value + 0.2 * torch.randn(value.shape, generator=generator)).to(dtype) for key, value in params.items()
    }


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_begins_at_numbers_of_its_generator(name):
    first, again, other = (network(name).init(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert {value.dtype for value in first.values()} == {torch.float32}
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_names_its_head_and_its_normalisation_layers(name):
    """The head is what depends on the number of classes."""
    model, without = network(name), network(name, ways=None)
    params = model.init(torch.Generator())
    assert set(params) - set(without.init(torch.Generator())) == set(model.head) != set()
    assert not without.head
    assert set(model.norm) <= set(params) - set(model.head)
    features = without.logits(without.init(torch.Generator()), images(4).float(), None)
    assert features.shape == (4, model.features) == (4, without.features)


@pytest.mark.parametrize("name", MODELS)
def test_the_two_forms_of_a_network_have_the_same_numbers_to_the_second_derivative(name):
    params, inputs, targets = parameters(name), images(6), torch.arange(6) % 3
    episode = Episode(Batch(inputs, targets), Batch(images(6, seed=1), targets))

    def gradient(form):
        logits = network(name, form).logits
        loss = lambda p, batch: cross_entropy(logits(p, batch.inputs, None), batch.targets)  # noqa: E731
        return logits(params, inputs, None), meta_gradient(loss, params, [episode], beta_low=0.1, alpha_low=0.01).grad

    (fused, grad), (elementary, expected) = gradient("fused"), gradient("elementary")
    torch.testing.assert_close(fused, elementary, rtol=1e-10, atol=1e-12)
    assert relative_error(grad, expected) <= 1e-9


@pytest.mark.parametrize("form", ["fused", "elementary"])
@pytest.mark.parametrize("name", MODELS)
def test_with_a_context_the_logits_of_a_query_do_not_depend_on_the_others(name, form):
    model, params = network(name, form), parameters(name)
    context, inputs = images(5), images(4, seed=2)
    together = model.logits(params, inputs, context)
    alone = torch.cat([model.logits(params, inputs[i : i + 1], context) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)
    itself = model.logits(params, context, context)
    torch.testing.assert_close(itself, model.logits(params, context, None), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_the_elementary_form_works_under_vmap(name):
    logits, params, inputs = network(name).logits, parameters(name), images(4)
    lanes = {key: torch.stack([value, 2 * value]) for key, value in params.items()}
    found = torch.func.vmap(lambda p: logits(p, inputs, None))(lanes)
    doubled = {key: 2 * value for key, value in params.items()}
    for lane, p in zip(found, (params, doubled), strict=True):
        torch.testing.assert_close(lane, logits(p, inputs, None), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 1}, "ways must be at least 2"),
        ({"filters": 0}, "filters must be at least 1"),
        ({"image_size": 15}, "image_size must be at least 16"),
        ({"batch_norm_form": "native"}, "batch_norm_form must be one of fused, elementary"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_a_network_refuses_what_it_cannot_be(name, settings, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**{"ways": 3, "batch_norm_form": "fused", **SIZES, **settings})


# Ascents.


def problem():
    params, episodes = smooth_problem(30)
    return params, torch.func.grad(smooth_loss)(params, episodes[0].support)


@pytest.mark.parametrize("name", ASCENTS)
def test_an_ascent_has_the_names_of_the_gradient_also_where_these_are_some(name):
    params, grad = problem()
    some = {"head": grad["head"], "bias": grad["bias"]}
    for given in (grad, some):
        vector, pullback = ASCENTS[name].for_names({"bias"})(params, given)
        assert list(vector) == list(given)
        of_params, of_grad = pullback(given)
        assert set(of_params) <= set(given)
        assert list(of_grad) == list(given)


@pytest.mark.parametrize("name", ASCENTS)
def test_an_ascent_is_nothing_where_the_gradient_is_and_does_not_see_its_length(name):
    params, grad = problem()
    direction = ASCENTS[name].for_names({"bias"})
    if not ASCENTS[name].draws:  # a draw depends on the last digit
        one, other = (
            direction(params, grad)[0],
            direction(params, {key: 1e20 * value for key, value in grad.items()})[0],
        )
        assert relative_error(other, one) <= 1e-12
    if name != "random":
        nothing = direction(params, {key: 0 * value for key, value in grad.items()})[0]
        assert not any(value.any() for value in nothing.values())


@pytest.mark.parametrize("name", sorted(name for name in ASCENTS if not ASCENTS[name].draws))
def test_an_ascent_without_draws_works_under_vmap(name):
    params, grad = problem()
    direction = ASCENTS[name].for_names({"bias"})
    lanes = {key: torch.stack([value, -2 * value]) for key, value in grad.items()}
    found = torch.func.vmap(lambda g: direction(params, g)[0])(lanes)
    for lane, factor in enumerate((1, -2)):
        expected = direction(params, {key: factor * value for key, value in grad.items()})[0]
        assert relative_error({key: value[lane] for key, value in found.items()}, expected) <= 1e-14


# The laws of the core.


def tried(model, params, inputs, **settings) -> dict[str, str]:
    """What came of each law on two episodes of three classes."""
    episodes = [Episode(*(Batch(inputs(3, 2 * m + half), torch.arange(3)) for half in range(2))) for m in range(2)]
    make = partial(sharp_maml_method, model.logits, beta_low=0.1, **settings)
    return {law.name: law.verdict for law in check_method(make, params, episodes).laws}


@pytest.mark.parametrize("name", MODELS)
def test_a_network_passes_every_law(name):
    assert set(tried(network(name, "fused"), parameters(name), images).values()) == {"passed"}


@pytest.mark.parametrize("perturbation", ["reused", "differentiated"])
@pytest.mark.parametrize("name", ASCENTS)
def test_an_ascent_passes_every_law(name, perturbation):
    """But that a drawn one that is differentiated jumps with the last digit of the gradient."""
    model, generator = mlp(sizes=(4, 5, 3)), torch.Generator().manual_seed(0)
    found = tried(
        model,
        model.init(generator),
        lambda n, seed: torch.randn(n, 4, generator=generator),
        alpha_low=0.01,
        alpha_up=0.01,
        direction=ASCENTS[name].for_names({"layer1.bias"}),
        perturbation=perturbation,
    )
    jumps = ASCENTS[name].draws and perturbation == "differentiated"
    assert found.pop("gradient") == ("inconclusive" if jumps else "passed")
    assert set(found.values()) == {"passed"}


# Training.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("registered") / "tiny")


def moved(config: Config, dataset, directory) -> bool:
    """Whether a training of two steps ends at finite numbers other than those where it began."""
    train(config, dataset, directory)
    after = load_checkpoint(directory / "last.safetensors").tensors
    train(Config.from_mapping({**config.to_dict(), "beta_up": 1e-30}), dataset, directory.with_name("still"))
    before = load_checkpoint(directory.with_name("still") / "last.safetensors").tensors
    names = [name for name in before if name.startswith("params/")]
    assert all(torch.isfinite(after[name]).all() for name in names)
    return all(not torch.equal(after[name], before[name]) for name in names)


SMOKE = {"iterations": 2, "validate_every": 2, "validation_episodes": 2, "filters": 2}


@pytest.mark.parametrize("name", MODELS)
def test_every_network_trains_by_the_same_command(name, dataset, tmp_path):
    config = tiny_config(model=name, alpha_low=0.01, alpha_up=0.01, inner_params="all-but-norm", **SMOKE)
    assert moved(config, dataset, tmp_path / "run")


@pytest.mark.parametrize("perturbation", ["reused", "differentiated"])
@pytest.mark.parametrize("name", ASCENTS)
def test_every_ascent_trains(name, perturbation, dataset, tmp_path):
    config = tiny_config(ascent=name, alpha_low=0.01, alpha_up=0.01, perturbation=perturbation, **SMOKE)
    assert moved(config, dataset, tmp_path / "run")


def test_a_network_and_an_ascent_can_be_added_at_run_time(dataset, tmp_path, monkeypatch):
    """A module of one's own, and the sign of the gradient, by one line each."""

    def patches(*, ways, filters, image_size, channels, batch_norm_form):
        layers = [nn.Conv2d(channels, filters, 8, 8), nn.GroupNorm(1, filters), nn.Flatten()]
        return from_module(nn.Sequential(*layers, nn.Linear(filters * (image_size // 8) ** 2, ways)))

    def by_sign(params, grad):
        return {key: value.sign() for key, value in grad.items()}, lambda w: ({}, {k: 0 * v for k, v in w.items()})

    with pytest.raises(ValueError, match="model must be one of conv4, resnet12, got 'patches'"):
        tiny_config(model="patches")
    monkeypatch.setitem(MODELS, "patches", patches)
    monkeypatch.setitem(ASCENTS, "sign", Ascent(by_sign))
    config = tiny_config(model="patches", ascent="sign", alpha_up=0.01, alpha_low=0.01, inner_params="head", **SMOKE)
    assert moved(config, dataset, tmp_path / "run")
    trained = load_checkpoint(tmp_path / "run/last.safetensors")
    assert trained.metadata["config"]["model"] == "patches"
    assert "params/3.weight" in trained.tensors
