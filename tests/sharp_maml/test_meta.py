"""The meta-gradient against three oracles, for every variant and option, and its laws."""

from __future__ import annotations

import itertools
from contextlib import suppress

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sharp_maml import Batch, Episode, adapt, meta_gradient, meta_loss, sharp_maml_method
from sharp_maml.ascent import adaptive, along_gradient, at_random, on_half, within
from sharp_maml.base import Execution
from tests.sharp_maml.oracles import (
    Quadratic,
    central_difference,
    relative_error,
    smooth_logits,
    smooth_loss,
    smooth_problem,
    unrolled_meta_gradient,
)

VARIANTS = {"maml": (0.0, 0.0), "low": (0.3, 0.0), "up": (0.0, 0.3), "both": (0.3, 0.2)}
OPTIONS = [
    {},
    {"perturbation": "recomputed"},
    {"perturbation": "differentiated"},
    {"inner_params": ["head"]},
    {"inner_params": ["bias", "body"], "perturbation": "differentiated"},
    {"inner_params": ["body"], "perturbation": "recomputed"},
    {"first_order": True},
    {"first_order": True, "perturbation": "recomputed"},
    {"query_loss": lambda params, episode: smooth_loss(params, episode.query) + smooth_loss(params, episode.support)},
]
seeds = st.integers(0, 2**31)
radii = st.floats(0.01, 1.0)


def name_of(value: object) -> str:
    return "-".join(f"{k}={v if not callable(v) else 'own'}" for k, v in value.items()) or "default"  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("fresh", [False, True], ids=["shared", "fresh"])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lane", [False, True], ids=["eager", "vmap"])
def test_every_variant_and_option_equals_the_unrolled_loop(variant, steps, fresh, options, lane):
    params, episodes = smooth_problem(steps + 10)
    low, up = VARIANTS[variant]
    settings = {"beta_low": 0.2, "alpha_low": low, "alpha_up": up, "steps": steps, **options}
    if fresh:
        settings["ascent_episodes"] = smooth_problem(99)[1]
    got = meta_gradient(smooth_loss, params, episodes, **settings)
    if lane:  # inside a transform the derivatives come from `torch.func`
        one = {name: value[None] for name, value in params.items()}
        got = torch.func.vmap(lambda p: meta_gradient(smooth_loss, p, episodes, **settings))(one)
        got = torch.utils._pytree.tree_map(lambda leaf: leaf[0], got)
    grad, loss, loss_ascent = unrolled_meta_gradient(smooth_loss, params, episodes, **settings)
    assert relative_error(got.grad, grad) <= 1e-12
    assert got.loss.item() == pytest.approx(loss, rel=1e-13)
    assert got.loss_ascent.item() == pytest.approx(loss_ascent, rel=1e-13)


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
@pytest.mark.parametrize("variant", ["low", "up", "both"])
@pytest.mark.parametrize("lane", [False, True], ids=["eager", "vmap"])
def test_an_ascent_on_norm_parameters_equals_the_unrolled_loop(variant, perturbation, lane):
    params, episodes = smooth_problem(7)

    def loss(p, batch):  # the bias under the name of a normalisation layer
        return smooth_loss({"body": p["body"], "bias": p["norm1.bias"], "head": p["head"]}, batch)

    params = {"body": params["body"], "norm1.bias": params["bias"], "head": params["head"]}
    low, up = VARIANTS[variant]
    settings = {"beta_low": 0.2, "alpha_low": low, "alpha_up": up, "steps": 2, "perturbation": perturbation}
    settings["direction"] = within({"norm1.bias"})
    got = meta_gradient(loss, params, episodes, **settings)
    if lane:
        one = {name: value[None] for name, value in params.items()}
        got = torch.func.vmap(lambda p: meta_gradient(loss, p, episodes, **settings))(one)
        got = torch.utils._pytree.tree_map(lambda leaf: leaf[0], got)
    mask = {"body": 0.0, "norm1.bias": 1.0, "head": 0.0}
    del settings["direction"]
    grad, value, value_above = unrolled_meta_gradient(loss, params, episodes, mask=mask, **settings)
    assert relative_error(got.grad, grad) <= 1e-12
    assert (got.loss.item(), got.loss_ascent.item()) == pytest.approx((value, value_above), rel=1e-13)


