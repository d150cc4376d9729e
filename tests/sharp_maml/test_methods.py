from __future__ import annotations

from typing import get_args

import pytest
import torch

from sharp_maml import Config, Protocol, episode
from sharp_maml.base import BatchNorm, Perturbation
from sharp_maml.config import InnerParams
from sharp_maml.methods import build, inner_names, network
from tests.sharp_maml.tiny import tiny_config, tiny_dataset

METHODS = [
    {},
    {"alpha_low": 0.05},
    {"alpha_up": 0.05},
    *({"alpha_low": 0.05, "alpha_up": 0.05, "perturbation": name} for name in get_args(Perturbation)),
    *({"inner_params": name} for name in get_args(InnerParams)),
    {"first_order": True, "alpha_low": 0.05, "alpha_up": 0.05},
    {"alpha_low": 0.05, "perturb_at_test": True},
    {"test_steps": 0},
    {"method": "matching"},
    {"method": "matching-fce"},
]
NAMES = [f"{block}{i}.{kind}" for i in (1, 2, 3, 4) for block, kind in
         (("conv", "weight"), ("norm", "weight"), ("norm", "bias"))] + ["head.weight", "head.bias"]  # fmt: skip


def config(settings: dict) -> Config:
    """The tiny problem; what belongs to adaptation is left out where nothing adapts."""
    if "method" in settings:
        settings = {**{name: getattr(Config(), name) for name in ("steps", "test_steps", "beta_low")}, **settings}
    return tiny_config(**settings)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    dataset = tiny_dataset(tmp_path_factory.mktemp("methods") / "tiny")
    return {
        dtype: [episode(dataset, "train", Protocol(3, 1, 4), seed=0, index=i, dtype=dtype) for i in range(2)]
        for dtype in (torch.float32, torch.float64)
    }


@pytest.mark.parametrize("mode", get_args(BatchNorm))
@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_every_method_predicts_a_number_for_each_query_and_way_and_has_a_gradient(episodes, settings, mode):
    drawn = episodes[torch.float32]
    experiment = build(config({**settings, "batch_norm": mode}), channels=3)
    params = experiment.init(0)
    logits = experiment.method.predict(params, drawn[0])
    assert logits.shape == (12, 3)
    assert torch.isfinite(logits).all()
    result = experiment.method.gradient(params, drawn)
    assert result.grad.keys() == params.keys()
    for name, value in result.grad.items():
        assert value.shape == params[name].shape
        assert torch.isfinite(value).all()
        assert value.abs().max() > 0, name
    assert torch.isfinite(result.loss)
    assert torch.isfinite(result.loss_ascent)


def gradient(episodes, **settings):
    experiment = build(config({**settings, "dtype": "float64"}), channels=3)
    result = experiment.method.gradient(experiment.init(0), episodes[torch.float64])
    return torch.cat([value.reshape(-1) for value in result.grad.values()])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"alpha_low": 0.05}),
        ({}, {"alpha_up": 0.05}),
        ({}, {"beta_low": 0.3}),
        ({}, {"steps": 2}),
        ({}, {"first_order": True}),
        ({}, {"batch_norm": "support"}),
        *(({}, {"inner_params": name}) for name in ("head", "body", "all-but-norm")),
        *(
            ({"alpha_low": 0.05, "alpha_up": 0.05}, {"alpha_low": 0.05, "alpha_up": 0.05, "perturbation": name})
            for name in ("recomputed", "differentiated")
        ),
        ({"method": "matching"}, {"method": "matching", "batch_norm": "support"}),
    ],
    ids=str,
)
def test_every_setting_of_training_reaches_the_gradient(episodes, one, other):
    assert (gradient(episodes, **one) - gradient(episodes, **other)).abs().max() > 1e-6


@pytest.mark.parametrize("other", [{"test_steps": 1}, {"alpha_low": 0.05, "perturb_at_test": True}], ids=str)
def test_every_setting_of_the_test_reaches_the_prediction_and_not_the_gradient_of_training(episodes, other):
    one = {name: value for name, value in other.items() if name == "alpha_low"}
    drawn = episodes[torch.float64][0]
    predictions = []
    for settings in (one, other):
        experiment = build(config({**settings, "dtype": "float64"}), channels=3)
        predictions.append(experiment.method.predict(experiment.init(0), drawn))
    assert (predictions[0] - predictions[1]).abs().max() > 1e-6
    assert torch.equal(gradient(episodes, **one), gradient(episodes, **other))


def test_the_mean_over_ranks_is_taken_of_the_gradient(episodes, monkeypatch):
    """A mean that doubles the tree doubles the gradient of MAML."""
    plain = build(tiny_config(), channels=3)
    double = lambda tree: {name: 2 * value for name, value in tree.items()}  # noqa: E731
    monkeypatch.setattr("sharp_maml.methods.mean_over_ranks", double)
    doubled = build(tiny_config(), channels=3)
    drawn = episodes[torch.float32]
    two, one = (each.method.gradient(each.init(0), drawn).grad for each in (doubled, plain))
    for name, value in one.items():
        torch.testing.assert_close(two[name], 2 * value)


