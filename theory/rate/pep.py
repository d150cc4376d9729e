"""The noise-free part of the rate over ALL smooth functions at once: a semidefinite program in place of a problem.

For x_{t+1} = x_t - eta g_t with |g_t - grad F(x_t)| <= b, F L-smooth, eta <= 1/L and Delta = F(x_0) - inf F, the
theorem bounds the average (1/T) sum_{t<T} |grad F(x_t)|^2 (`theory/rate/theorem.py`, `stationarity`).

PEPit writes the largest left-hand side over every such F, in every dimension, as a semidefinite program; a dual
solution proves an upper bound. Read next: `claims/bound.py`, which measures problems chosen by hand.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of escape sequences in PEPit's docstrings, when Python compiles them
    from PEPit import PEP, Expression, Point, null_point
    from PEPit.functions import SmoothFunction
    from PEPit.tools.expressions_to_matrices import expression_to_matrices

RELATIVE_GAP = 1e-6
_TOLERANCE = 1e-8
"""Tolerance of the solver. Below it Clarabel stalls on some of these programs, without a better certificate."""


@dataclass(frozen=True)
class WorstCase:
    """A certified worst case.

    Attributes:
        value: Upper bound proved by the dual solution; the errors of the solver are added to it.
        dual_gap: `value` minus the primal value, the average on the example the solver found: how loose `value` can be.
    """

    value: float
    dual_gap: float


def worst_case(T: int, *, L: float, eta: float, b: float, Delta: float) -> WorstCase:
    """Largest average squared gradient of the inexact gradient method over all L-smooth functions.

        max (1/T) sum_{t<T} |grad F(x_t)|^2   over F, x_0, e   subject to
        F is L-smooth,  x_{t+1} = x_t - eta (grad F(x_t) + e_t),  |e_t| <= b,  F(x_0) - inf F <= Delta

    The infimum need not be attained: with inf F = 0 and x_0 = 0, which lose nothing, it enters as
    F(x_t) - |grad F(x_t)|^2 / (2 L) >= 0. Together with the interpolation conditions of the smooth class these
    inequalities are sufficient as well as necessary, so the program is exact.

    It is solved in units where L = 1 and the average of `attained` is 1, by the scaling law, for any S > 0,

        value(L, eta, b, Delta) = S value(1, eta L, b / sqrt(S), L Delta / S).

    The bound is rebuilt from the multipliers m_i >= 0 of the constraints c_i <= 0 alone: average - sum_i m_i c_i is a
    constant plus a linear form in the values F(x_t) plus one in the Gram matrix. The last two would be zero and
    negative semidefinite but for the solver's errors; what they can amount to on the feasible set is added to the
    constant.

    Args:
        T: Number of gradients, at least 1.
        L: Smoothness, positive.
        eta: Step, in (0, 1/L].
        b: Radius of the errors e_t, at least 0.
        Delta: F(x_0) - inf F, at least 0.

    Returns:
        The certified value and its gap.

    Raises:
        ValueError: If an argument is outside its range.
        RuntimeError: If the gap exceeds `RELATIVE_GAP` times the value.

    Source: performance estimation is Drori & Teboulle (2014); its exactness for smooth functions Taylor, Hendrickx &
    Glineur, SIAM J. Optim. 27(3), 2017, Theorem 3.10; with the infimum, Drori & Shamir, ICML 2020; PEPit is Goujaud et
    al., Math. Prog. Comp. 2024. The program for this method, its units and the rebuilt bound: derived here.
    """
    _check(T, L=L, eta=eta, b=b, Delta=Delta)
    unit = attained(T, L=L, eta=eta, b=b, Delta=Delta)
    if unit == 0:  # x_0 minimises F and nothing moves away from it
        return WorstCase(0.0, 0.0)
    value, gap = _solve(T, min(eta * L, 1.0), b / math.sqrt(unit), L * Delta / unit)
    if not abs(gap) <= RELATIVE_GAP * value:
        raise RuntimeError(f"the solver left a gap of {gap / value:.1e} relative to the value, above {RELATIVE_GAP}")
    return WorstCase(unit * value, unit * gap)


def attained(T: int, *, L: float, eta: float, b: float, Delta: float) -> float:
    """The average on an explicit function, hence a lower bound of the worst case.

    On F = L x^2 / 2 with the error -b sign(x_t) the gradients are

        u_t = b + (1 - eta L)^t (u_0 - b),   u_0 = sqrt(2 L Delta).

    It is the worst case where b = 0, for any T, there (2 L Delta / T) (1 - r^(2T)) / (1 - r^2) with r = 1 - eta L; and
    where eta = 1/L, there (2 L Delta + (T - 1) b^2) / T.

    Args:
        T: Number of gradients, at least 1.
        L: Smoothness, positive.
        eta: Step, in (0, 1/L].
        b: Radius of the errors, at least 0.
        Delta: F(x_0) - inf F, at least 0.

    Returns:
        (1/T) sum_{t<T} u_t^2.

    Raises:
        ValueError: If an argument is outside its range.

    Source: derived here.
    """
    _check(T, L=L, eta=eta, b=b, Delta=Delta)
    u = b + (1 - min(eta * L, 1.0)) ** np.arange(T) * (math.sqrt(2 * L * Delta) - b)
    return float((u**2).mean())


def _check(T: int, *, L: float, eta: float, b: float, Delta: float) -> None:
    if T < 1:
        raise ValueError(f"T must be at least 1, got {T}")
    if not 0 < L < math.inf:
        raise ValueError(f"L must be positive and finite, got {L}")
    if not 0 < eta <= 1 / L:
        raise ValueError(f"eta must be in (0, 1/L] = (0, {1 / L:g}], got {eta}")
    for name, value in (("b", b), ("Delta", Delta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def _solve(T: int, eta: float, b: float, Delta: float) -> tuple[float, float]:
    """The rebuilt bound and its gap, for L = 1."""
    problem = PEP()
    F = problem.declare_function(SmoothFunction, L=1.0)
    x, average = null_point, Expression(is_leaf=False, decomposition_dict={})
    for t in range(T):
        gradient, value = F.oracle(x)
        if t == 0:
            problem.set_initial_condition(value <= Delta)
        problem.add_constraint(value >= gradient**2 / 2)
        average += gradient**2 / T
        x = x - eta * gradient
        if b > 0 and t < T - 1:
            error = Point()  # in units of b
            problem.add_constraint(error**2 <= 1)
            x = x - eta * b * error
    problem.set_performance_metric(average)
    with warnings.catch_warnings():
        # cvxpy: the solver stopped short of its tolerance. The gap of the rebuilt bound decides about that.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), _TOLERANCE)
        if problem.solve(verbose=0, solver="CLARABEL", **tolerances) is None:
            raise RuntimeError("the solver found no bound")

    rest = average
    for constraint in (*problem.list_of_constraints, *F.list_of_class_constraints):
        rest -= max(float(constraint.eval_dual()), 0.0) * constraint.expression
    gram, values, constant = expression_to_matrices(rest)
    # On the feasible set 0 <= F(x_t) <= Delta + t eta b^2 / 2 (descent lemma), and |grad F(x_t)|^2 <= 2 F(x_t).
    largest = Delta + (T - 1) * eta * b**2 / 2
    trace = 2 * T * largest + T - 1
    slack = np.abs(values).sum() * largest + max(float(np.linalg.eigvalsh(gram)[-1]), 0.0) * trace
    bound = float(constant + slack)
    return bound, bound - float(average.eval())
