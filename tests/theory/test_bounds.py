"""The expressions against the same formulas written by hand, and against each other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic import Constants
from theory import bounds
from theory.bounds import evaluate

positive = st.floats(0.01, 3)
constants = st.builds(Constants, *[positive] * 7)
GIVEN = {"beta": 0.3, "eta": 0.2, "alpha_up": 0.1, "alpha_low": 0.4, "Delta": 2.0, "M": 3, "T": 100}


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
        expected = 2 * Delta / (eta * T) + bias**2 + smoothness * eta * value
        assert evaluate(bounds.rate(variance), c, **GIVEN) == pytest.approx(expected, rel=1e-12)


@given(constants)
def test_without_perturbations_the_variants_have_mamls_bound(c) -> None:
    off = {**GIVEN, "alpha_up": 0.0, "alpha_low": 0.0}
    maml = 2 * 2.0 / 20 + (c.Lq * 0.3 * c.sg) ** 2 * ((1 + 0.3 * c.L1) ** 2 + (0.3 * c.sH) ** 2)
    rest = evaluate(bounds.smoothness, c, beta=0.3) * 0.2 * evaluate(bounds.variance_fresh, c, beta=0.3, M=3)
    assert evaluate(bounds.rate(bounds.variance_fresh), c, **off) == pytest.approx(maml + rest, rel=1e-12)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be given"):
        evaluate(bounds.variance_fresh, Constants(1, 1, 1, 1, 1, 1, 1))