@pytest.mark.parametrize("options", [*OPTIONS[:5], {"first_order": True}], ids=name_of)
@pytest.mark.parametrize("variant", ["low", "up", "both"])
@pytest.mark.parametrize("lane", [False, True], ids=["eager", "vmap"])
def test_an_adaptive_ascent_equals_the_unrolled_loop(variant, options, lane):
    """With `differentiated` autograd goes through |theta| too."""
    params, episodes = smooth_problem(9)
    low, up = VARIANTS[variant]
    settings = {"beta_low": 0.2, "alpha_low": low, "alpha_up": up, "steps": 2, **options}
    got = meta_gradient(smooth_loss, params, episodes, direction=adaptive, **settings)
    if lane:
        one = {name: value[None] for name, value in params.items()}
        got = torch.func.vmap(lambda p: meta_gradient(smooth_loss, p, episodes, direction=adaptive, **settings))(one)
        got = torch.utils._pytree.tree_map(lambda leaf: leaf[0], got)
    grad, value, value_above = unrolled_meta_gradient(smooth_loss, params, episodes, eta=0.01, **settings)
    assert relative_error(got.grad, grad) <= 1e-12
    assert (got.loss.item(), got.loss_ascent.item()) == pytest.approx((value, value_above), rel=1e-13)


@pytest.mark.parametrize("direction", [along_gradient, adaptive])
def test_the_perturbations_of_an_inner_loop_that_is_differentiated_are_constants(direction):
    """What `meta_loss` differentiates: the gradient of the loop with eps frozen at what it is."""
    params, episodes = smooth_problem(21)
    settings = {"beta_low": 0.2, "alpha_low": 0.3}
    grad = torch.func.grad(smooth_loss)(params, episodes[0].support)
    eps = {name: 0.3 * value for name, value in direction(params, grad)[0].items()}

    def frozen(p):
        g = torch.func.grad(smooth_loss)({name: p[name] + eps[name] for name in p}, episodes[0].support)
        return smooth_loss({name: p[name] - 0.2 * g[name] for name in p}, episodes[0].query)

    def loop(p):
        return smooth_loss(
            adapt(smooth_loss, p, episodes[0].support, direction=direction, **settings), episodes[0].query
        )

    assert relative_error(torch.func.grad(loop)(params), central_difference(frozen, params)) <= 1e-8


