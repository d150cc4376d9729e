"""The generalization bound with every constant: each piece one sympy expression, three readings, and other forms.

With probability at least 1 - delta over the data, for all x with F(x; P) <= E F(x + eps; P), eps ~ N(0, s^2 I),

    F(x; P) <= max_{|eps| <= alpha} F(x + eps; D) + g + P(chi2_d > (alpha / s)^2)
               + sqrt(C (KL_j + ln(sqrt N / (p_j delta))) / (2 (N - 1)))

for every j >= 0: prior N(0, s^2 e^j I), p_j = 6 / (pi^2 (j + 1)^2). The loss is in [0, 1]. Readings, for M tasks with
n samples: *A*, fixed tasks, query sets of their own, N = n M, g = 0; *B*, fixed tasks, the support set is the query
set, N = n M, g = gamma_A; and *random tasks*, for the risk of a new one, N = M and C = 1, with g as before. Derived
here: E exp(2 (N - 1) Delta^2 / C) <= sqrt N by bounded differences, then Donsker and Varadhan, a union over j, and the
Gaussian's ball and tail. Read next: `extreme.py`, `claims/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import sympy as sp
from scipy.optimize import bisect
from scipy.stats import chi2

Reading = Literal["A", "B", "random tasks, A", "random tasks, B"]

alpha, beta, L0, L1, mu, s, x_norm = sp.symbols("alpha beta L0 L1 mu s |x|", nonnegative=True)
gamma, delta, C = sp.symbols("gamma delta C", positive=True)
d, n, M, N, j = sp.symbols("d n M N j", positive=True)

width = alpha / (sp.sqrt(d) + sp.sqrt(sp.log(N)))
"""s: the Gaussian whose mass outside the ball of radius alpha is at most 1 / sqrt N."""

divergence = (d * sp.exp(-j) + x_norm**2 * sp.exp(-j) / s**2 - d + d * j) / 2
"""KL_j = KL(N(x, s^2 I), N(0, s^2 e^j I))."""

weight = 6 / (sp.pi**2 * (j + 1) ** 2)
"""p_j: the share of delta that the j-th prior has."""

complexity = sp.sqrt(C * (divergence + sp.log(sp.sqrt(N) / (weight * delta))) / (2 * (N - 1)))
"""The square root of the theorem."""

gamma_gradient = 2 * beta * L0**2 / n
"""gamma_A of a gradient step: how much replacing one of n support samples moves any loss."""

gamma_sam = gamma_gradient + 2 * beta * L1 * alpha * L0
"""gamma_A of a normalised SAM step of radius alpha, at worst: the second term does not fall with n."""

gamma_sam_steep = gamma_gradient * (1 + alpha * L1 / mu)
"""gamma_A of that step where the support gradient is at least mu before and after the replacement."""

factor_A = 1 + 4 * beta**2 * L0**4
"""C of reading A: a query sample moves F by 1 / (n M), a support sample by 2 beta L0^2 / (n M)."""

factor_B = (1 + (n - 1) * gamma) ** 2
"""C of reading B: a sample moves its own loss by 1 and the n - 1 others of its task by gamma."""

kl_radius = (divergence + sp.log(2 * sp.sqrt(N) / (weight * delta))) / N
"""Maurer and Seeger: kl(E_Q F(.; D), E_Q F(.; P)) is at most this, for N independent losses in [0, 1]."""

pac_bus_root = sp.sqrt((divergence + sp.log(2 * sp.sqrt(M) / (weight * delta))) / (2 * M))
"""Farid and Majumdar, NeurIPS 2021: E_Q F(.; P) <= E_Q F(.; D) + this + gamma, for M random tasks."""


@dataclass(frozen=True)
class Bound:
    """A bound and what it is made of.

    Attributes:
        empirical: Maximum over the ball, or the risk under Gaussian perturbation.
        stability: g.
        tail: Mass of the Gaussian outside the ball.
        complexity: The square root.
        prior: The j that gives the smallest.
    """

    empirical: float
    stability: float
    tail: float
    complexity: float
    prior: int

    @property
    def total(self) -> float:
        """The bound."""
        return self.empirical + self.stability + self.tail + self.complexity


LARGEST_J = 200


def theorem(
    ball_maximum: float,
    norm: float,
    *,
    dim: int,
    radius: float,
    samples: int,
    tasks: int,
    confidence: float,
    reading: Reading,
    step: float,
    lipschitz: float,
) -> Bound:
    """The explicit theorem, with the best prior of the grid.

    Args:
        ball_maximum: max over |eps| <= radius of F(x + eps; D), in [0, 1].
        norm: |x|.
        dim: d.
        radius: alpha, positive.
        samples: n, at least 2.
        tasks: M, at least 1; at least 2 for random tasks.
        confidence: 1 - delta, in (0, 1).
        reading: Whose samples are independent.
        step: beta_low.
        lipschitz: L0 of the loss.

    Returns:
        The bound.

    Raises:
        ValueError: An argument is out of range.
    """
    check(ball_maximum, norm, dim=dim, radius=radius, samples=samples, tasks=tasks, confidence=confidence)
    if step < 0 or lipschitz < 0:
        raise ValueError(f"step and lipschitz must be at least 0, got {step} and {lipschitz}")
    random_tasks, reused = reading.startswith("random"), reading.endswith("B")
    number = tasks if random_tasks else samples * tasks
    if number < 2:
        raise ValueError(f"at least 2 independent losses are needed, got {number} in reading {reading!r}")
    stability = value(gamma_gradient, beta=step, L0=lipschitz, n=samples) if reused else 0.0
    factor = (
        1.0
        if random_tasks
        else value(factor_B, gamma=stability, n=samples)
        if reused
        else value(factor_A, beta=step, L0=lipschitz)
    )
    deviation = value(width, alpha=radius, d=dim, N=number)
    root, prior = smallest(complexity, C=factor, d=dim, x_norm=norm, s=deviation, N=number, delta=1 - confidence)
    return Bound(ball_maximum, stability, tail(dim, radius, deviation), root, prior)


def kl_bound(risk: float, norm: float, *, dim: int, deviation: float, number: int, confidence: float) -> Bound:
    """The kl form: the largest p with kl(risk, p) <= radius, as risk + what is added to it.

    Args:
        risk: E_Q F(x + eps; D), in [0, 1].
        norm: |x|.
        dim: d.
        deviation: s, positive.
        number: Independent losses N, at least 1: M for random tasks, n M given the support sets.
        confidence: 1 - delta, in (0, 1).

    Returns:
        The bound on E_Q F(x + eps; P).

    Raises:
        ValueError: An argument is out of range.
    """
    check(risk, norm, dim=dim, radius=deviation, samples=2, tasks=number, confidence=confidence)
    radius, prior = smallest(kl_radius, d=dim, x_norm=norm, s=deviation, N=number, delta=1 - confidence)
    return Bound(risk, 0.0, 0.0, kl_inverse(risk, radius) - risk, prior)


def pac_bus(
    risk: float, norm: float, *, dim: int, deviation: float, tasks: int, confidence: float, stability: float
) -> Bound:
    """The bound of Farid and Majumdar for random tasks, with the grid of priors.

    Args:
        risk: E_Q F(x + eps; D), in [0, 1].
        norm: |x|.
        dim: d.
        deviation: s, positive.
        tasks: M, at least 1.
        confidence: 1 - delta, in (0, 1).
        stability: gamma_A of the inner step, 0 where query sets are separate.

    Returns:
        The bound on E_Q F(x + eps; P).

    Raises:
        ValueError: An argument is out of range.
    """
    check(risk, norm, dim=dim, radius=deviation, samples=2, tasks=tasks, confidence=confidence)
    root, prior = smallest(pac_bus_root, d=dim, x_norm=norm, s=deviation, M=tasks, delta=1 - confidence)
    return Bound(risk, stability, 0.0, root, prior)


def tail(dim: int, radius: float, deviation: float) -> float:
    """P(chi2_d > (alpha / s)^2): the mass of N(0, s^2 I) outside the ball, exactly."""
    return float(chi2.sf((radius / deviation) ** 2, dim))


def kl_inverse(risk: float, radius: float) -> float:
    """The largest p in [risk, 1] with kl(Bernoulli(risk), Bernoulli(p)) <= radius."""

    def excess(u: float) -> float:  # in u = -ln(1 - p), which loses nothing near p = 1
        left = risk * math.log(risk / -math.expm1(-u)) if risk else 0.0
        return left + (1 - risk) * (math.log1p(-risk) + u) - radius

    if risk == 1 or radius <= 0:
        return risk
    start, end = -math.log1p(-risk), 40.0
    if end <= start or excess(end) <= 0:
        return 1.0
    if excess(start) >= 0:  # a radius below the rounding of the kl
        return risk
    return max(risk, -math.expm1(-float(bisect(excess, start, end, xtol=1e-14))))


def check(risk: float, norm: float, *, dim: int, radius: float, samples: int, tasks: int, confidence: float) -> None:
    """Refuse what no bound is defined for.

    Raises:
        ValueError: Names the argument, its value and what is allowed.
    """
    wrong = {
        "a risk must be in [0, 1]": (risk, 0 <= risk <= 1),
        "|x| must be finite and at least 0": (norm, 0 <= norm < math.inf),
        "the dimension must be at least 1": (dim, dim >= 1),
        "a radius or deviation must be positive and finite": (radius, 0 < radius < math.inf),
        "n must be at least 2": (samples, samples >= 2),
        "M must be at least 1": (tasks, tasks >= 1),
        "1 - delta must be in (0, 1)": (confidence, 0 < confidence < 1),
    }
    for message, (found, right) in wrong.items():
        if not right:
            raise ValueError(f"{message}, got {found}")


def smallest(expression: sp.Expr, **values: float) -> tuple[float, int]:
    """The smallest value of an expression over the priors j = 0, 1, ..., and its j."""
    over = value(expression, j=np.arange(LARGEST_J + 1, dtype=np.float64), **values)
    best = int(np.argmin(over))
    return float(over[best]), best


def value(expression: sp.Expr, **values: Any) -> Any:
    """The number that an expression has, symbols by the names that they have in this module."""
    names = tuple(sorted(str(symbol) for symbol in expression.free_symbols))
    given = {str(globals()[name]): of_name for name, of_name in values.items()}
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given to evaluate {expression}")
    return _function(expression, names)(*(given[name] for name in names))


@cache
def _function(expression: sp.Expr, names: tuple[str, ...]) -> Any:
    by_name = {str(symbol): symbol for symbol in expression.free_symbols}
    return sp.lambdify([by_name[name] for name in names], expression, "numpy")
