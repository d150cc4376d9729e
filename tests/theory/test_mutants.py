"""The core broken on purpose: which claims notice, and what the theorem cannot see.

Each mutant is refuted by the claim named with it. What the theorem cannot see, because it holds for any perturbation in
the ball, is listed as such and is noticed by a closed form instead.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sharp_maml
from sharp_maml import meta
from sharp_maml.ascent import along_gradient
from synthetic import Wells
from theory import runner
from theory.claim import Budget, Unit, decide, registry
from theory.claims import rate
from theory.claims.rate import pieces

pytestmark = pytest.mark.theory

SMALL = Budget("small", 10, 16, 4)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """Claims keep runs that they share; a mutant's must not be kept, nor another's be used."""

    _forget()
    yield
    _forget()


def _forget() -> None:
    for module in (pieces, rate):
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()


def outcome(name: str) -> str:
    claim = replace(registry()[name], controls={})
    unit = Unit(name, "")
    (verdict,) = decide({name: claim}, {unit: claim.measure(SMALL, 0)}, {unit: 0.0})
    return verdict.outcome


def summed(monkeypatch) -> None:
    of = meta.mean

    def broken(trees):
        trees = list(trees)
        return {name: len(trees) * value for name, value in of(trees).items()}

    monkeypatch.setattr(meta, "mean", broken)


def without_hessian(monkeypatch) -> None:
    of = meta.gradient_and_product

    def broken(*arguments):
        grad, product = of(*arguments)
        return grad, lambda v: {name: 0 * value for name, value in product(v).items()}

    monkeypatch.setattr(meta, "gradient_and_product", broken)


def _with_settings(monkeypatch, change) -> None:
    of = sharp_maml.meta_gradient
    for module in (pieces, runner):
        monkeypatch.setattr(module, "meta_gradient", lambda *a, **settings: of(*a, **change(settings)))


def unscaled(monkeypatch) -> None:
    """eps = alpha g in place of alpha g / |g|."""
    broken = lambda grad: (dict(grad), along_gradient(grad)[1])  # noqa: E731
    _with_settings(monkeypatch, lambda settings: {**settings, "direction": broken})


def wrong_sign(monkeypatch) -> None:
    """Descent in place of ascent."""
    broken = lambda grad: along_gradient({name: -value for name, value in grad.items()})  # noqa: E731
    _with_settings(monkeypatch, lambda settings: {**settings, "direction": broken})


def beta_doubled(monkeypatch) -> None:
    _with_settings(monkeypatch, lambda settings: {**settings, "beta_low": 2 * settings["beta_low"]})


def eps_recomputed(monkeypatch) -> None:
    _with_settings(monkeypatch, lambda settings: {**settings, "perturbation": "recomputed"})


def noisier(monkeypatch) -> None:
    """Query noise of twice the variance that the family states."""
    of = Wells.draw

    def draw(self, generator, n):
        return of(replace(self, xi=2**0.5 * self.xi), generator, n)

    monkeypatch.setattr(Wells, "draw", draw)


SEEN = [
    (summed, "rate_constant"),
    (without_hessian, "rate_pieces"),
    (unscaled, "rate_pieces"),
    (beta_doubled, "rate_pieces"),
    (noisier, "rate_constant"),
]


@pytest.mark.parametrize(("mutant", "name"), SEEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_claim_refutes_the_mutant(mutant, name, monkeypatch) -> None:
    assert outcome(name) in ("supported", "inconclusive")  # the second with the small budget of this test
    _forget()
    mutant(monkeypatch)
    assert outcome(name) == "refuted"


@pytest.mark.parametrize("mutant", [wrong_sign, eps_recomputed], ids=lambda mutant: mutant.__name__)
def test_the_theorem_cannot_see_which_perturbation_in_the_ball_it_is(mutant, monkeypatch) -> None:
    mutant(monkeypatch)
    assert outcome("rate_pieces") == "supported"


def on_a_quartic() -> float:
    """The core's gradient after both ascents for l = x^4 / 12, q = (x - 1)^2 / 2 at x = 3, beta = 1/4."""
    episode = sharp_maml.Episode(*[sharp_maml.Batch(torch.zeros(1), torch.zeros(1))] * 2)
    result = runner.meta_gradient(
        lambda params, batch: params["x"] ** 4 / 12,
        {"x": torch.tensor(3.0, dtype=torch.float64)},
        [episode],
        query_loss=lambda params, episode: (params["x"] - 1) ** 2 / 2,
        beta_low=0.25,
        alpha_low=0.1,
        alpha_up=0.2,
    )
    return float(result.grad["x"])


def by_hand(x: float, z: float) -> float:
    """(1 - beta l''(z)) (x - beta l'(z) - 1), the meta-gradient at x with the inner step's gradient at z."""
    return (1 - z**2 / 4) * (x - z**3 / 12 - 1)


def test_a_closed_form_sees_the_sign(monkeypatch) -> None:
    up = 0.2 if by_hand(3, 3.1) > 0 else -0.2  # the support gradient 3^3/3 is positive: eps_m = +0.1
    assert on_a_quartic() == pytest.approx(by_hand(3 + up, 3.1 + up), rel=1e-12)
    wrong_sign(monkeypatch)
    assert on_a_quartic() != pytest.approx(by_hand(3 + up, 3.1 + up), rel=1e-3)


def test_a_closed_form_sees_a_recomputed_perturbation(monkeypatch) -> None:
    """Where the support gradient changes its sign between x and x + eps: reused eps_m points the old way."""

    def grad() -> float:
        episode = sharp_maml.Episode(*[sharp_maml.Batch(torch.zeros(1), torch.zeros(1))] * 2)
        return float(
            runner.meta_gradient(
                lambda params, batch: (params["x"] - 0.25) ** 4 / 12,
                {"x": torch.tensor(0.0, dtype=torch.float64)},
                [episode],
                query_loss=lambda params, episode: (params["x"] + 1) ** 2 / 2,
                beta_low=0.25,
                alpha_low=0.1,
                alpha_up=0.5,
            ).grad["x"]
        )

    def expected(eps: float) -> float:
        z = 0.5 + eps - 0.25  # the meta-gradient at 0 is positive: the upper ascent goes to 0.5
        return (1 - z**2 / 4) * (0.5 - z**3 / 12 + 1)

    assert grad() == pytest.approx(expected(-0.1), rel=1e-12)
    eps_recomputed(monkeypatch)
    assert grad() == pytest.approx(expected(0.1), rel=1e-12)
