"""`check_method` accepts what is right in every variant, and tells each broken method by the law meant for it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from sharp_maml import (
    ASCENTS,
    Batch,
    Episode,
    Execution,
    Method,
    MethodError,
    adapt,
    check_method,
    conv4,
    from_module,
    in_threads,
    matching_method,
    meta_gradient,
    mlp,
    sharp_maml_method,
)
from sharp_maml.base import PLAIN
from tests.sharp_maml.oracles import smooth_logits, smooth_loss, smooth_problem

LAWS = ("structure", "state", "aliasing", "dtype", "order", "processes", "zero radius", "gradient")
VARIANTS = {"maml": (0.0, 0.0), "low": (0.3, 0.0), "up": (0.0, 0.3), "both": (0.3, 0.2)}


def classes(n: int, generator: torch.Generator) -> Batch:
    return Batch(torch.randn(n, 4, generator=generator), torch.arange(n) % 3)


def problem(network=None, tasks: int = 3):
    """Logits and parameters of a smooth network, or of another one, and episodes of three classes."""
    generator = torch.Generator().manual_seed(1)
    model = network or mlp(sizes=(4, 5, 3))
    episodes = [Episode(classes(6, generator), classes(9, generator)) for _ in range(tasks)]
    return model.logits, model.init(generator), episodes


def verdicts(check) -> dict[str, str]:
    return {law.name: law.verdict for law in check.laws}


def broken(method, params, episodes) -> set[str]:
    """The laws that a method breaks."""
    with pytest.raises(MethodError) as caught:
        check_method(method, params, episodes)
    found = {name for name, verdict in verdicts(caught.value.check).items() if verdict == "failed"}
    assert all(name in str(caught.value).split("\n\n")[0] for name in found)
    return found


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"inner_params": ["layer2.weight"]}, {"batch_norm": "support"}])
@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated", "first-order"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_passes_every_law(variant, perturbation, options):
    logits, params, episodes = problem()
    low, up = VARIANTS[variant]
    given = {"first_order": True} if perturbation == "first-order" else {"perturbation": perturbation}
    make = partial(sharp_maml_method, logits, beta_low=0.2, alpha_low=low, alpha_up=up, **given, **options)
    assert verdicts(check_method(make, params, episodes)) == dict.fromkeys(LAWS, "passed")


@pytest.mark.parametrize("name", ["asam", "random", "half"])
@pytest.mark.parametrize("perturbation", ["reused", "recomputed"])
def test_every_ascent_passes_and_one_that_is_drawn_is_tried_without_the_upper_one_where_it_must(name, perturbation):
    logits, params, episodes = problem()
    make = partial(
        sharp_maml_method, logits, beta_low=0.2, alpha_low=0.2, alpha_up=0.1, perturbation=perturbation,
        direction=ASCENTS[name].direction,
    )  # fmt: skip
    check = check_method(make, params, episodes)
    assert verdicts(check) == dict.fromkeys(LAWS, "passed")
    why = {law.name: law.why for law in check.laws}
    for law in ("order", "processes"):
        assert ("without the upper ascent" in why[law]) == ASCENTS[name].draws


def test_a_method_that_is_made_already_is_tried_on_the_laws_that_need_no_other_settings():
    logits, params, episodes = problem()
    expected = dict.fromkeys(LAWS, "passed") | {"processes": "not applicable", "zero radius": "not applicable"}
    assert verdicts(check_method(sharp_maml_method(logits, beta_low=0.2), params, episodes)) == expected
    make = partial(matching_method, mlp(sizes=(4, 5)).logits, fce=False, ways=3)
    embedding = {name: value for name, value in params.items() if name.startswith("layer1")}
    assert verdicts(check_method(make(), embedding, episodes)) == expected
    assert verdicts(check_method(make, embedding, episodes)) == expected | {"processes": "passed"}


def test_of_a_made_method_whose_gradient_is_taken_above_the_law_of_the_gradient_is_not_asked():
    logits, params, episodes = problem()
    check = check_method(sharp_maml_method(logits, beta_low=0.2, alpha_up=0.1), params, episodes)
    (law,) = (law for law in check.laws if law.name == "gradient")
    assert law.verdict == "not applicable"
    assert "give what makes the method" in law.why


def test_the_table_fits_a_hundred_columns_and_has_every_law():
    logits, params, episodes = problem()
    shown = str(check_method(partial(sharp_maml_method, logits, beta_low=0.2, alpha_low=0.1), params, episodes))
    assert max(map(len, shown.splitlines())) < 100
    assert [name for name in LAWS if f"\n{name} " in shown] == list(LAWS)


def test_kinks_are_no_failure():
    """With its first layer at zero all units of a ReLU are at their kinks; only along the last layer it is smooth."""
    logits, params, episodes = problem(mlp(sizes=(4, 5, 3), activation=torch.relu))
    make = partial(sharp_maml_method, logits, beta_low=0.2)
    assert verdicts(check_method(make, params, episodes)) == dict.fromkeys(LAWS, "passed")
    at_kinks = {name: 0 * value if name.startswith("layer1") else value for name, value in params.items()}
    (law,) = (law for law in check_method(make, at_kinks, episodes).laws if law.name == "gradient")
    assert (law.verdict, law.why) == ("passed", "central differences along 1 of 3 directions")


def test_where_no_difference_can_be_believed_the_gradient_is_inconclusive():
    """A direction that is drawn from the last digits of the gradient jumps with every step."""
    logits, params, episodes = problem()
    make = partial(sharp_maml_method, logits, beta_low=0.2, alpha_low=0.2, perturbation="differentiated")
    check = check_method(partial(make, direction=ASCENTS["random"].direction), params, episodes)
    assert verdicts(check) == dict.fromkeys(LAWS, "passed") | {"gradient": "inconclusive"}


def test_a_convolutional_network_with_pooling_passes():
    model = conv4(ways=3, filters=2, image_size=16, channels=1)
    generator = torch.Generator().manual_seed(2)
    halves = [Batch(torch.randn(3, 1, 16, 16, generator=generator), torch.arange(3)) for _ in range(4)]
    episodes = [Episode(*halves[:2]), Episode(*halves[2:])]
    make = partial(sharp_maml_method, model.logits, beta_low=0.1, alpha_low=0.01, alpha_up=0.01)
    check = check_method(make, model.init(generator), episodes)
    assert verdicts(check) == dict.fromkeys(LAWS, "passed")


def test_a_loss_of_ones_own_is_given_by_what_makes_the_method():
    """With the keywords that the laws change, and no others."""
    params, episodes = smooth_problem(3, tasks=3)

    def make(*, alpha_low=0.1, alpha_up=0.1, direction=ASCENTS["gradient"].direction, execution=PLAIN):
        given = {"beta_low": 0.2, "alpha_low": alpha_low, "direction": direction}
        gradient = partial(meta_gradient, smooth_loss, alpha_up=alpha_up, execution=execution, **given)
        end = torch.no_grad()(partial(adapt, smooth_loss, **given))
        return Method(gradient, end, lambda adapted, episode, mode: smooth_logits(adapted, episode.query.inputs))

    assert verdicts(check_method(make, params, episodes)) == dict.fromkeys(LAWS, "passed")


def test_a_method_is_tried_in_the_execution_that_it_was_made_with():
    logits, params, episodes = problem()
    execution = Execution(map_episodes=in_threads(2))
    make = partial(sharp_maml_method, logits, beta_low=0.2, alpha_low=0.3, alpha_up=0.2, execution=execution)
    assert verdicts(check_method(make, params, episodes)) == dict.fromkeys(LAWS, "passed")
    first_alone = Execution(map_episodes=lambda function, items: map(function, list(items)[:1] * len(episodes)))
    assert "order" in broken(partial(make, execution=first_alone), params, episodes)


# What is broken, and the law that must tell.


def changed(change, *, given=None, **settings):
    """The method of the problem with what it returns changed."""
    logits, params, episodes = given or problem()
    method = sharp_maml_method(logits, beta_low=0.2, **settings)
    return method._replace(gradient=lambda p, e: change(method.gradient, p, e)), params, episodes


def test_a_gradient_in_memory_that_is_used_again_is_told_by_aliasing():
    memory = {}

    def reused(gradient, params, episodes):
        result = gradient(params, episodes)
        for name, value in result.grad.items():
            memory.setdefault((name, value.dtype), torch.empty_like(value)).copy_(value)
        return result._replace(grad={name: memory[name, value.dtype] for name, value in result.grad.items()})

    assert broken(*changed(reused)) == {"aliasing"}


@pytest.mark.parametrize("what", ["parameters", "inputs", "adapt"])
def test_a_method_that_changes_what_it_is_given_is_told_by_aliasing(what):
    def spoils(gradient, params, episodes):
        result = gradient(params, episodes)
        (params["layer1.weight"] if what == "parameters" else episodes[0].query.inputs).mul_(2)
        return result

    method, params, episodes = changed(spoils if what != "adapt" else lambda gradient, *given: gradient(*given))
    if what == "adapt":
        original = method.adapt
        method = method._replace(adapt=lambda p, batch: (original(p, batch), batch.inputs.mul_(2))[0])
    assert broken(method, params, episodes) == {"aliasing"}


def test_a_gradient_that_is_the_parameters_memory_is_told_by_aliasing():
    """The gradient of |theta|^2 / 2, without a copy."""
    _, params, episodes = problem()

    def gradient(p, e):
        value = sum((v**2).sum() for v in p.values()) / 2
        return meta_gradient(smooth_loss, p, e, beta_low=0, steps=0, query_loss=lambda p, e: value)._replace(grad=p)

    assert broken(sharp_maml_method(problem()[0], beta_low=0.1)._replace(gradient=gradient), params, episodes) == {
        "aliasing"
    }


def test_a_loss_with_a_memory_is_told_by_state():
    calls = []

    def counting(gradient, params, episodes):
        calls.append(1)
        result = gradient(params, episodes)
        return result._replace(loss=result.loss + 1e-12 * len(calls), loss_ascent=result.loss_ascent)

    assert broken(*changed(counting)) == {"state"}


def test_dropout_that_draws_anew_is_told_by_state():
    network = from_module(nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)))
    assert broken(partial(sharp_maml_method, network.logits, beta_low=0.1), *problem(network)[1:]) == {"state"}


def test_a_mean_that_weighs_the_first_episode_more_is_told_by_order():
    """Gradient and loss alike, so that the one is still the derivative of the other."""

    def weighted(gradient, params, episodes):
        first, rest = gradient(params, episodes[:1]), gradient(params, episodes[1:])
        grad = {name: 0.9 * value + 0.1 * rest.grad[name] for name, value in first.grad.items()}
        loss = 0.9 * first.loss + 0.1 * rest.loss
        return first._replace(grad=grad, loss=loss, loss_ascent=loss)

    assert broken(*changed(weighted)) == {"order"}


def test_a_float32_that_is_returned_for_a_float64_is_told_by_dtype():
    def single(gradient, params, episodes):
        result = gradient(params, episodes)
        return result._replace(grad={name: value.float() for name, value in result.grad.items()})

    assert broken(*changed(single)) == {"dtype"}


def test_first_order_sold_as_exact_is_told_by_the_gradient():
    assert broken(*changed(lambda gradient, *given: gradient(*given), first_order=True)) == {"gradient"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wrong_hessian_product_is_told_by_the_gradient(variant):
    """A layer whose first derivative is right and whose second is 1 % too large."""

    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx, g):
            return g * Slope.apply(ctx.saved_tensors[0])

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return 1 - x.tanh() ** 2

        @staticmethod
        def backward(ctx, g):
            y = ctx.saved_tensors[0].tanh()
            return 1.01 * g * -2 * y * (1 - y**2)

    logits, params, episodes = problem(mlp(sizes=(4, 5, 3), activation=Tanh.apply))
    low, up = VARIANTS[variant]
    make = partial(sharp_maml_method, logits, beta_low=0.2, alpha_low=low, alpha_up=up)
    assert broken(make, params, episodes) == {"gradient"}


def test_a_wrong_pullback_of_an_ascent_is_told_by_the_gradient():
    def wrong(params, grad):
        unit, pullback = ASCENTS["gradient"].direction(params, grad)
        return unit, lambda w: ({}, {name: 1.01 * value for name, value in pullback(w)[1].items()})

    logits, params, episodes = problem()
    make = partial(
        sharp_maml_method, logits, beta_low=0.2, alpha_low=0.3, perturbation="differentiated", direction=wrong
    )
    assert broken(make, params, episodes) == {"gradient"}
    assert verdicts(check_method(partial(make, perturbation="reused"), params, episodes))["gradient"] == "passed"


def test_an_ascent_that_is_not_finite_is_told_by_the_radius_of_zero_where_no_radius_uses_it():
    def infinite(params, grad):
        return {name: value / 0 for name, value in grad.items()}, lambda w: ({}, w)

    logits, params, episodes = problem()
    assert broken(partial(sharp_maml_method, logits, beta_low=0.2, direction=infinite), params, episodes) == {
        "zero radius"
    }


def test_a_mean_over_processes_that_is_taken_after_the_upper_ascent_is_told_by_processes():
    logits, params, episodes = problem()

    def make(*, alpha_low=0.0, alpha_up=0.3, direction=ASCENTS["gradient"].direction, execution=PLAIN):
        method = sharp_maml_method(logits, beta_low=0.2, alpha_low=alpha_low, alpha_up=alpha_up, direction=direction)

        def gradient(p, e):
            result = method.gradient(p, e)
            losses = execution.mean_over_ranks({"loss": result.loss, "loss_ascent": result.loss_ascent})
            return result._replace(grad=execution.mean_over_ranks(result.grad), **losses)

        return method._replace(gradient=gradient)

    assert broken(make, params, episodes) == {"processes"}
    assert verdicts(check_method(partial(make, alpha_up=0.0), params, episodes)) == dict.fromkeys(LAWS, "passed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda grad: {name: value for name, value in grad.items() if name != "layer1.bias"},
            "layer1.bias has shape None",
        ),
        (lambda grad: grad | {"more": grad["layer1.bias"]}, "more is no parameter"),
        (lambda grad: grad | {"layer1.bias": grad["layer1.bias"][None]}, r"layer1.bias has shape \(1, 5\)"),
        (lambda grad: grad | {"layer1.bias": grad["layer1.bias"] / 0}, "layer1.bias is not finite"),
        (lambda grad: {name: value.requires_grad_() for name, value in grad.items()}, "a graph is kept"),
    ],
)
def test_a_gradient_of_another_form_is_told_by_structure_and_the_other_laws_are_not_asked(change, message):
    def other(gradient, params, episodes):
        result = gradient(params, episodes)
        return result._replace(grad=change(result.grad))

    method, params, episodes = changed(other)
    with pytest.raises(MethodError, match=message) as caught:
        check_method(method, params, episodes)
    assert verdicts(caught.value.check) == dict.fromkeys(LAWS, "not applicable") | {"structure": "failed"}


def test_what_a_method_raises_is_told_with_the_law():
    def fails(gradient, params, episodes):
        raise KeyError("layer9")

    with pytest.raises(MethodError, match="structure: KeyError: 'layer9'"):
        check_method(*changed(fails))


def test_a_question_that_cannot_be_asked_is_refused():
    logits, params, episodes = problem()
    with pytest.raises(ValueError, match=r"episodes must be at least 2, .*; got 1"):
        check_method(partial(sharp_maml_method, logits, beta_low=0.1), params, episodes[:1])
    with pytest.raises(ValueError, match="this one needs logits, beta_low: give it with functools"):
        check_method(sharp_maml_method, params, episodes)
