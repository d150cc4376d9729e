"""Proof objects: the checker verifies the tracked ones, refuses changed ones, and means what it says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from fractions import Fraction as Q
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from sharp_maml import read_result
from theory.check.verdicts import TRACKED
from theory.proofs import check
from theory.proofs.identities import Identity, expansion, identities, stability, theorem
from theory.proofs.make import ERRORS, HORIZONS, STEPS
from theory.proofs.rates import rate
from theory.rate import theorem as of
from theory.rate.pep import attained

FILE = TRACKED / "proofs.json"
PROOFS: list[dict[str, Any]] = read_result(FILE, "proofs").payload["proofs"]
RATES = [proof for proof in PROOFS if proof["kind"] == "rate"]
SMALL = [proof for proof in RATES if proof["T"] <= 3]
IDENTITIES = [proof for proof in PROOFS if proof["kind"] == "identities"]
TOLERANCE = 1e-5
"""How much above the theorem's bound the certificates' may be: the room for rounding costs up to 4e-6."""


def name(proof: dict[str, Any]) -> str:
    return f"{proof['eta']} {proof['b']} {proof['T']}" if proof["kind"] == "rate" else proof["title"][:40]


def test_every_tracked_proof_is_verified_by_the_standard_library_alone() -> None:
    ran = subprocess.run([sys.executable, "-I", "-S", check.__file__, FILE], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == len(PROOFS)
    assert all(line.startswith("proved: ") for line in lines)
    cases = {(Q(proof["eta"]), Q(proof["b"]), proof["T"]) for proof in RATES}
    assert cases == {(eta, b, T) for eta in STEPS for b in ERRORS for T in HORIZONS if T > 1 or not b}
    assert len(IDENTITIES) == 4


def test_a_proof_that_is_refused_is_named_and_fails_the_command(tmp_path, capsys) -> None:
    wrong = copy.deepcopy(RATES[0])
    wrong["bound"] = str(Q(wrong["bound"]) * Q(99, 100))
    path = tmp_path / "proofs.json"
    path.write_text(json.dumps({"payload": {"proofs": [RATES[1], wrong]}}))
    assert check.main(path) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("proved: mean squared gradient <= ")
    assert second.startswith("NOT PROVED: mean squared gradient <= ")
    assert second.endswith(f"T = {wrong['T']}, eta = {wrong['eta']}, b = {wrong['b']}, Delta = {wrong['Delta']}")


@pytest.mark.parametrize("proof", RATES, ids=name)
def test_a_bound_lies_between_an_explicit_function_and_the_theorem(proof) -> None:
    T, eta, b, Delta, bound = proof["T"], *(float(Q(proof[key])) for key in ("eta", "b", "Delta", "bound"))
    values = {of.T: T, of.eta: eta, of.Delta: Delta}
    theirs = float(of.stationarity(sp.Integer(1), sp.Float(b), sp.Integer(0)).subs(values))
    assert attained(T, L=1.0, eta=eta, b=b, Delta=Delta) <= bound <= theirs * (1 + TOLERANCE)


@pytest.mark.parametrize("proof", RATES, ids=name)
def test_a_smaller_bound_is_refused_with_and_without_smaller_multipliers(proof) -> None:
    smaller = copy.deepcopy(proof)
    smaller["bound"] = str(Q(proof["bound"]) * Q(99, 100))
    assert not check.rate(smaller)
    smaller["multipliers"] = [[str(Q(m) * Q(99, 100)), *which] for m, *which in proof["multipliers"]]
    assert not check.rate(smaller), "here the constant and the values fit, and the matrix must not be semidefinite"


@pytest.mark.parametrize("proof", SMALL, ids=name)
def test_a_multiplier_that_is_off_by_a_millionth_is_refused(proof) -> None:
    for place, (m, kind, *_) in enumerate(proof["multipliers"]):
        for sign in (
            (1,) if kind == "error" else (1, -1)
        ):  # less of an error's multiplier may still prove a smaller bound
            changed = copy.deepcopy(proof)
            changed["multipliers"][place][0] = str(Q(m) * (1 + sign * Q(1, 10**6)))
            assert not check.rate(changed)


@pytest.mark.parametrize(
    "extra",
    [
        ["-1/1000", "error", 0, 0],
        ["0", "convex", 0, 1],
        ["0", "error", 1, 1],
        ["0", "pair", -1, 0],
        ["0", "pair", 0, 9],
    ],
)
def test_what_is_no_multiplier_of_a_constraint_is_refused(extra) -> None:
    proof = copy.deepcopy(next(one for one in RATES if one["T"] == 2))
    assert check.rate(proof)
    proof["multipliers"].append(extra)
    assert not check.rate(proof)


@pytest.mark.parametrize("proof", SMALL, ids=name)
def test_a_certificate_is_an_inequality_between_numbers(proof) -> None:
    """The certificate's combination in floats, at random gradients, errors and values, constraints or not."""
    T, eta, b, Delta, bound = proof["T"], *(float(Q(proof[key])) for key in ("eta", "b", "Delta", "bound"))
    generator = np.random.default_rng(T)
    for _ in range(200):
        g, e, f = generator.normal(size=(T, 3)), generator.normal(size=(T, 3)), generator.normal(size=T)
        x = [np.zeros(3)]
        for t in range(T - 1):
            x.append(x[-1] - eta * (g[t] + b * e[t]))
        left = bound
        for m, kind, i, j in proof["multipliers"]:
            left += float(Q(m)) * {
                "start": f[0] - Delta,
                "infimum": g[i] @ g[i] / 2 - f[i],
                "error": e[i] @ e[i] - 1,
                "pair": f[j] - f[i] + (g[i] + g[j]) @ (x[i] - x[j]) / 2
                + np.sum((g[i] - g[j]) ** 2) / 4 - np.sum((x[i] - x[j]) ** 2) / 4,
            }[kind]  # fmt: skip
        assert left >= np.mean(np.sum(g**2, 1)) - 1e-9


