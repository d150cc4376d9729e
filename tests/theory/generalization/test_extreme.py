"""The settings that need a term: their losses by the core and by enumeration, and the bound written out twice."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.stats import norm

from sharp_maml import Batch, Episode, meta_gradient
from theory.check.budgets import SMOKE
from theory.generalization import pac_bayes
from theory.generalization.claims import carried_over, tail, terms
from theory.generalization.extreme import (
    SLOPE,
    ZONE,
    coin,
    inner_noise,
    inner_risks,
    inner_step,
    labels,
    loss,
    own_samples,
    sum_of,
)
from theory.generalization.setting import DELTA

STEP = inner_step(5)


def episodes(signs: torch.Tensor) -> list[Episode]:
    """A support set a row, which is the query set, too."""
    return [Episode(batch, batch) for batch in (Batch(row, row[:0]) for row in signs)]


def mean_loss(params, batch) -> torch.Tensor:
    return loss(params["x"], batch.inputs, STEP).mean()


def test_the_loss_is_in_the_unit_interval_and_1_lipschitz() -> None:
    x = torch.cat([torch.linspace(-k * ZONE, k * ZONE, 4001, dtype=torch.float64) for k in (1, 2, 300, 2 / ZONE)])
    x = x.sort().values.unique()
    for z in (-1.0, 1.0):
        values = loss(x, torch.tensor(z), STEP)
        assert values.min() >= 0
        assert values.max() <= 1
        # rounding of values near 1/2 is 1e-16
        assert bool((values.diff().abs() <= x.diff() + 3e-16).all())
        far = (x.abs() >= 201 * ZONE) & (x.abs() < 0.5)
        torch.testing.assert_close(values[far], 0.5 + SLOPE * x[far], rtol=0, atol=1e-15)


@pytest.mark.parametrize("samples", [4, 10])
def test_zero_is_stationary_and_a_minimum_of_the_empirical_risk_by_the_core(samples) -> None:
    generator = torch.Generator().manual_seed(samples)
    signs = 2.0 * torch.randint(2, (6, samples), generator=generator).double() - 1
    signs[0] = 1.0  # a task that is clipped
    signs[1] = torch.tensor([1.0, -1.0] * (samples // 2))  # and one whose gradient is 0

    def meta(x: float) -> tuple[float, float]:
        params = {"x": torch.tensor(x, dtype=torch.float64)}
        found = meta_gradient(mean_loss, params, episodes(signs), beta_low=STEP)
        return float(found.grad["x"]), float(found.loss)

    grad, risk = meta(0.0)
    assert abs(grad) < 1e-15
    predicted = (0.5 - 5 * signs.mean(-1)).clamp(0, 1).mean()
    assert risk == pytest.approx(float(predicted), abs=1e-12)
    for x in (-ZONE / 2, ZONE / 2):
        moved = meta(x)
        assert moved[1] >= risk - 1e-15
        assert moved[0] * x >= 0


def test_gaussians_around_zero_do_not_lower_the_risk() -> None:
    """The rise inside the zone, on tasks that are not clipped, against the mass outside it, where F may be 0."""
    for factor in (5, 10, 20, 40):
        of = carried_over.instance(factor)
        clipped = 2 * inner_risks(factor, of.samples)[0]
        number = of.samples * of.tasks
        for deviation in (of.radius, of.radius / (1 + math.sqrt(math.log(number)))):
            rise = SLOPE * of.step * deviation**2 * 0.9 * (1 - clipped)
            assert rise > norm.sf(ZONE / deviation)


@pytest.mark.parametrize(("factor", "samples", "tasks"), [(1, 6, 2), (3, 4, 3), (2, 10, 1)])
def test_the_distribution_of_inner_noise_is_that_of_the_loss(factor, samples, tasks) -> None:
    of, step = inner_noise(factor, samples, tasks, "B"), inner_step(factor)
    support = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=samples)), dtype=torch.float64)
    adapted = -step * (1 - ZONE / step - ZONE**2) * support.mean(-1)
    risks = loss(adapted[:, None], support, step).mean(-1).numpy()
    means = reduce(np.add.outer, [risks] * tasks).ravel() / tasks
    assert of.probability.sum() == pytest.approx(1)
    for edge in np.linspace(0.01, 0.99, 23):
        assert of.probability[of.empirical < edge].sum() == pytest.approx((means < edge).mean())


@pytest.mark.parametrize("samples", [7, 0, 5002])
def test_inner_noise_refuses_samples_that_stay_near_zero(samples) -> None:
    with pytest.raises(ValueError, match=f"at most 5000, got {samples}"):
        inner_noise(1, samples, 2, "B")


@pytest.mark.parametrize("wide", [True, False])
def test_labels_by_enumeration(wide) -> None:
    """F and its maximum over the ball for three tasks, over all labels and all changes of sign that the ball allows."""
    of = labels(3, wide=wide)
    width = of.norm / math.sqrt(3)
    found: dict[tuple[float, float], int] = {}
    for signs in itertools.product([-1, 1], repeat=9):
        y = np.reshape(signs, (3, 3))
        x = np.sign(y.sum(1))
        changes = [np.array(change) for change in itertools.product([1, -1], repeat=3)]
        allowed = [change for change in changes if math.sqrt((change < 0).sum()) * width < of.radius]
        risks = [float((y * (x * change)[:, None] < 0).mean()) for change in allowed]
        key = round(float((y * x[:, None] < 0).mean()), 9), round(max(risks), 9)
        found[key] = found.get(key, 0) + 1
    assert sum(found.values()) == 512
    for value, ball, probability in zip(of.empirical, of.ball, of.probability, strict=True):
        assert found[round(value, 9), round(ball, 9)] / 512 == pytest.approx(probability)


def test_own_samples_by_the_core() -> None:
    """F(0; D) of two tasks, over all samples; F(x; P) = 1/2."""

    def clipped(params, batch):
        return (0.5 + batch.inputs * params["x"]).clamp(0, 1).mean()

    of = own_samples(2, "B")
    zero, found = {"x": torch.tensor(0.0, dtype=torch.float64)}, []
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        batch = torch.tensor(signs, dtype=torch.float64).reshape(2, 2)
        found.append(float(meta_gradient(clipped, zero, episodes(batch), beta_low=of.step).loss))
    for value, probability in zip(of.empirical, of.probability, strict=True):
        assert np.isclose(found, value).mean() == pytest.approx(probability)


def test_a_sum_of_independent_numbers_is_a_convolution() -> None:
    probability = inner_risks(3, 10)
    expected = reduce(np.convolve, [probability] * 7)
    np.testing.assert_allclose(sum_of(probability, 7), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", terms.instances())
def test_the_bound_with_all_its_terms_is_the_theorem(name) -> None:
    _, of = terms.instances()[name]
    assert terms.by_theorem(of) == of.violated(terms.beyond(of))
    assert terms.violated(of, "ball", 1.0) == terms.by_theorem(of)


def with_part(**changed):
    """The theorem with a part of its sum replaced."""
    return lambda *args, **kwargs: replace(pac_bayes.theorem(*args, **kwargs), **changed)


def for_fixed_tasks(*args, reading, **kwargs):
    return pac_bayes.theorem(*args, reading=reading.removeprefix("random tasks, "), **kwargs)


ROOT = pac_bayes.complexity
MUTANTS = {
    "no divergence": (
        pac_bayes,
        {"complexity": ROOT.subs({pac_bayes.d: 0, pac_bayes.x_norm: 0})},
        {"wide labels"},
    ),
    "no delta": (pac_bayes, {"complexity": ROOT.subs(pac_bayes.delta, 1)}, {"four throws", "six throws"}),
    "C = 1 in reading A": (pac_bayes, {"factor_A": sp.Integer(1)}, {"inner noise, A"}),
    "C = 1 in reading B": (pac_bayes, {"factor_B": sp.Integer(1)}, {"inner noise, B"}),
    "no gamma_A": (terms, {"theorem": with_part(stability=0.0)}, {"own samples", "own samples, new task"}),
    "N = n M for a new task": (terms, {"theorem": for_fixed_tasks}, {"new tasks"}),
    "0.59 of the root": (pac_bayes, {"complexity": terms.ROOT * ROOT}, {"six throws"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_theorem_that_lacks_a_term_is_refuted_by_what_needs_it(name, monkeypatch) -> None:
    module, changes, needing = MUTANTS[name]
    for attribute, changed in changes.items():
        monkeypatch.setattr(module, attribute, changed)
    items = terms.measure(SMOKE, 0).items
    assert {item.label for item in items if item.within[0] > DELTA} == needing


def test_no_coin_needs_more_of_the_root_than_six_throws() -> None:
    shares = {
        (number, chance): terms.smallest_share(of, "root")
        for number in (*range(2, 13), 20, 50)
        for chance in np.arange(1, 50) / 50
        for of in [coin(1, number, chance)]
    }
    six = terms.smallest_share(terms.instances()["six throws"][1], "root")
    assert terms.ROOT < six < 0.6
    assert max(shares.values()) <= six


def test_no_coin_and_no_labels_that_were_tried_need_the_logarithms_of_the_number_and_the_prior() -> None:
    """The root is larger than what they need by more than ln sqrt N and ln 1/p_j make it."""
    shorter = sp.sqrt((pac_bayes.divergence + sp.log(1 / pac_bayes.delta)) / (2 * (pac_bayes.N - 1)))
    coins = [coin(1, number, chance) for number in (2, 3, 4, 6, 10, 100, 1000) for chance in (0.3, 0.5, 0.58, 0.7)]
    learned = [labels(tasks, wide=wide) for tasks in (1, 2, 3, 5, 10, 30, 100, 300) for wide in (True, False)]
    for of in coins + learned:
        number = of.samples * of.tasks
        known = {
            "d": of.dim,
            "x_norm": of.norm,
            "s": pac_bayes.value(pac_bayes.width, alpha=of.radius, d=of.dim, N=number),
            "N": number,
            "delta": DELTA,
        }
        with_both, _ = pac_bayes.smallest(pac_bayes.complexity, C=1.0, **known)
        without, _ = pac_bayes.smallest(shorter, **known)
        assert terms.smallest_share(of, "root") < without / with_both


@pytest.mark.parametrize("form", carried_over.FORMS)
def test_each_carried_over_form_is_violated_and_ever_more_often(form) -> None:
    found = []
    for factor in (10, 20, 40):
        of = carried_over.instance(factor)
        found.append(of.violated(carried_over.gamma(of) + carried_over.FORMS[form](of))[0])
    assert DELTA < found[0] < found[1] < found[2] < 0.5


def test_the_largest_constant_is_where_a_violation_is_as_likely_as_delta() -> None:
    of = carried_over.instance(5)
    largest = carried_over.largest_constant(of)
    below, above = (
        of.violated(carried_over.gamma(of) + carried_over.root(of, times * largest))[0] for times in (0.999, 1.001)
    )
    assert above <= DELTA < below


def test_the_moment_of_one_side_is_half_as_large() -> None:
    """E exp(u^2 / 2) Phi(u) <= sqrt N / 2 for u = 2 sqrt(N - 1) (p - mean) of N coins: summed exactly."""
    for number in (2, 10, 100):
        for p in (0.1, 0.5, 0.8):
            of = coin(1, number, p)
            u = 2 * math.sqrt(number - 1) * (p - of.empirical)
            assert (of.probability * np.exp(u**2 / 2) * norm.cdf(u)).sum() <= math.sqrt(number) / 2


@pytest.mark.parametrize("number", tail.NUMBERS)
def test_the_excess_is_largest_at_an_end(number) -> None:
    mass = tail.outside(number, 2)
    ends = min(tail.smallest_root(number), tail.largest_root(number)), tail.largest_root(number)
    inner = [tail.excess(number, mass, root) for root in np.linspace(*ends, 50)]
    assert max(inner) <= tail.worst(number, 2) + 1e-12