@pytest.mark.parametrize("direction", [at_random, on_half])
def test_a_drawn_ascent_is_another_gradient_and_the_same_every_time(direction):
    params, episodes = smooth_problem(8)
    settings = {"beta_low": 0.2, "alpha_low": 0.3, "alpha_up": 0.3, "steps": 2}
    one, again, along = (
        meta_gradient(smooth_loss, params, episodes, direction=d, **settings).grad
        for d in (direction, direction, along_gradient)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert relative_error(one, along) > 1e-3


@pytest.mark.parametrize("names", [None, ["head"]])
@pytest.mark.parametrize("steps", [1, 2])
def test_maml_equals_finite_differences_of_the_meta_loss(steps, names):
    params, episodes = smooth_problem(1)
    settings = {"beta_low": 0.2, "steps": steps, "inner_params": names}
    got = meta_gradient(smooth_loss, params, episodes, **settings)
    expected = central_difference(lambda p: meta_loss(smooth_loss, p, episodes, **settings), params)
    assert relative_error(got.grad, expected) <= 1e-8


@pytest.mark.parametrize("steps", [1, 2])
def test_a_differentiated_perturbation_equals_finite_differences_of_the_perturbed_meta_loss(steps):
    params, episodes = smooth_problem(2)
    settings = {"beta_low": 0.2, "steps": steps, "alpha_low": 0.3}
    got = meta_gradient(smooth_loss, params, episodes, perturbation="differentiated", **settings)
    expected = central_difference(lambda p: meta_loss(smooth_loss, p, episodes, **settings), params)
    assert relative_error(got.grad, expected) <= 1e-8


@pytest.mark.parametrize("steps", [1, 2])
def test_a_differentiated_adaptive_perturbation_equals_finite_differences_too(steps):
    """The loss depends on theta through eps twice: through the gradient and through |theta|, here far from zero."""
    params, episodes = smooth_problem(2)
    params = {name: value + value.sign() * 0.2 for name, value in params.items()}  # |theta| has a corner at 0
    settings = {"beta_low": 0.2, "steps": steps, "alpha_low": 0.3, "direction": adaptive}
    got = meta_gradient(smooth_loss, params, episodes, perturbation="differentiated", **settings)

    def perturbed(p):
        adapted = [adapt(smooth_loss, p, episode.support, **settings) for episode in episodes]
        return sum(smooth_loss(a, e.query) for a, e in zip(adapted, episodes, strict=True)) / len(episodes)

    assert relative_error(got.grad, central_difference(perturbed, params, h=1e-4)) <= 1e-8


def test_in_inference_mode_the_numbers_are_the_same():
    """A mode without gradients must not make the inner steps nothing; what is made in it is copied."""
    params, episodes = smooth_problem(22)
    settings = {"beta_low": 0.2, "alpha_low": 0.3, "steps": 2}
    adapted = adapt(smooth_loss, params, episodes[0].support, **settings)
    result = meta_gradient(smooth_loss, params, episodes, alpha_up=0.1, **settings)
    with torch.inference_mode():
        made_here = {name: value.clone() for name, value in params.items()}
        in_mode = adapt(smooth_loss, made_here, Batch(*(v.clone() for v in episodes[0].support)), **settings)
        result_in_mode = meta_gradient(smooth_loss, params, episodes, alpha_up=0.1, **settings)
    assert all(torch.equal(in_mode[name], value) for name, value in adapted.items())
    assert all(torch.equal(result_in_mode.grad[name], value) for name, value in result.grad.items())


def test_reused_perturbations_are_constants_to_finite_differences():
    """With one step the reused eps_m is known from the support gradient at theta: freeze it, differentiate the rest."""
    params, episodes = smooth_problem(3)
    beta, low, up = 0.2, 0.3, 0.4

    def unit(grad):
        length = torch.sqrt(sum((g**2).sum() for g in grad.values()))
        return {n: g / length for n, g in grad.items()}

    fixed = [unit(central_difference(lambda p, e=e: smooth_loss(p, e.support), params)) for e in episodes]

    def frozen(p):
        total = 0.0
        for episode, u in zip(episodes, fixed, strict=True):
            point = {n: v + low * u[n] for n, v in p.items()}
            g = torch.func.grad(smooth_loss)(point, episode.support)
            total = total + smooth_loss({n: p[n] - beta * g[n] for n in p}, episode.query) / len(episodes)
        return total

    eps = unit(central_difference(frozen, params))
    expected = central_difference(frozen, {n: v + up * eps[n] for n, v in params.items()})
    got = meta_gradient(smooth_loss, params, episodes, beta_low=beta, alpha_low=low, alpha_up=up)
    assert relative_error(got.grad, expected) <= 1e-8


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=seeds, steps=st.integers(1, 4), beta=st.floats(0.01, 0.5))
@settings(max_examples=15, deadline=None)
def test_quadratic_tasks_equal_the_closed_form(variant, perturbation, seed, steps, beta):
    problem = Quadratic(seed)
    low, up = VARIANTS[variant]
    got = meta_gradient(
        problem.loss, problem.params, problem.episodes,
        beta_low=beta, alpha_low=low, alpha_up=up, steps=steps, perturbation=perturbation,
    )  # fmt: skip
    expected = problem.meta_gradient(beta=beta, alpha_low=low, alpha_up=up, steps=steps, perturbation=perturbation)
    assert relative_error(got.grad, {"x": torch.from_numpy(expected)}) <= 1e-8


def test_three_perturbations_are_three_different_gradients():
    params, episodes = smooth_problem(4)
    a, b, c = (
        meta_gradient(smooth_loss, params, episodes, beta_low=0.2, alpha_low=0.3, alpha_up=0.3, perturbation=p).grad
        for p in ("reused", "recomputed", "differentiated")
    )
    assert min(relative_error(x, y) for x, y in itertools.combinations((a, b, c), 2)) > 1e-6


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_radius_zero_is_maml_also_as_a_tensor(seed):
    params, episodes = smooth_problem(seed)
    zero = torch.tensor(0.0, dtype=torch.float64)
    maml = meta_gradient(smooth_loss, params, episodes, beta_low=0.1, steps=2)
    both = meta_gradient(smooth_loss, params, episodes, beta_low=0.1, steps=2, alpha_low=zero, alpha_up=zero)
    assert relative_error(both.grad, maml.grad) <= 1e-12
    assert both.loss == maml.loss


