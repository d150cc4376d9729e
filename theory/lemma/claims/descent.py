"""MAML lies below ERM by the descent of one inner step.

Statement: for any number of tasks and beta_low <= 2/L1, F <= R - beta_low (1 - beta_low L1/2) (1/M) sum_m (l_m')^2
everywhere.

Source: derived here; what is certain about the two landscapes, whatever their counts are.

Assumptions: l_m' is L1-Lipschitz; support and query set the same.

Why: the descent lemma for each task, l(x - beta l') <= l - beta (l')^2 + (L1/2) beta^2 (l')^2.

Setting: random robust regressions of one and two tasks and linear regressions, beta_low L1 = 1/2, 1, 2; the sign of
the difference of both sides, a rational function, is decided on the whole line. For one linear regression it is zero.
A number is that of the cases in which the inequality fails somewhere.

Controls: the factor 1 in place of 1 - beta_low L1/2; L1/2 in place of L1.

Limits: it compares values, not numbers of stationary points.
"""

from __future__ import annotations

from fractions import Fraction as Q

from synthetic import ExactFamily, PolynomialRegression
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import Quotient, erm, inner_steps, maml, mean, signs
from theory.lemma.setting import EXACT, polynomials, robust

RATIOS = (Q(1, 2), Q(1), Q(2))


def gap(family: ExactFamily, beta: Q, factor: Q) -> Quotient:
    """R - beta factor (1/M) sum_m (l_m')^2 - F."""
    squares = mean([task.slope * task.slope for task in inner_steps(family, beta)])
    return erm(family) - squares * (beta * factor) - maml(family, beta)


def linear(n: int, seed: int) -> list[PolynomialRegression]:
    """Random linear regressions of two tasks."""
    return [
        PolynomialRegression([[(a or Q(1), 0, y) for a, _, y in task] for task in family.data])
        for family in polynomials(n, seed, tasks=2)
    ]


def check(budget: Budget, seed: int, *, bound: Q = Q(1), half: Q = Q(1, 2)) -> Evidence:
    """Cases that fail, with `bound` L1 in place of L1 and `half` in place of 1/2."""
    n = max(2, budget.instances // 4)
    families: dict[str, list[ExactFamily]] = {
        "one task": list(robust(n, seed, tasks=1)),
        "two tasks": list(robust(n, seed, tasks=2)),
        "linear": list(linear(n, seed)),
    }
    items = []
    for label, drawn in families.items():
        for ratio in RATIOS:
            fails = sum(-1 in signs(gap(family, ratio / family.L1, 1 - ratio * bound * half)) for family in drawn)
            items.append(Item(f"{label}, beta L1 = {ratio}, {n} cases", fails, 0))
    return Evidence(tuple(items))


def measure(budget: Budget, seed: int) -> Evidence:
    """Cases that fail; the gap of one of them."""
    family = next(robust(1, seed, tasks=2))
    x = [Q(i, 10) for i in range(-50, 51)]
    curves = []
    for ratio in RATIOS[:2]:
        function = gap(family, ratio / family.L1, 1 - ratio / 2)
        y = [float(function.at(at)) for at in x]
        curves.append(Curve(f"right minus left side, beta L1 = {ratio}", list(map(float, x)), y))
    return Evidence(check(budget, seed).items, tuple(curves))


def factor_one(budget: Budget, seed: int) -> Evidence:
    """Without the term of second order."""
    return check(budget, seed, half=Q(0))


def half_of_it(budget: Budget, seed: int) -> Evidence:
    """A Lipschitz constant that is too small."""
    return check(budget, seed, bound=Q(1, 2))


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"factor 1 in place of 1 - beta_low L1/2": factor_one, "L1/2 in place of L1": half_of_it},
    evidence="proved exactly",
    axes=("x", "gap"),
    scale="linear",
)