@pytest.mark.parametrize("settings", [{}, {"method": "matching-fce"}], ids=str)
def test_predicting_in_another_mode_than_that_of_training_is_predicting_as_if_trained_in_it(episodes, settings):
    drawn = episodes[torch.float32][0]
    asked = build(config({**settings, "batch_norm": "transductive"}), channels=3)
    trained = build(config({**settings, "batch_norm": "support"}), channels=3)
    params = asked.init(0)
    adapted = asked.method.adapt(params, drawn.support)
    assert torch.equal(asked.method.logits(adapted, drawn, "support"), trained.method.predict(params, drawn))
    assert not torch.equal(asked.method.logits(adapted, drawn, None), trained.method.predict(params, drawn))


@pytest.mark.parametrize("method", ["sharp-maml", "matching", "matching-fce"])
def test_equal_seeds_give_equal_parameters_and_other_seeds_other_ones(method):
    init = build(config({"method": method} if method != "sharp-maml" else {}), channels=3).init
    first, again, other = init(0), init(0), init(1)
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, other[name]) == name.startswith("norm")  # ones and zeros


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [{}, {"method": "matching-fce"}], ids=str)
def test_parameters_gradients_and_predictions_have_the_dtype_of_the_config(episodes, settings, dtype):
    experiment = build(config({**settings, "dtype": dtype}), channels=3)
    kind = getattr(torch, dtype)
    params = experiment.init(0)
    result = experiment.method.gradient(params, episodes[kind])
    found = [*params.values(), *result.grad.values(), result.loss, experiment.method.predict(params, episodes[kind][0])]
    assert {value.dtype for value in found} == {kind}


def test_both_dtypes_begin_at_the_same_numbers():
    one, other = (build(tiny_config(dtype=dtype), channels=3).init(3) for dtype in ("float32", "float64"))
    assert all(torch.equal(value.double(), other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ({}, {"conv1.weight": (4, 1, 3, 3), "conv4.weight": (4, 4, 3, 3), "head.weight": (3, 16)}),
        ({"method": "matching-fce"}, {"fce.query.weight_hh": (64, 32)}),
    ],
    ids=str,
)
def test_the_network_has_the_filters_ways_pixels_and_channels_asked_for(settings, shapes):
    """32 pixels leave 2 x 2 after four halvings: 16 features of 4 filters."""
    params = build(config({**settings, "image_size": 32}), channels=1).init(0)
    assert {name: tuple(params[name].shape) for name in shapes} == shapes


def test_matching_networks_have_no_head():
    assert not [name for name in build(config({"method": "matching"}), channels=3).init(0) if name.startswith("head")]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", None),
        ("head", ["head.weight", "head.bias"]),
        ("body", NAMES[:-2]),
        ("all-but-norm", [name for name in NAMES if name.split(".")[0] not in ("norm1", "norm2", "norm3", "norm4")]),
    ],
)
def test_a_choice_of_inner_parameters_stands_for_these_names_of_conv4(choice, expected):
    model = network(tiny_config(), channels=3)
    assert list(model.init(torch.Generator())) == NAMES
    assert inner_names(choice, model) == expected


@pytest.mark.parametrize("choice", get_args(InnerParams))
def test_prediction_moves_only_the_inner_parameters(episodes, monkeypatch, choice):
    from sharp_maml import methods

    seen = []
    original = methods.adapt
    monkeypatch.setattr(methods, "adapt", lambda *args, **kwargs: seen.append(original(*args, **kwargs)) or seen[-1])
    experiment = build(tiny_config(inner_params=choice), channels=3)
    params = experiment.init(0)
    experiment.method.predict(params, episodes[torch.float32][0])
    moved = [name for name, value in seen[0].items() if not torch.equal(value, params[name])]
    assert moved == (inner_names(choice, network(tiny_config(), channels=3)) or NAMES)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda:1', but torch finds no CUDA device here"):
        build(tiny_config(device="cuda:1"), channels=3)


@pytest.mark.gpu
def test_on_a_gpu_parameters_and_gradients_lie_there_and_equal_those_of_the_cpu(episodes, gpu):
    drawn = episodes[torch.float64]
    there = [type(e)(*(type(b)(*(t.to(gpu) for t in b)) for b in e)) for e in drawn]
    settings = {"alpha_low": 0.05, "alpha_up": 0.05, "dtype": "float64"}
    cpu, cuda = (build(tiny_config(device=device, **settings), channels=3) for device in ("cpu", str(gpu)))
    assert {value.device.type for value in cuda.init(0).values()} == {"cuda"}
    one, other = cpu.method.gradient(cpu.init(0), drawn).grad, cuda.method.gradient(cuda.init(0), there).grad
    for name, value in one.items():
        torch.testing.assert_close(other[name].cpu(), value, rtol=1e-9, atol=1e-12)