@given(seed=seeds, alpha=radii)
@settings(max_examples=20, deadline=None)
def test_the_order_of_episodes_does_not_matter(seed, alpha):
    params, episodes = smooth_problem(seed, tasks=3)
    settings = {"beta_low": 0.1, "alpha_low": alpha, "alpha_up": alpha}
    forward = meta_gradient(smooth_loss, params, episodes, **settings)
    backward = meta_gradient(smooth_loss, params, episodes[::-1], **settings)
    assert relative_error(backward.grad, forward.grad) <= 1e-10


@given(seed=seeds, scale=st.floats(1e-3, 1e3), alpha=radii)
@settings(max_examples=20, deadline=None)
def test_scaling_the_loss_and_the_inner_step_scales_the_gradient(seed, scale, alpha):
    """Perturbations have fixed length, so only the inner step sees the scale of the loss."""
    params, episodes = smooth_problem(seed)
    one = meta_gradient(smooth_loss, params, episodes, beta_low=0.1, alpha_low=alpha, alpha_up=alpha)
    scaled = meta_gradient(
        lambda p, b: scale * smooth_loss(p, b), params, episodes,
        beta_low=0.1 / scale, alpha_low=alpha, alpha_up=alpha,
    )  # fmt: skip
    assert relative_error(scaled.grad, {n: scale * g for n, g in one.grad.items()}) <= 1e-9


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
@pytest.mark.parametrize("fresh", [False, True])
def test_vmap_over_params_episodes_radii_and_steps_equals_the_loop(perturbation, fresh):
    lanes = 3
    problems = [smooth_problem(seed) for seed in range(lanes)]
    others = [smooth_problem(seed + 50)[1] for seed in range(lanes)]
    beta, low, up = (torch.tensor(v, dtype=torch.float64) for v in ([0.1, 0.2, 0.3], [0.0, 0.2, 0.4], [0.5, 0.0, 0.1]))

    def run(params, episodes, other, beta, low, up):
        return meta_gradient(
            smooth_loss, params, episodes, beta_low=beta, alpha_low=low, alpha_up=up, steps=2,
            perturbation=perturbation, ascent_episodes=other if fresh else None,
        )  # fmt: skip

    def stack(trees):
        return torch.utils._pytree.tree_map(lambda *leaves: torch.stack(leaves), trees[0], *trees[1:])

    batched = torch.func.vmap(run)(
        stack([p for p, _ in problems]), stack([e for _, e in problems]), stack(others), beta, low, up
    )
    for lane, ((params, episodes), other) in enumerate(zip(problems, others, strict=True)):
        alone = run(params, episodes, other, beta[lane], low[lane], up[lane])
        assert relative_error({n: g[lane] for n, g in batched.grad.items()}, alone.grad) <= 1e-12
        torch.testing.assert_close(batched.loss_ascent[lane], alone.loss_ascent)


@pytest.mark.parametrize("perturbation", ["reused", "recomputed", "differentiated"])
def test_a_zero_gradient_gives_a_zero_perturbation_and_no_nan(perturbation):
    episodes = [Episode(Batch(torch.eye(2), torch.zeros(2)), Batch(torch.eye(2), torch.zeros(2)))]
    result = meta_gradient(
        Quadratic.loss, {"x": torch.zeros(2)}, episodes,
        beta_low=0.1, alpha_low=0.5, alpha_up=0.5, steps=2, perturbation=perturbation,
    )  # fmt: skip
    assert torch.equal(result.grad["x"], torch.zeros(2))


def test_a_parameter_that_the_loss_ignores_gets_a_zero_gradient():
    params, episodes = smooth_problem(5)
    params["unused"] = torch.ones(2, dtype=torch.float64)
    result = meta_gradient(smooth_loss, params, episodes, beta_low=0.1, alpha_low=0.1, alpha_up=0.1)
    assert torch.equal(result.grad["unused"], torch.zeros(2, dtype=torch.float64))


def test_the_result_is_detached_and_the_arguments_are_untouched():
    params, episodes = smooth_problem(6)
    leaves = {n: v.clone().requires_grad_() for n, v in params.items()}
    result = meta_gradient(smooth_loss, leaves, episodes, beta_low=0.1, alpha_low=0.1, alpha_up=0.1)
    assert not any(v.requires_grad for v in (*result.grad.values(), result.loss, result.loss_ascent))
    assert all(torch.equal(leaves[n], params[n]) and leaves[n].grad is None for n in params)


