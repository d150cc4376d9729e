"""Six sets of regression tasks with exact data, four of which the source's statement does not survive.

Statement: ERM and MAML have 3 and 1 stationary points on C0, C1, C2 and C3, 1 and 1 with different minimizers on C4,
and 1 and 3 on C5; on C1 the only minimum of MAML is at ERM's maximum 13/16; each is confirmed by a second engine.

Source: derived here, against the source's Lemma 1.

Assumptions: none; the data are rational numbers.

Why: MAML averages l_m(T_m), each of which is flatter near its own minimum by (1 - beta l_m'')^2 and less so where
l_m'' is negative. What is left between two wells can be a minimum.

Setting: rho(u) = u^2 / (1 + u^2). C0: rho(x -+ 5/8), beta = 1/8. C1: 2 rho(x - 13/8), 2 rho(x), beta = 3/16. C2:
rho(x - 5/8), 2 rho(x - 5/2), beta = 1/8. C3: mean of (-2 - x - x^2)^2 and (2 + x - x^2)^2, mean of (1 - x)^2 and (3 -
x - x^2)^2, beta = 1/2. C4: (1 - x)^2, 4 x^2, beta = 1/16. C5: weights 3/2, 2, 2 at 13/8, -3/4, 1/2, beta = 5/32.
beta_low L1 is 1/4, 3/4, 1/2, infinite, 1/2 and 5/8.

Controls: no inner step, which is ERM; first-order MAML, whose update leaves out the factor 1 - beta l_m''.

Limits: six cases; they are examples of what can happen, not of what is common.
"""

from __future__ import annotations

from fractions import Fraction as Q

from theory.claim import Budget, Claim, Evidence, Item, Rule
from theory.claims.lemma import CASES, EXACT, counted, counted_case, landscape_of
from theory.line import (
    Quotient,
    count,
    erm_slope,
    inner_steps,
    is_root,
    maml_slope,
    mean,
    same,
    stationary_points,
    sturm_points,
)


def numbers(name: str, erm: int, maml: int) -> tuple[Item, Item]:
    """Counts beside those of the statement."""
    case = CASES[name]
    return Item(f"{name}: ERM", erm, case.erm), Item(f"{name}: MAML", maml, case.maml)


def measure(budget: Budget, seed: int) -> Evidence:
    """Counts of both engines, and where the points are."""
    items: list[Item] = []
    for name, case in CASES.items():
        found = counted_case(name)
        items += numbers(name, len(found.erm), len(found.maml))
        slopes = erm_slope(case.family), maml_slope(case.family, case.beta)
        agree = [same(sturm_points(slope), points) for slope, points in zip(slopes, found[2:], strict=True)]
        items.append(Item(f"{name}: engines that agree", sum(agree), 2))
    c1, c4 = CASES["C1"], CASES["C4"]
    middle = Q(13, 16)
    items += [
        Item("C1: MAML' vanishes at 13/16", int(is_root(maml_slope(c1.family, c1.beta), middle)), 1),
        Item("C1: minima of MAML", count(counted_case("C1").maml, "minimum"), 1),
        Item("C1: ERM' vanishes at 13/16", int(is_root(erm_slope(c1.family), middle)), 1),
        Item("C1: ERM's point there is its maximum", int(counted_case("C1").erm[1].kind == "maximum"), 1),
        Item("C4: ERM' vanishes at 1/5", int(is_root(erm_slope(c4.family), Q(1, 5))), 1),
        Item("C4: MAML' vanishes at 1/5", int(is_root(maml_slope(c4.family, c4.beta), Q(1, 5))), 0),
    ]
    return Evidence(tuple(items), (*landscape_of("C2"), *landscape_of("C5", shift=1.5)))


def no_step(budget: Budget, seed: int) -> Evidence:
    """Counts with beta = 0."""
    return Evidence(
        tuple(
            item
            for name, case in CASES.items()
            for found in [counted(case.family, Q(0))]
            for item in numbers(name, len(found.erm), len(found.maml))
        )
    )


def first_order(budget: Budget, seed: int) -> Evidence:
    """Zeros of (1/M) sum_m l_m'(T_m)."""

    def slope(name: str) -> Quotient:
        case = CASES[name]
        return mean([task.slope(task.inner) for task in inner_steps(case.family, case.beta)])

    return Evidence(
        tuple(
            item
            for name in CASES
            for item in numbers(name, len(counted_case(name).erm), len(stationary_points(slope(name))))
        )
    )


CLAIM = Claim(
    rule=Rule("every number is the predicted one", below=EXACT, above=EXACT),
    measure=measure,
    controls={"beta_low = 0": no_step, "first-order MAML": first_order},
    evidence="proved exactly",
    axes=("x", "loss (C5 shifted up by 1.5)"),
    scale="linear",
)
