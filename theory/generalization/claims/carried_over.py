"""The generalization bound of SAM, carried over to tasks with an inner step.

Statement: with probability at least 1 - delta = 0.95, F(x; P) <= max over |eps| <= alpha of F(x + eps; D) + gamma_A +
sqrt(R), at a stationary x with F(x; P) <= E F(x + eps; P), where N = n M, k = dim and R = [k ln(1 + |x|^2/alpha^2 (1 +
sqrt(ln N / k))^2) + 2 ln(1/delta) + 5 ln N + O(1)] / (4 N).

Source: Theorem 2 of Foret et al., ICLR 2021, with N for its sample size and gamma_A added; there R = [k ln(...) + 4
ln(N/delta) + O~(1)] / (N - 1), and the proof has 8 ln(6 N + 3 k) for O~(1).

Assumptions: a loss in [0, 1], 1-Lipschitz, the same at both levels; gamma_A = 2 beta_low / n; the support set is the
query set, or not: both are the same here.

Why: it is false, because the n losses of a task share its adapted parameter: one sample moves all of them by gamma_A,
and F(x; D) can deviate by sqrt C / sqrt N, C = (1 + (n - 1) gamma_A)^2, and not by 1 / sqrt N only. Here F(0; D) has
the standard deviation b / sqrt N, but for the clipping. With n = 64 b^2 and fixed M, gamma_A and sqrt(R) both vanish
against it as b grows, for any O(1): the probability of a violation tends to 1/2.

Setting: tasks all alike, samples z = +-1 of equal chance, one parameter, and `loss` of `extreme.py`, whose
gradient at 0 is z, to six digits, and whose slope away from 0 is 0.99 whatever z is; x = 0. There F(.; D) and F(.; P)
have gradient zero; both, and the maximum of F(.; D) over the ball, are least within a zone ten times as wide as the
ball; and F(0; P) = 1/2. In the zone F rises by 0.99 beta_low x^2 wherever a task is not clipped: by more than could be
lost outside, where the Gaussian of deviation alpha has a mass below 1e-22. b = 5 to 40, n = 64 b^2, M = 20. F(0; D) is
the mean over tasks of 1/2 - b mean(z), clipped to [0, 1], and probabilities of a violation are sums of its exact
distribution. O(1) is 0 or 100. Foret's form, with the O~(1) of its proof, is violated from b = 10 on. The figure's
legend has the O(1), for each b, up to which a violation is likelier than delta.

Controls: the theorem with C; the statement's root times sqrt C; and b = 2, too short an inner step for a violation.

Limits: it needs b well above 1, that is n gamma_A well above 2: where gamma_A is much smaller than 1/n, C is nearly 1
and nothing is said against the form. beta_low L1 is at least 1 for this loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.claims.terms import by_theorem, item
from theory.generalization.extreme import Instance, inner_noise
from theory.generalization.setting import DELTA

FACTORS = (5, 10, 20, 40)
SHORT = 2
TASKS = 20
LARGE = 100.0
"""An O(1)."""


@cache
def instance(factor: int) -> Instance:
    """Inner noise at b."""
    return inner_noise(factor, 64 * factor**2, TASKS, "B")


def gamma(of: Instance) -> float:
    """gamma_A."""
    return 2 * of.step / of.samples


def root(of: Instance, constant: float = 0.0) -> float:
    """sqrt(R) of the statement at x = 0, where ln(1 + |x|^2 ...) vanishes, with a given O(1)."""
    number = of.samples * of.tasks
    return math.sqrt((2 * math.log(1 / DELTA) + 5 * math.log(number) + constant) / (4 * number))


def foret(of: Instance) -> float:
    """sqrt(R) of Foret et al. at x = 0, with what the proof has for O~(1)."""
    number = of.samples * of.tasks
    return math.sqrt((4 * math.log(number / DELTA) + 8 * math.log(6 * number + 3)) / (number - 1))


FORMS: dict[str, Callable[[Instance], float]] = {
    "O(1) = 0": root,
    "O(1) = 100": lambda of: root(of, LARGE),
    "Foret": foret,
}


def largest_constant(of: Instance) -> float:
    """The O(1) above which a violation is no more likely than delta."""
    edge = float(of.empirical[np.searchsorted(np.cumsum(of.probability), DELTA, side="right")])
    return 4 * of.samples * of.tasks * ((of.risk - edge - gamma(of)) ** 2 - root(of) ** 2)


def measure(budget: Budget, seed: int) -> Evidence:
    """Exact probabilities of a violation."""
    found = {
        form: [instance(factor).violated(gamma(instance(factor)) + of_form(instance(factor))) for factor in FACTORS]
        for form, of_form in FORMS.items()
    }
    constants = ", ".join(f"{largest_constant(instance(factor)):.4g}" for factor in FACTORS)
    return Evidence(
        tuple(
            item(f"{form}, b = {factor}", interval)
            for form, intervals in found.items()
            for factor, interval in zip(FACTORS, intervals, strict=True)
        ),
        (
            *(Curve(form, FACTORS, [high for _, high in intervals]) for form, intervals in found.items()),
            Curve(f"delta; reached at O(1) = {constants}", FACTORS, [DELTA] * len(FACTORS), "predicted"),
        ),
        latex=r"R = \frac{k \ln(1 + \frac{|x|^2}{\alpha^2} (1 + \sqrt{\ln N / k})^2) "
        r"+ 2 \ln\frac1\delta + 5 \ln N + O(1)}{4 N}",
    )


def with_factor(budget: Budget, seed: int) -> Evidence:
    """The theorem."""
    found = [by_theorem(instance(factor)) for factor in FACTORS]
    return Evidence(
        tuple(item(f"theorem, b = {factor}", interval) for factor, interval in zip(FACTORS, found, strict=True)),
        (Curve("the theorem with C", FACTORS, [high for _, high in found], "control"),),
    )


def rescaled(budget: Budget, seed: int) -> Evidence:
    """The statement's root, O(1) = 0, times sqrt C."""
    items: list[Item] = []
    for factor in FACTORS:
        of = instance(factor)
        larger = (1 + (of.samples - 1) * gamma(of)) * root(of)
        items.append(item(f"root times sqrt C, b = {factor}", of.violated(gamma(of) + larger)))
    return Evidence(tuple(items))


def short_step(budget: Budget, seed: int) -> Evidence:
    """The statement where the inner step is short."""
    of = instance(SHORT)
    return Evidence((item(f"O(1) = 0, b = {SHORT}", of.violated(gamma(of) + root(of))),))


CLAIM = Claim(
    rule=Rule("every probability of a violation is at most delta = 0.05", below=math.inf, above=0.0),
    measure=measure,
    controls={"the theorem, with C": with_factor, "root times sqrt C": rescaled, "b = 2": short_step},
    evidence="proved exactly",
    expected="refuted",
    axes=("b", "probability of a violation"),
    scale="linear",
)