def test_no_graph_of_the_query_set_is_kept_for_a_second_derivative():
    """The loss of the query batch is evaluated once per episode, and its graph is gone when the next episode begins."""
    params, episodes = smooth_problem(7, tasks=3)
    alive, most = set(), 0

    class Watched(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.token = Token()

        @staticmethod
        def backward(ctx, g):
            return g

    class Token:
        def __init__(self):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    def query_loss(p, episode):
        nonlocal most
        most = max(most, len(alive))
        return Watched.apply(smooth_loss(p, episode.query))

    meta_gradient(smooth_loss, params, episodes, beta_low=0.1, steps=2, query_loss=query_loss)
    assert most == 0


@pytest.mark.parametrize("differentiable", [True, False])
def test_adapted_parameters_are_the_inner_loop_written_out(differentiable):
    params, episodes = smooth_problem(8)
    support = episodes[0].support
    x = params
    for _ in range(2):
        g = torch.func.grad(smooth_loss)(x, support)
        length = torch.sqrt(sum((v**2).sum() for v in g.values()))
        g = torch.func.grad(smooth_loss)({n: x[n] + 0.3 * g[n] / length for n in x}, support)
        x = {n: x[n] - 0.2 * g[n] for n in x}
    with torch.set_grad_enabled(differentiable):
        adapted = adapt(smooth_loss, params, support, beta_low=0.2, steps=2, alpha_low=0.3)
    assert relative_error(adapted, x) <= 1e-14


def test_the_hessian_of_the_meta_loss_is_symmetric_and_is_the_derivative_of_the_meta_gradient():
    params, episodes = smooth_problem(9)
    _, product = torch.func.vjp(torch.func.grad(lambda p: meta_loss(smooth_loss, p, episodes, beta_low=0.2)), params)
    v = smooth_problem(10)[0]
    (by_reverse,) = product(v)

    def grad_at(t):
        at = {n: params[n] + t * v[n] for n in params}
        return meta_gradient(smooth_loss, at, episodes, beta_low=0.2).grad

    h = 1e-4
    difference = {n: (grad_at(h)[n] - grad_at(-h)[n]) / (2 * h) for n in params}
    assert relative_error(by_reverse, difference) <= 1e-6


def test_inner_params_leave_the_other_names_where_they_are():
    params, episodes = smooth_problem(11)
    adapted = adapt(smooth_loss, params, episodes[0].support, beta_low=0.2, inner_params={"head"}, alpha_low=0.1)
    assert torch.equal(adapted["body"], params["body"])
    assert not torch.equal(adapted["head"], params["head"])


def test_the_mean_over_ranks_is_taken_before_the_upper_ascent():
    """Two ranks of one episode each, exchanged by hand, give what one process gives on both episodes."""
    params, episodes = smooth_problem(12, tasks=2)
    settings = {"beta_low": 0.2, "alpha_low": 0.1, "alpha_up": 0.3}
    whole = meta_gradient(smooth_loss, params, episodes, **settings)
    seen: list[dict] = []

    def exchange(tree):
        """Replays the other rank up to the same exchange; trees come in a fixed order."""
        turn = len(seen)
        seen.append(tree)
        others: list[dict] = []

        def record(other):
            others.append(other)
            if len(others) <= turn:  # already exchanged: both ranks go on with the mean
                return means[len(others) - 1]
            raise StopIteration

        with suppress(StopIteration):
            meta_gradient(smooth_loss, params, episodes[1:], execution=Execution(record), **settings)
        means.append({n: (v + others[turn][n]) / 2 for n, v in tree.items()})
        return means[-1]

    means: list[dict] = []
    shared = meta_gradient(smooth_loss, params, episodes[:1], execution=Execution(exchange), **settings)
    assert relative_error(shared.grad, whole.grad) <= 1e-13
    torch.testing.assert_close(shared.loss, whole.loss)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta_low": -0.1}, "beta_low must be a finite number >= 0, got -0.1"),
        ({"alpha_low": -1.0}, "alpha_low must be a finite number >= 0"),
        ({"alpha_up": float("nan")}, "alpha_up must be a finite number >= 0, got nan"),
        ({"steps": -1}, "steps must be >= 0, got -1"),
        ({"perturbation": "frozen"}, "perturbation must be one of reused, recomputed, differentiated, got 'frozen'"),
        ({"perturbation": "differentiated", "first_order": True}, "needs second derivatives"),
        ({"inner_params": ["tail"]}, "inner_params must name some of body, bias, head; got tail"),
        ({"inner_params": []}, "got no name at all"),
        ({"ascent_episodes": []}, r"ascent_episodes must be as many as episodes \(2\), got 0"),
    ],
)
def test_a_bad_setting_is_named(bad, message):
    params, episodes = smooth_problem(13)
    with pytest.raises(ValueError, match=message):
        meta_gradient(smooth_loss, params, episodes, **{"beta_low": 0.1, **bad})


