"""The expressions against the same formulas written by hand, and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic import Constants
from theory.rate import theorem as bounds
from theory.rate.claims.bound import bound, full
from theory.rate.setting import MAML, START, WELLS, Reading
from theory.rate.theorem import evaluate
from theory.runner import Power

positive = st.floats(0.01, 3)
constants = st.builds(Constants, *[positive] * 7)
GIVEN = {"beta": 0.3, "eta": 0.2, "alpha_up": 0.1, "alpha_low": 0.4, "Delta": 2.0, "M": 3, "T": 100}


def root(step: float, bias: float, rest: float) -> float:
    """The positive root of a quadratic, by NumPy."""
    return float(max(np.roots([2 - step, -2 * (1 - step) * bias, -rest]).real))


@given(constants)
def test_expressions_evaluate_to_the_formulas(c) -> None:
    beta, eta, up, low, Delta, M, T = GIVEN.values()
    kappa = 1 + beta * c.L1
    smoothness = kappa**2 * c.Lq + beta * c.L2 * c.L0
    without_noise = kappa * c.Lq * (kappa * up + beta * c.L1 * low) + beta * c.L2 * c.L0 * (up + low)
    bias = without_noise + c.Lq * beta * c.sg * math.hypot(kappa, beta * c.sH)
    support = beta * (kappa * c.Lq * c.sg + c.sH * c.L0)
    v = kappa**2 * c.sq**2 + support**2 + (beta * c.sH * c.sq) ** 2
    first = (kappa**2 * c.sq**2 + beta**2 * (kappa * c.Lq * c.sg + c.sH * c.L0) ** 2) / M
    shared = (math.sqrt(first) + without_noise) ** 2
    for variance, value in ((bounds.variance_fresh, v / M), (bounds.variance_shared, shared)):
        average = evaluate(bounds.rate(variance), c, **{**GIVEN, "eta": eta / smoothness})
        expected = root(eta, bias, 2 * Delta * smoothness / (eta * T) + eta * (bias**2 + value))
        assert average == pytest.approx(expected**2, rel=1e-12)


@given(constants)
def test_no_split_of_the_inner_product_gives_less(c) -> None:
    """2 |g| |e| <= s |g|^2 + |e|^2 / s, for any s > 0 that leaves a positive left-hand side; s = b / G is best."""
    L, b, V = (evaluate(piece, c, **GIVEN) for piece in (bounds.smoothness, bounds.bias, bounds.variance_fresh))
    step = 0.2
    best = evaluate(bounds.rate(bounds.variance_fresh), c, **{**GIVEN, "eta": step / L})
    rest = 2 * 2.0 * L / (step * 100) + step * (b**2 + V)

    def split(s: float) -> float:
        return (rest + (1 - step) * b**2 / s) / (2 - step - (1 - step) * s)

    assert split(b / best**0.5) == pytest.approx(best, rel=1e-9)
    assert all(split(s) >= best * (1 - 1e-12) for s in (0.01, 0.1, 0.5, 1.0, 2.0))


@given(constants)
def test_without_perturbations_the_variants_have_mamls_bound(c) -> None:
    step = 0.1
    eta = step / evaluate(bounds.smoothness, c, beta=0.3)
    off = {**GIVEN, "alpha_up": 0.0, "alpha_low": 0.0, "eta": eta}
    bias = c.Lq * 0.3 * c.sg * math.hypot(1 + 0.3 * c.L1, 0.3 * c.sH)
    rest = 2 * 2.0 / (eta * 100) + step * (bias**2 + evaluate(bounds.variance_fresh, c, beta=0.3, M=3))
    found = evaluate(bounds.rate(bounds.variance_fresh), c, **off)
    assert found == pytest.approx(root(step, bias, rest) ** 2, rel=1e-12)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be given"):
        evaluate(bounds.variance_fresh, Constants(1, 1, 1, 1, 1, 1, 1))


def test_a_step_beyond_the_theorem_is_refused() -> None:
    reading = Reading(WELLS, START, (MAML.but("long", eta=Power(1.0, 0.0)),))
    with pytest.raises(ValueError, match=r"eta = 1.0 exceeds 1/L_F at T = 64"):
        bound(reading, 0, 0, 64, full)
