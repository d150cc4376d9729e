"""The algebra of the theorem, of its expansion and of a stable step, as identities between polynomials.

The formulas are those of `theory/rate/theorem.py` and `theory/generalization/pac_bayes.py`; sympy expands them, and
the checker multiplies the polynomials that come of it. Read next: `check.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sympy as sp

from theory.generalization.pac_bayes import gamma_gradient
from theory.proofs import check
from theory.rate import theorem as of


class Identity(NamedTuple):
    """Sums of products of named polynomials that are equal.

    Attributes:
        says: The identity in words.
        left: Such as `1 G G - 2 b G`: terms that + or - separates, each a rational factor and names.
        right: The right-hand side, likewise.
        below: Power of k from which on the two may differ; None if they are equal.
    """

    says: str
    left: str
    right: str
    below: int | None = None

    def terms(self) -> list[list[str]]:
        """The terms of left - right, each a factor and names."""
        found = []
        for side, sign in ((self.left, 1), (self.right, -1)):
            for term in side.replace(" - ", " + -").split(" + "):
                factor, *names = term.split()
                found.append([str(sign * sp.Rational(factor)), *names])
        return found


def identities(title: str, named: Mapping[str, Any], every: Sequence[Identity]) -> dict[str, Any]:
    """A proof made of identities.

    Args:
        title: What they prove.
        named: The polynomials by name, with rational coefficients.
        every: The identities.

    Returns:
        The proof, as `check.py` reads it.

    Raises:
        RuntimeError: One of them is wrong.
    """
    proof = {
        "kind": "identities",
        "title": title,
        "polynomials": {name: polynomial(expression) for name, expression in named.items()},
        "identities": [
            {"says": one.says if one.below is None else f"{one.says}, up to O(k^{one.below})", "sum": one.terms()}
            | ({} if one.below is None else {"below": one.below})
            for one in every
        ],
    }
    if not check.identities(proof):
        raise RuntimeError(f"an identity is wrong: {title}")
    return proof


def polynomial(expression: Any) -> list[list[Any]]:
    """The terms of a polynomial, each a coefficient and {variable: power}."""
    expression = sp.expand(expression)
    found = sp.Poly(expression, *sorted(expression.free_symbols or [sp.Symbol("k")], key=str))
    return [
        [str(factor), {str(variable): power for variable, power in zip(found.gens, powers, strict=True) if power}]
        for powers, factor in found.terms()
    ]


def stability() -> dict[str, Any]:
    """The stability of a gradient step.

    u and v are gradients of the sample that is replaced and of the one in its place; `uu`, `uv` and `vv` are their
    products. The adapted parameters differ by beta (u - v) / n, and a loss by at most L0 times the length of that.

    Returns:
        The proof.
    """
    uu, uv, vv, h = sp.symbols("uu uv vv 1/n")
    (n,) = (symbol for symbol in gamma_gradient.free_symbols if str(symbol) == "n")
    named = {
        "gamma": gamma_gradient.subs(n, 1 / h),
        "beta/n": of.beta * h,
        "L0": of.L0,
        "|u-v|^2": uu - 2 * uv + vv,
        "|u+v|^2": uu + 2 * uv + vv,
        "room_u": of.L0**2 - uu,
        "room_v": of.L0**2 - vv,
    }
    return identities(
        "replacing one of n samples moves no loss after a gradient step by more than gamma = 2 beta L0^2 / n, which "
        "opposed gradients of length L0 attain",
        named,
        [
            Identity("gamma = L0 (beta/n) (2 L0)", "1 gamma", "2 L0 beta/n L0"),
            Identity(
                "(2 L0)^2 - |u - v|^2 = 2 (L0^2 - |u|^2) + 2 (L0^2 - |v|^2) + |u + v|^2, a sum that is never negative "
                "and 0 for v = -u, |u| = L0",
                "4 L0 L0 - 1 |u-v|^2",
                "2 room_u + 2 room_v + 1 |u+v|^2",
            ),
        ],
    )


def theorem() -> dict[str, Any]:
    """The algebra of `stationarity`: the descent lemma at a wrong gradient, and the bound as a root.

    `gg`, `ge` and `ee` are products of the gradient g and the error e of a step.

    Returns:
        The proof.
    """
    gg, ge, ee, L, b, V = sp.symbols("gg ge ee L b V")
    step, start = L * of.eta, sp.Symbol("Delta/(eta*T)")
    bound = of.stationarity(L, b, V)
    root = next(atom for atom in bound.atoms(sp.Pow) if atom.exp == sp.Rational(1, 2))
    s = sp.Symbol("s")
    named = {
        "gg": gg, "ge": ge, "ee": ee, "eta": of.eta, "L": L, "b": b, "s": s,
        "2-lambda": 2 - step, "1-lambda": 1 - step, "<g,g+e>": gg + ge, "|g+e|^2": gg + 2 * ge + ee,
        "square": root.base.subs(of.Delta, start * of.eta * of.T),
        "rest": 2 * start + step * (b**2 + V),
        "r": (1 - step) * b + s,
        "(2-lambda)^2G^2": sp.cancel(bound.subs(root, s) * (2 - step) ** 2),
    }  # fmt: skip
    return identities(
        "with lambda = L eta, the descent lemma at a step of -eta (g + e); and the theorem's G solves (2 - lambda) "
        "G^2 = 2 (1 - lambda) b G + 2 Delta/(eta T) + lambda (b^2 + V)",
        named,
        [
            Identity(
                "-eta <g, g + e> + (L eta^2 / 2) |g + e|^2 = -eta (1 - lambda/2) |g|^2 - eta (1 - lambda) <g, e> + "
                "(L eta^2 / 2) |e|^2",
                "-1 eta <g,g+e> + 1/2 L eta eta |g+e|^2",
                "-1/2 eta 2-lambda gg - 1 eta 1-lambda ge + 1/2 L eta eta ee",
            ),
            Identity("(2 - lambda) G is r = (1 - lambda) b + s", "1 (2-lambda)^2G^2", "1 r r"),
            Identity(
                "s is the root of (1 - lambda)^2 b^2 + (2 - lambda) rest",
                "1 square",
                "1 1-lambda 1-lambda b b + 1 2-lambda rest",
            ),
            Identity(
                "r^2 - 2 (1 - lambda) b r - (2 - lambda) rest = s^2 - square, which is 0",
                "1 r r - 2 1-lambda b r - 1 2-lambda rest",
                "1 s s - 1 square",
            ),
        ],
    )


def expansion(samples: str) -> dict[str, Any]:
    """The bound under the prescribed schedules, up to 1/T.

    k = T^(-1/4), w = sigma_q / sqrt M and p^2 = a0. H = p G is a polynomial in k up to k^3. R and W are the roots in
    the bias and in the variance of shared samples, up to the stated powers.

    Args:
        samples: `fresh` or `shared`.

    Returns:
        The proof.

    Raises:
        ValueError: `samples` is something else.
    """
    if samples not in ("fresh", "shared"):
        raise ValueError(f"samples must be 'fresh' or 'shared', got {samples!r}")
    k, p, w, N = sp.symbols("k p w 1/M")
    c1, c2, c3, c4 = sp.symbols("c1:5")
    schedule = {of.beta: c1 * k**2, of.eta: c2 * k**2, of.alpha_up: c3 * k**2, of.alpha_low: c4}

    def scheduled(expression: sp.Expr) -> sp.Expr:
        return sp.expand(expression.subs({of.sq: w / sp.sqrt(N), of.M: 1 / N}).subs(schedule))

    in_bias = of.kappa**2 + of.beta**2 * of.sH**2
    in_variance = of.variance_fresh - of.beta**2 * of.sH**2 * of.sq**2 / of.M
    R, W = scheduled(of.kappa) + c1**2 * of.sH**2 * k**4 / 2, scheduled(of.kappa) * w
    b = scheduled(of.bias.subs(sp.sqrt(in_bias), sp.Symbol("R"))).subs(sp.Symbol("R"), R)
    b1 = of.Lq * c3 + c1 * of.Lq * of.L1 * c4 + c1 * of.Lq * of.sg + c1 * of.L2 * of.L0 * c4
    third = b1**2 / 2 + c2 * of.Lq * p**2 / 2 + c1 * c2 * (of.L0 * of.L2 + 4 * of.L1 * of.Lq) * w**2 / 2
    if samples == "shared":
        third += c2 * of.Lq * (b1 - c1 * of.Lq * of.sg) * w
    rest = k**2 * (p**2 - c2 * of.Lq * w**2 / 2)
    smoothness = scheduled(of.smoothness)
    b0 = b.subs(of.sg, 0)
    symbols = (k, p, w, c2, of.Lq, of.L0, of.L1, of.L2, of.sg, of.sH)
    named = {str(symbol): symbol for symbol in symbols} | {
        "beta": c1 * k**2, "alpha_up": c3 * k**2, "alpha_low": c4, "eta": c2 * k**2, "kappa": scheduled(of.kappa),
        "L_F": smoothness, "lambda": c2 * k**2 * smoothness, "2-lambda": 2 - c2 * k**2 * smoothness,
        "1-lambda": 1 - c2 * k**2 * smoothness, "R": R, "b": b,
        "Delta": c2 * p**2 - c2**2 * of.Lq * w**2 / 2, "Delta/(eta*T)": rest,
        "V": scheduled(of.variance_fresh) if samples == "fresh" else sp.expand((W + b0) ** 2),
        "H": p**2 * k + b1 * p * k**2 / 2 + (third - b1**2 / 4) * k**3 / 2,
        "expansion": p**2 * k**2 + b1 * p * k**3 + third * k**4,
        "1/M": N, "D/M": scheduled(in_variance) - scheduled(of.kappa) ** 2 * w**2,
    }  # fmt: skip
    without_noise = "1 L_F alpha_up + 1 beta kappa L_q L1 alpha_low + 1 beta L2 L0 alpha_low"
    if samples == "fresh":
        variance = [
            Identity(
                "V = kappa^2 w^2 + D/M + beta^2 sigma_H^2 w^2",
                "1 V",
                "1 kappa kappa w w + 1 D/M + 1 beta beta sigma_H sigma_H w w",
            )
        ]
    else:
        named |= {"W": W, "b0": b0}
        variance = [
            Identity("b0 is b without sigma_g", "1 b0", without_noise),
            Identity("V = (W + b0)^2", "1 V", "1 W W + 2 W b0 + 1 b0 b0"),
            Identity("W^2 = kappa^2 w^2 + D/M", "1 W W", "1 kappa kappa w w + 1 D/M", 4),
        ]
    return identities(
        f"for {samples} samples the bound under the prescribed schedules is a0 T^(-1/2) + b1 sqrt(a0) T^(-3/4) + "
        f"({sp.sstr(third).replace('**', '^').replace('p^2', 'a0')}) / T up to T^(-5/4), k = T^(-1/4)",
        named,
        [
            Identity("p^2 = a0: c2 a0 = Delta + c2^2 Lq w^2 / 2", "1 c2 p p", "1 Delta + 1/2 c2 c2 L_q w w"),
            Identity("eta T = c2 / k^2", "1 c2 Delta/(eta*T)", "1 k k Delta"),
            Identity("lambda = eta L_F", "1 lambda", "1 eta L_F"),
            Identity("L_F = kappa^2 Lq + beta L2 L0", "1 L_F", "1 kappa kappa L_q + 1 beta L2 L0"),
            Identity("R^2 = kappa^2 + beta^2 sigma_H^2", "1 R R", "1 kappa kappa + 1 beta beta sigma_H sigma_H", 5),
            Identity(
                "b = L_F alpha_up + beta (kappa Lq L1 + L2 L0) alpha_low + Lq beta sigma_g R",
                "1 b",
                f"{without_noise} + 1 L_q beta sigma_g R",
            ),
            Identity(
                "D = beta^2 (kappa Lq sigma_g + sigma_H L0)^2",
                "1 D/M",
                "1 beta beta kappa kappa L_q L_q sigma_g sigma_g 1/M + 2 beta beta kappa L_q sigma_g sigma_H L0 1/M + "
                "1 beta beta sigma_H sigma_H L0 L0 1/M",
            ),
            *variance,
            Identity(
                "(2 - lambda) H^2 = 2 (1 - lambda) b p H + p^2 (2 Delta/(eta T) + lambda (b^2 + V))",
                "1 2-lambda H H",
                "2 1-lambda b p H + 2 p p Delta/(eta*T) + 1 lambda b b p p + 1 lambda V p p",
                5,
            ),
            Identity("H^2 = p^2 (a0 k^2 + b1 p k^3 + ... k^4)", "1 H H", "1 p p expansion", 5),
        ],
    )