def test_the_constraints_hold_on_functions_that_are_smooth_and_not_convex() -> None:
    """The interpolation condition of the class at points of 1 - cos x, L = 1; the checker has no other premise."""
    x = np.linspace(-4, 4, 41)
    f, g = 1 - np.cos(x), np.sin(x)
    (xi, xj), (fi, fj), (gi, gj) = (np.meshgrid(one, one, indexing="ij") for one in (x, f, g))
    assert np.all(fj - fi + (gi + gj) * (xi - xj) / 2 + (gi - gj) ** 2 / 4 - (xi - xj) ** 2 / 4 <= 1e-12)
    assert np.all(g**2 / 2 <= f + 1e-12)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(-2, 2))
def test_semidefinite_agrees_with_eigenvalues(rows: list[list[int]], shift: int) -> None:
    matrix = np.array(rows).T @ np.array(rows) + shift * np.diag([1, 0, 1])
    exact = sp.Matrix(matrix.tolist()).is_positive_semidefinite
    assert check.semidefinite([[Q(int(entry)) for entry in row] for row in matrix]) == exact


def test_a_rate_is_made_anew() -> None:
    proof = rate(2, Q(1, 2), Q(1, 4))
    assert check.rate(json.loads(json.dumps(proof)))
    (tracked,) = (one for one in RATES if (one["T"], one["eta"], one["b"]) == (2, "1/2", "1/4"))
    assert float(Q(proof["bound"])) == pytest.approx(float(Q(tracked["bound"])), rel=1e-6)


def test_the_tracked_identities_are_those_of_the_formulas() -> None:
    assert [stability(), theorem(), expansion("fresh"), expansion("shared")] == IDENTITIES


@pytest.mark.parametrize("proof", IDENTITIES, ids=name)
def test_a_coefficient_that_is_off_by_a_millionth_is_refused(proof) -> None:
    """Each polynomial has one that matters: any, or where an identity holds below a power of k, one below it."""
    for polynomial, terms in proof["polynomials"].items():
        changed = copy.deepcopy(proof)
        lowest = min(range(len(terms)), key=lambda place: terms[place][1].get("k", 0))
        changed["polynomials"][polynomial][lowest][0] = str(Q(terms[lowest][0]) * (1 + Q(1, 10**6)))
        used = any(polynomial in term for one in proof["identities"] for term in one["sum"])
        assert used
        assert not check.identities(changed), polynomial


def test_no_identity_is_no_proof_and_a_wrong_one_is_not_made() -> None:
    assert not check.identities({"polynomials": {}, "identities": []})
    x = sp.Symbol("x")
    with pytest.raises(RuntimeError, match="an identity is wrong: x is 2 x"):
        identities("x is 2 x", {"x": x}, [Identity("", "1 x", "2 x")])
    with pytest.raises(ValueError, match="must be 'fresh' or 'shared', got 'both'"):
        expansion("both")


@pytest.mark.parametrize(("samples", "variance"), [("fresh", of.variance_fresh), ("shared", of.variance_shared)])
def test_the_expansion_is_that_of_the_bound(samples: str, variance: sp.Expr) -> None:
    """In 60 digits at two horizons: the bound less the polynomial falls as k^5."""
    (terms,) = (one["polynomials"]["expansion"] for one in IDENTITIES if f"for {samples} samples" in one["title"])
    c1, c2, c3, c4, M, sq, Delta = (sp.Rational(n, 7) for n in (2, 3, 5, 4, 21, 6, 9))
    numbers = {of.L0: 2, of.L1: 1, of.L2: 3, of.Lq: sp.Rational(1, 2), of.sg: 1, of.sH: 2}
    p = sp.sqrt(Delta / c2 + c2 * numbers[of.Lq] * sq**2 / (2 * M))
    known = {str(symbol): value for symbol, value in numbers.items()}
    known |= {"c1": c1, "c2": c2, "c3": c3, "c4": c4, "p": p, "w": sq / sp.sqrt(M), "1/M": 1 / M}
    rest = []
    for k in (sp.Rational(1, 100), sp.Rational(1, 1000)):
        schedule = {of.beta: c1 * k**2, of.eta: c2 * k**2, of.alpha_up: c3 * k**2, of.alpha_low: c4, of.T: k**-4}
        bound = of.rate(variance).subs({**numbers, **schedule, of.M: M, of.sq: sq, of.Delta: Delta})
        here = known | {"k": k}
        series = sum(sp.Rational(a) * sp.prod(here[x] ** n for x, n in powers.items()) for a, powers in terms)
        rest.append(float(sp.N(bound - series, 60) / k**5))
    assert rest[0] == pytest.approx(rest[1], rel=0.2)
