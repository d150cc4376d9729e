"""With one task MAML keeps every stationary point of ERM, and has the same ones where the inner step is small.

Statement: for one task and any beta_low, every stationary point, local minimizer and local maximizer of ERM is one of
MAML, so that MAML has at least as many; if 1 - beta_low l'' is positive everywhere, in particular for beta_low L1 <
1, MAML has no others.

Source: derived here; the part of the source's Lemma 1 that holds.

Assumptions: one task, support and query set the same; l is twice differentiable. Minimizers need not be strict: where
l'' = 1 / beta_low around one, F is constant there.

Why: F = l(T) with T(x) = x - beta l'(x), and T(x) = x where l'(x) = 0; so F' = T' l'(T) vanishes there, and T carries
neighbourhoods to neighbourhoods. If T' > 0, T takes no value twice: it may not reach all of the line, but it reaches
the stationary points of ERM, each from itself alone, and F' and l'(T) have the same signs.

Setting: random robust regressions with one and two targets, beta_low L1 = 1/2, 9/10, 2, 4, and polynomial regressions
with beta_low = 1/8, 1, 4. Inclusion of the stationary points is divisibility of polynomials. A number is that of the
cases in which the property fails.

Controls: the same for two tasks, random ones and C0; the equality with beta_low L1 = 2.

Limits: one parameter. Minima and maxima are kept in any dimension (the proof does not use the line), and the plane is
`lemma_torus`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction as Q
from typing import Literal

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.lemma.line import contained, count, erm_slope, inner_steps, maml_slope, signs
from theory.lemma.setting import (
    EXACT,
    Instance,
    counted,
    counted_case,
    polynomials,
    robust,
    violations,
)

RATIOS = (Q(1, 2), Q(9, 10), Q(2), Q(4))
STEPS = (Q(1, 8), Q(1), Q(4))


def keeps_points(case: Instance) -> bool:
    """Every zero of ERM' is one of MAML'."""
    return contained(erm_slope(case.family), maml_slope(case.family, case.beta))


def keeps_extrema(case: Instance) -> bool:
    """Every minimum and maximum of ERM meets exactly one point of MAML, which is of the same kind."""
    return all(
        [own.kind for own in case.maml if point.low <= own.high and own.low <= point.high] == [point.kind]
        for point in case.erm
        if point.kind != "flat"
    )


def at_least_as_many(case: Instance) -> bool:
    """MAML has not fewer stationary points."""
    return len(case.maml) >= len(case.erm)


def equal(case: Instance) -> bool:
    """As many minima, and as many maxima."""
    return all(count(case.maml, kind) == count(case.erm, kind) for kind in ("minimum", "maximum"))


def preserves(case: Instance) -> bool:
    """1 - beta l'' > 0 everywhere, for every task."""
    return all(signs(task.stretch) == {1} for task in inner_steps(case.family, case.beta))


def kept(label: str, cases: list[Instance]) -> tuple[Item, ...]:
    """Violations of what holds for any step."""
    return (
        violations(f"{label}: point lost", keeps_points, cases),
        violations(f"{label}: extremum lost", keeps_extrema, cases),
        violations(f"{label}: fewer", at_least_as_many, cases),
    )


def drawn(budget: Budget, seed: int, *, tasks: int) -> Iterator[tuple[str, list[Instance]]]:
    """Random cases by cell; of two targets per task only for one task, and few: their polynomials are of degree 69."""
    for samples, n in ((1, budget.instances), (2, max(2, budget.instances // 10))):
        if samples == 1 or tasks == 1:
            families = list(robust(n, seed, tasks=tasks, samples=samples))
            for ratio in RATIOS:
                label = f"n = {samples}, beta L1 = {ratio}"
                yield label, [counted(family, ratio / family.L1) for family in families]
    for step in STEPS:
        yield f"polynomials, beta = {step}", [counted(family, step) for family in polynomials(n, seed, tasks=tasks)]


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations in every cell."""
    items: list[Item] = []
    cells = dict(drawn(budget, seed, tasks=1))
    for label, cases in cells.items():
        items += kept(label, cases)
        items.append(violations(f"{label}: T' > 0, not equal", equal, list(filter(preserves, cases))))
    one, two = list(cells.values())[: len(RATIOS)], list(cells.values())[len(RATIOS) : 2 * len(RATIOS)]
    return Evidence(tuple(items), (ratios("one target", one), ratios("two targets", two)))


def ratios(label: str, cells: list[list[Instance]], role: Literal["measured", "control"] = "measured") -> Curve:
    """Mean of the count of MAML over that of ERM, against beta L1."""
    y = [sum(len(case.maml) / len(case.erm) for case in cases) / len(cases) for cases in cells]
    return Curve(label, [float(ratio) for ratio in RATIOS], y, role)


def two_tasks(budget: Budget, seed: int) -> Evidence:
    """What holds for one task, asked of two."""
    cells = dict(drawn(budget, seed, tasks=2))
    items = tuple(item for label, cases in cells.items() for item in kept(label, cases))
    return Evidence(items, (ratios("two tasks", list(cells.values())[: len(RATIOS)], "control"),))


def c0(budget: Budget, seed: int) -> Evidence:
    """The claim's question, asked of C0."""
    return Evidence(kept("C0", [counted_case("C0")]))


def equality_above(budget: Budget, seed: int) -> Evidence:
    """Equality asked of one task with beta L1 = 2."""
    cases = [counted(family, 2 / family.L1) for family in robust(budget.instances, seed, tasks=1)]
    return Evidence((violations("beta L1 = 2, not equal", equal, cases),))


CLAIM = Claim(
    rule=Rule("no case in which it fails", below=EXACT, above=EXACT),
    measure=measure,
    controls={"two tasks": two_tasks, "C0": c0, "equality for beta_low L1 = 2": equality_above},
    evidence="proved exactly",
    axes=("beta_low L1", "stationary points, MAML / ERM, mean over tasks"),
    scale="linear",
)
