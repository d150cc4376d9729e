"""The explicit bounds, each one sympy expression: printed, expanded and evaluated from the same source.

Notation of the rate: kappa = 1 + beta L1; the constants of `synthetic.Constants`; M tasks; Delta = F(x_0) - inf F. All
are derived here. Read next: `claims/algebra.py`, which expands them, and `bound.py`, which tests them.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from synthetic import Constants

beta, eta, alpha_up, alpha_low = sp.symbols("beta eta alpha_up alpha_low", nonnegative=True)
L0, L1, L2, Lq, sg, sH, sq = sp.symbols("L0 L1 L2 L_q sigma_g sigma_H sigma_q", nonnegative=True)
Delta = sp.Symbol("Delta", nonnegative=True)
M, T = sp.symbols("M T", positive=True)

kappa = 1 + beta * L1

smoothness = kappa**2 * Lq + beta * L2 * L0
"""L_F: Lipschitz constant of grad F."""

bias = (
    smoothness * alpha_up
    + beta * (kappa * Lq * L1 + L2 * L0) * alpha_low
    + Lq * beta * sg * sp.sqrt(kappa**2 + beta**2 * sH**2)
)
"""b: largest distance of the expected meta-gradient from grad F, whatever the perturbations in their balls.

The upper perturbation moves the point at which grad F is taken, so that the smoothness of F alone bounds its part. The
root is there because one support sample gives both the gradient and the Hessian: E (I - beta H~)(grad q(T~) - grad
q(T)) is bounded by Cauchy and Schwarz, with E |(I - beta H~) u|^2 <= kappa^2 + beta^2 sigma_H^2 for a unit vector u.
"""

variance_one = kappa**2 * sq**2 + beta**2 * (kappa * Lq * sg + sH * L0) ** 2 + beta**2 * sH**2 * sq**2
"""v: variance of one task's meta-gradient, perturbations independent of its samples.

The two deviations that come from the support sample add up (Minkowski), because they are those of one sample.
"""

variance_fresh = variance_one / M
"""V where the samples of the update are independent of those that made the perturbations."""

variance_shared = (sp.sqrt((kappa**2 * sq**2 + beta**2 * (kappa * Lq * sg + sH * L0) ** 2) / M) + bias.subs(sg, 0)) ** 2
"""V where one minibatch makes both: the perturbation is correlated with the noise and couples the tasks."""


def stationarity(L: sp.Expr, b: sp.Expr, V: sp.Expr) -> sp.Expr:
    """G^2, at least (1/T) sum_{t<T} E |grad F(x_t)|^2 for every L-smooth F and every eta <= 1/L.

    The steps are x_{t+1} = x_t - eta (grad F(x_t) + e_t + noise) with |e_t| <= b and noise of mean 0 and variance at
    most V. G is the positive root, for lambda = L eta, of

        (2 - lambda) G^2 = 2 (1 - lambda) b G + 2 Delta/(eta T) + lambda (b^2 + V).

    Why: the descent lemma gives E F(x_{t+1}) <= F - eta (1 - lambda/2) |g|^2 - eta (1 - lambda) <g, e> + (L eta^2/2)
    (|e|^2 + V) with g = grad F(x_t). The sum over t telescopes, and the mean of E |g| |e| is at most b times the root
    of the average (Cauchy and Schwarz). The algebra is proved in `claims/algebra.py`.
    """
    step = L * eta
    rest = 2 * Delta / (eta * T) + step * b**2 + step * V
    return (((1 - step) * b + sp.sqrt((1 - step) ** 2 * b**2 + (2 - step) * rest)) / (2 - step)) ** 2


def rate(variance: sp.Expr) -> sp.Expr:
    """The bound of Sharp-MAML: `stationarity` with the constants of its meta-gradient."""
    return stationarity(smoothness, bias, variance)


def evaluate(expression: sp.Expr, constants: Constants, **values: float) -> float:
    """The number that an expression has for the constants of a family.

    Args:
        expression: One of the above, or made of their symbols.
        constants: Constants of the family.
        **values: The other symbols, by the names that they have in this module.

    Returns:
        The number.

    Raises:
        ValueError: A symbol of the expression has no value.
    """
    names = {str(symbol): name for name, symbol in _symbols().items()}
    given = {**asdict(constants), **values}
    missing = sorted(names[str(symbol)] for symbol in expression.free_symbols if names[str(symbol)] not in given)
    if missing:
        raise ValueError(f"{', '.join(missing)} must be given to evaluate {expression}")
    # Zeros first: L0 is infinite for a quadratic, and meets beta or L2 = 0 as a factor.
    expression = _without(expression, tuple(sorted(symbol for symbol in names if given.get(names[symbol]) == 0)))
    used = sorted(expression.free_symbols, key=str)
    return float(_function(expression, tuple(used))(*(np.float64(given[names[str(symbol)]]) for symbol in used)))


@cache
def _without(expression: sp.Expr, symbols: tuple[str, ...]) -> sp.Expr:
    """The expression where these are 0."""
    return sp.sympify(expression.subs({symbol: 0 for symbol in expression.free_symbols if str(symbol) in symbols}))


@cache
def _function(expression: sp.Expr, symbols: tuple[sp.Symbol, ...]) -> Any:
    return sp.lambdify(symbols, expression, "numpy")


def _symbols() -> dict[str, sp.Symbol]:
    return {name: value for name, value in globals().items() if isinstance(value, sp.Symbol)}
