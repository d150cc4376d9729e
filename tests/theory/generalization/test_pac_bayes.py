"""The bound against the same formulas written out, its inequalities by simulation, and inputs that have no bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2, norm

from theory.generalization import pac_bayes
from theory.generalization.pac_bayes import LARGEST_J, kl_bound, kl_inverse, pac_bus, tail, theorem, value

KNOWN = {"dim": 3, "radius": 0.4, "samples": 10, "tasks": 8, "confidence": 0.9, "step": 0.3, "lipschitz": 0.6}


def by_hand(reading: str, *, norm: float, j: int) -> tuple[float, float, float]:
    """g, tail and root of the theorem, written out."""
    d, alpha, n, M, delta, beta, L0 = 3, 0.4, 10, 8, 0.1, 0.3, 0.6
    N = M if reading.startswith("random") else n * M
    gamma = 2 * beta * L0**2 / n if reading.endswith("B") else 0.0
    C = 1.0 if reading.startswith("random") else (1 + (n - 1) * gamma) ** 2 if gamma else 1 + 4 * beta**2 * L0**4
    s = alpha / (math.sqrt(d) + math.sqrt(math.log(N)))
    kl = (d * math.exp(-j) + norm**2 * math.exp(-j) / s**2 - d + d * j) / 2
    p = 6 / (math.pi**2 * (j + 1) ** 2)
    root = math.sqrt(C * (kl + math.log(math.sqrt(N) / (p * delta))) / (2 * (N - 1)))
    return gamma, float(chi2.sf((alpha / s) ** 2, d)), root


@pytest.mark.parametrize("reading", ["A", "B", "random tasks, A", "random tasks, B"])
@settings(deadline=None, max_examples=20)
@given(norm=st.floats(0, 5), risk=st.floats(0, 1))
def test_the_theorem_is_the_formula_at_its_best_prior(reading, norm, risk) -> None:
    found = theorem(risk, norm, reading=reading, **KNOWN)
    gamma, mass, root = by_hand(reading, norm=norm, j=found.prior)
    assert (found.empirical, found.stability) == (risk, pytest.approx(gamma))
    assert found.tail == pytest.approx(mass)
    assert found.complexity == pytest.approx(root)
    assert found.total == pytest.approx(risk + gamma + mass + root)
    assert root == min(by_hand(reading, norm=norm, j=j)[2] for j in range(60))


def test_the_divergence_is_that_of_the_gaussians() -> None:
    """In one dimension, by quadrature."""
    s, j, x = 0.7, 2, 1.3
    one, other = norm(x, s), norm(0, s * math.exp(j / 2))
    expected, _ = quad(lambda t: one.pdf(t) * (one.logpdf(t) - other.logpdf(t)), -10, 12)
    assert value(pac_bayes.divergence, d=1, s=s, x_norm=x, j=j) == pytest.approx(expected, rel=1e-8)


def test_the_shares_of_delta_add_up_to_one_at_most() -> None:
    shares = value(pac_bayes.weight, j=np.arange(LARGEST_J + 1.0))
    assert 0.99 < shares.sum() <= 1


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), st.integers(2, 10**6), st.floats(0.01, 10))
def test_the_mass_outside_the_ball_is_at_most_one_over_the_root_of_the_number(dim, number, radius) -> None:
    s = float(value(pac_bayes.width, alpha=radius, d=dim, N=number))
    assert tail(dim, radius, s) <= 1 / math.sqrt(number)


def test_the_exponential_moment_that_the_theorem_rests_on() -> None:
    """E exp(2 (N - 1) (mean - p)^2) for a mean of N coins, summed exactly; p_0 delta exp(2 (N - 1) root^2) is more."""
    from scipy.stats import binom

    for number in (2, 10, 100):
        root = value(pac_bayes.complexity, C=1.0, d=1, x_norm=0.0, s=1.0, N=number, delta=0.05, j=0.0)
        allowed = 6 / math.pi**2 * 0.05 * math.exp(2 * (number - 1) * root**2)
        for p in (0.1, 0.5, 0.8):
            k = np.arange(number + 1)
            moment = (binom.pmf(k, number, p) * np.exp(2 * (number - 1) * (k / number - p) ** 2)).sum()
            assert moment <= allowed


def test_the_exponential_moment_of_the_kl_form() -> None:
    """E exp(N kl(mean, p)) for a mean of N coins, summed exactly (Maurer); p_0 delta exp(N radius) is more."""
    from scipy.stats import binom

    for number in (2, 10, 100):
        p = 0.3
        total = 0.0
        radius = value(pac_bayes.kl_radius, d=1, x_norm=0.0, s=1.0, N=number, delta=0.05, j=0.0)
        for k in range(number + 1):
            q = k / number
            kl = sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a)
            total += binom.pmf(k, number, p) * math.exp(number * kl)
        assert total <= 6 / math.pi**2 * 0.05 * math.exp(number * radius)


@settings(deadline=None, max_examples=300)
@example(risk=0.25, radius=0.0)
@given(risk=st.floats(0, 1), radius=st.floats(0, 5))
def test_the_inverse_of_the_kl_is_its_largest_argument(risk, radius) -> None:
    p = kl_inverse(risk, radius)
    assert risk <= p <= 1
    if 0 < p < 1 - 1e-6:
        left = risk * math.log(risk / p) if risk else 0.0
        right = (1 - risk) * math.log((1 - risk) / (1 - p)) if risk < 1 else 0.0
        assert left + right == pytest.approx(radius, abs=1e-6)


def test_the_kl_form_and_pac_bus_are_their_formulas() -> None:
    found = kl_bound(0.2, 0.0, dim=1, deviation=1.0, number=100, confidence=0.95)
    p0 = 6 / math.pi**2
    assert found.prior == 0
    assert found.total == pytest.approx(kl_inverse(0.2, math.log(2 * 10 / (p0 * 0.05)) / 100))
    bus = pac_bus(0.2, 0.0, dim=1, deviation=1.0, tasks=50, confidence=0.95, stability=0.1)
    root = math.sqrt(math.log(2 * math.sqrt(50) / (p0 * 0.05)) / 100)
    assert bus.total == pytest.approx(0.2 + 0.1 + root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ball_maximum": 1.5}, "a risk must be in \\[0, 1\\], got 1.5"),
        ({"ball_maximum": math.nan}, "a risk must be in \\[0, 1\\], got nan"),
        ({"norm": -1.0}, "x| must be finite and at least 0, got -1.0"),
        ({"dim": 0}, "dimension must be at least 1, got 0"),
        ({"radius": 0.0}, "radius or deviation must be positive and finite, got 0.0"),
        ({"samples": 1}, "n must be at least 2, got 1"),
        ({"tasks": 0}, "M must be at least 1, got 0"),
        ({"confidence": 1.0}, "1 - delta must be in \\(0, 1\\), got 1.0"),
        ({"confidence": 0.0}, "1 - delta must be in \\(0, 1\\), got 0.0"),
        ({"step": -0.1}, "step and lipschitz must be at least 0"),
        ({"reading": "random tasks, A", "tasks": 1}, "at least 2 independent losses are needed, got 1"),
    ],
)
def test_arguments_out_of_range_are_named(change, message) -> None:
    arguments = {"ball_maximum": 0.5, "norm": 1.0, "reading": "A", **KNOWN, **change}
    with pytest.raises(ValueError, match=message):
        theorem(arguments.pop("ball_maximum"), arguments.pop("norm"), **arguments)


def test_a_symbol_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match="L0 must be given"):
        value(pac_bayes.gamma_gradient, beta=1.0, n=2)
