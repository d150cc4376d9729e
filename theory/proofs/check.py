"""Verifies proofs from their JSON alone, in fractions: `python theory/proofs/check.py [FILE]`.

A proof of kind `rate` is of (1/T) sum_{t<T} |g_t|^2 <= bound for every 1-smooth f >= 0 with gradients g_t at x_t,
f(x_0) <= Delta, x_{t+1} = x_t - eta (g_t + b e_t) and |e_t| <= 1. Each multiplier m_i >= 0 is of a constraint c_i <= 0
that all of these satisfy. The bound is proved where bound + sum_i m_i c_i less the average has no value f(x_t) in it, a
constant of at least 0, and a matrix that an exact L D L^T shows to be positive semidefinite.
A proof of kind `identities` has sums of products of named polynomials that are 0, or 0 below a power of k; what they
say in words is the file's.
"""

import itertools
import json
import math
import sys
from collections import Counter
from fractions import Fraction as Q
from pathlib import Path
from typing import Any

KINDS = ("start", "infimum", "error", "pair")


def rate(proof: dict[str, Any]) -> bool:
    """Whether the multipliers prove the bound."""
    T, (eta, b, Delta, rest) = proof["T"], (Q(proof[name]) for name in ("eta", "b", "Delta", "bound"))
    size = 2 * T - 1
    unit = [[Q(int(i == j)) for j in range(size)] for i in range(size)]  # g_0, ..., g_{T-1}, e_0, ..., e_{T-2}
    x = [[-eta * int(i < t) - eta * b * int(T <= i < T + t) for i in range(size)] for t in range(T)]
    form, values = [[Q(0)] * size for _ in unit], [Q(0)] * T

    def add(m: Q, u: list[Q], v: list[Q]) -> None:  # m <u, v>
        for (i, p), (j, q) in itertools.product(*([(k, a) for k, a in enumerate(of) if a] for of in (u, v))):
            form[i][j] += m * p * q / 2
            form[j][i] += m * p * q / 2

    for t in range(T):
        add(Q(-1, T), unit[t], unit[t])
    for m, kind, i, j in ((Q(text), *which) for text, *which in proof["multipliers"]):
        if m < 0 or not 0 <= i < T - (kind == "error") or not 0 <= j < T or kind not in KINDS:
            return False
        if kind == "start":  # f(x_0) - Delta
            values[0], rest = values[0] + m, rest - m * Delta
        elif kind == "infimum":  # |g_i|^2 / 2 - f(x_i)
            values[i] -= m
            add(m / 2, unit[i], unit[i])
        elif kind == "error":  # |e_i|^2 - 1
            rest -= m
            add(m, unit[T + i], unit[T + i])
        else:  # f(x_j) - f(x_i) + <g_i + g_j, x_i - x_j> / 2 + |g_i - g_j|^2 / 4 - |x_i - x_j|^2 / 4
            values[i], values[j] = values[i] - m, values[j] + m
            step, turn = ([p - q for p, q in zip(of[i], of[j], strict=True)] for of in (x, unit))
            total = [p + q for p, q in zip(unit[i], unit[j], strict=True)]
            for factor, u, v in ((m / 2, total, step), (m / 4, turn, turn), (-m / 4, step, step)):
                add(factor, u, v)
    return not any(values) and rest >= 0 and semidefinite(form)


def semidefinite(form: list[list[Q]]) -> bool:
    """Whether elimination, which is L D L^T, leaves pivots of at least 0, and zeros in the row of a pivot that is 0."""
    for k, row in enumerate(form):
        if row[k] < 0 or (row[k] == 0 and any(row[k:])):
            return False
        for i in range(k + 1, len(form) if row[k] else 0):
            form[i] = [p - form[i][k] / row[k] * q for p, q in zip(form[i], row, strict=True)]
    return True


def identities(proof: dict[str, Any]) -> bool:
    """Whether each sum of products of polynomials is 0, below a power of k where one is given."""
    for identity in proof["identities"]:
        total: Counter[tuple[Any, ...]] = Counter()
        for factor, *names in identity["sum"]:
            product: dict[tuple[Any, ...], Any] = {(): Q(factor)}
            for name in names:
                before, product = product, Counter()
                for (powers, a), (text, more) in itertools.product(before.items(), proof["polynomials"][name]):
                    product[tuple(sorted((Counter(dict(powers)) + Counter(more)).items()))] += a * Q(text)
            total.update(product)
        if any(a for powers, a in total.items() if dict(powers).get("k", 0) < identity.get("below", 10**9)):
            return False
    return bool(proof["identities"])


def main(path: str | Path) -> int:
    """Print what each proof of a file proves; the exit code is 1 if one does not."""
    refused = 0
    for proof in json.loads(Path(path).read_text(encoding="utf-8"))["payload"]["proofs"]:
        if proof["kind"] == "rate":
            proved, bound = rate(proof), math.ceil(Q(proof["bound"]) * 10**9) / 10**9
            says = "mean squared gradient <= {} for L = 1, T = {T}, eta = {eta}, b = {b}, Delta = {Delta}"
            says = says.format(bound, **proof)
        else:
            proved, says = identities(proof), "; ".join([proof["title"], *(one["says"] for one in proof["identities"])])
        refused += not proved
        print("proved: " if proved else "NOT PROVED: ", says, sep="")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else Path(__file__).parents[2] / "records/theory/proofs.json"))
