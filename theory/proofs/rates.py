"""Bounds of the inexact gradient method on all smooth functions, with multipliers that are fractions.

The semidefinite program of `theory/rate/pep.py` is solved for a little more than the average, (1/T) sum |g_t|^2 +
`MARGIN` (sum |g_t|^2 + sum |e_t|^2), so that the matrix of the average itself is positive definite and stays so when
the multipliers are rounded to decimals. The values f(x_t) then leave the certificate exactly: the multipliers of the
constraints that lead from f(x_0) to f(x_1), f(x_1) to f(x_2), ... and from f(x_{T-1}) to the infimum are what the
others make them. The bound is what the multipliers come to. Read next: `check.py`, which verifies it.
"""

from __future__ import annotations

import warnings
from fractions import Fraction as Q
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of escape sequences in PEPit's docstrings, when Python compiles them
    from PEPit import PEP, Expression, Point, null_point

from theory.proofs import check

MARGIN = 1e-7
DECIMALS = 12
Which = tuple[str, int, int]


def duals(T: int, eta: float, b: float, Delta: float) -> dict[Which, float]:
    """The solver's multipliers of the constraints of `check.rate`, by the constraint's kind and indices.

    Args:
        T: Number of gradients, at least 1.
        eta: Step in units of 1/L, in (0, 1].
        b: Radius of the errors, at least 0.
        Delta: f(x_0) - inf f, positive.

    Returns:
        The multipliers, negative ones among them where the solver is off.
    """
    problem = PEP()
    g, f, e = [Point() for _ in range(T)], [Expression() for _ in range(T)], [Point() for _ in range(T - 1)]
    x = [null_point]
    for t in range(T - 1):
        x.append(x[t] - eta * (g[t] + b * e[t]))
    left: dict[Which, Any] = {("start", 0, 0): f[0] - Delta}
    left |= {("infimum", i, i): g[i] ** 2 / 2 - f[i] for i in range(T)}
    left |= {("error", i, i): e[i] ** 2 - 1 for i in range(T - 1)}
    left |= {
        ("pair", i, j): f[j]
        - f[i]
        + (g[i] + g[j]) * (x[i] - x[j]) / 2
        + (g[i] - g[j]) ** 2 / 4
        - (x[i] - x[j]) ** 2 / 4
        for i in range(T)
        for j in range(T)
        if i != j
    }
    constraints = {which: expression <= 0 for which, expression in left.items()}
    for constraint in constraints.values():
        problem.add_constraint(constraint)
    more = sum((MARGIN * point**2 for point in (*g, *e)), Expression(is_leaf=False, decomposition_dict={}))
    problem.set_performance_metric(more + sum(point**2 / T for point in g))
    with warnings.catch_warnings():
        # cvxpy: the solver stopped short of its tolerance. The checker decides what its multipliers prove.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        problem.solve(verbose=0, solver="CLARABEL", **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9))
    return {which: float(constraint.eval_dual()) for which, constraint in constraints.items()}


def rate(T: int, eta: Q, b: Q, Delta: Q = Q(1)) -> dict[str, Any]:
    """A proof of a bound of the average squared gradient, in units where L = 1.

    Args:
        T: Number of gradients, at least 1.
        eta: Step, in (0, 1].
        b: Radius of the errors, at least 0.
        Delta: f(x_0) - inf f, positive.

    Returns:
        The proof, as `check.py` reads it.

    Raises:
        RuntimeError: The rounded multipliers prove nothing.

    Source: see `theory/rate/pep.py`; the rounding is derived here.
    """
    found = duals(T, float(eta), float(b), float(Delta))
    m = {which: max(Q(round(value * 10**DECIMALS), 10**DECIMALS), Q(0)) for which, value in found.items()}
    for t in range(T):
        others = [i for i in range(T) if i != t]
        flow = m["start", 0, 0] if t == 0 else Q(0)
        flow += sum((m["pair", i, t] - (m["pair", t, i] if i != t + 1 else 0) for i in others), Q(0))
        if t == T - 1:
            m["infimum", t, t] = flow
        else:
            m["pair", t, t + 1] = flow - m["infimum", t, t]
    bound = m["start", 0, 0] * Delta + sum((m["error", t, t] for t in range(T - 1)), Q(0))
    proof = {
        "kind": "rate",
        "T": T,
        "eta": str(eta),
        "b": str(b),
        "Delta": str(Delta),
        "bound": str(bound),
        "multipliers": [[str(value), *which] for which, value in m.items() if value],
    }
    if not check.rate(proof):
        raise RuntimeError(f"the rounded multipliers prove nothing for T = {T}, eta = {eta}, b = {b}: raise MARGIN")
    return proof