def test_no_episode_is_an_error():
    params, _ = smooth_problem(14)
    with pytest.raises(ValueError, match="episodes is empty"):
        meta_gradient(smooth_loss, params, [], beta_low=0.1)
    with pytest.raises(ValueError, match="episodes is empty"):
        meta_loss(smooth_loss, params, [], beta_low=0.1)


def classification() -> tuple[dict, Episode]:
    params, _ = smooth_problem(15)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    targets = torch.arange(10) % 2
    return params, Episode(Batch(inputs[:4], targets[:4]), Batch(inputs[4:], targets[4:]))


def context_logits(params, inputs, context):
    """A network that, like batch norm, centres by the mean of the inputs or of the context."""
    return smooth_logits(params, inputs - (inputs if context is None else context).mean(0))


@pytest.mark.parametrize("mode", ["transductive", "support"])
def test_a_method_normalises_the_query_set_as_its_batch_norm_mode_says(mode):
    params, episode = classification()
    method = sharp_maml_method(context_logits, beta_low=0.1, batch_norm=mode)
    whole = method.predict(params, episode)
    first = method.predict(params, Episode(episode.support, Batch(episode.query.inputs[:1], episode.query.targets[:1])))
    assert torch.allclose(whole[:1], first) == (mode == "support")


def test_a_methods_gradient_is_the_meta_gradient_of_the_cross_entropy():
    params, episode = classification()
    method = sharp_maml_method(context_logits, beta_low=0.1, steps=2, alpha_low=0.1, alpha_up=0.2, batch_norm="support")

    def cross_entropy(p, inputs, context, targets):
        return -torch.log_softmax(context_logits(p, inputs, context), -1)[range(len(targets)), targets].mean()

    expected, loss, _ = unrolled_meta_gradient(
        lambda p, b: cross_entropy(p, b.inputs, None, b.targets), params, [episode],
        beta_low=0.1, steps=2, alpha_low=0.1, alpha_up=0.2,
        query_loss=lambda p, e: cross_entropy(p, e.query.inputs, e.support.inputs, e.query.targets),
    )  # fmt: skip
    got = method.gradient(params, [episode])
    assert relative_error(got.grad, expected) <= 1e-12
    assert got.loss.item() == pytest.approx(loss, rel=1e-13)


def test_prediction_is_plain_unless_asked_and_takes_its_own_number_of_steps():
    params, episode = classification()
    low = {"beta_low": 0.1, "alpha_low": 0.5}
    plain = sharp_maml_method(context_logits, **low).predict(params, episode)
    assert torch.equal(plain, sharp_maml_method(context_logits, beta_low=0.1).predict(params, episode))
    assert not torch.equal(
        plain, sharp_maml_method(context_logits, perturb_at_test=True, **low).predict(params, episode)
    )
    more = sharp_maml_method(context_logits, test_steps=3, **low).predict(params, episode)
    assert torch.equal(more, sharp_maml_method(context_logits, beta_low=0.1, steps=3).predict(params, episode))


def test_in_inference_mode_a_method_adapts():
    params, episode = classification()
    method = sharp_maml_method(context_logits, beta_low=0.1, steps=2)
    adapted, predicted = method.adapt(params, episode.support), method.predict(params, episode)
    with torch.inference_mode():
        in_mode, predicted_in_mode = method.adapt(params, episode.support), method.predict(params, episode)
    assert not torch.equal(adapted["head"], params["head"])
    assert all(torch.equal(in_mode[name], value) for name, value in adapted.items())
    assert torch.equal(predicted_in_mode, predicted)


def test_an_unknown_batch_norm_mode_is_named():
    with pytest.raises(ValueError, match="batch_norm must be one of transductive, support, got 'running'"):
        sharp_maml_method(context_logits, beta_low=0.1, batch_norm="running")
