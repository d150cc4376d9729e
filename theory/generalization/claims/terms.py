"""What each term of the bound is for: without it the bound fails.

Statement: in each setting below F(x; P) exceeds the bound with probability at most delta = 0.05, and with more once
the named term is left out: the divergence KL_j, the factor C, the maximum over the ball, g, ln(1/delta), or M in place
of n M for a new task.

Source: derived here, in the form of `pac_bayes.py`; the source's bound has a maximum over the ball, gamma_A and
a term in n M.

Assumptions: those of the theorem. F(x; P) <= E F(x + eps; P) holds in each setting, because F(.; P) is constant or
rises around x = 0 by more than could be lost far from there (`theory/generalization/extreme.py`).

Why: x that fit labels of pure chance have an empirical risk below 1/2: with labels learned by a margin wider than the
ball only KL_j stands against it, with a narrow margin only the ball. An inner step on two samples that are query
samples, too, lowers their losses by gamma_A / 2 on average. A noisy inner step moves the n losses of a task together.
The losses of a new task can all be alike. And a bound that does not know delta is exceeded with a probability of its
own.

Setting: *labels*: 100 tasks with a coordinate and three labels each. *own samples*: 1000 tasks of two samples, in
reading B and for a new task. *inner noise*: that of `generalization_carried_over`, b = 5, n = 1600, M = 20, in readings
A and B. *new tasks*: M = 20, n = 100. *coins*: losses without a parameter, four throws with chance 1/2, and six with
chance 0.58. Probabilities are sums of binomial ones; an interval holds what lies within 1e-9 of the bound or depends on
where in its enclosure the maximum over the ball is. Curves show them over the share of a term that is kept, with the
smallest share that still covers.

Controls: the bound without each term, in the setting that needs it; and 0.59 of the square root, of which no less than
0.595 covers six throws. For other delta that share is another one.

Limits: nothing here needs the mass outside the ball, and `generalization_tail` shows why; nor ln sqrt N and the prior's
share p_j: for an x fixed beforehand Hoeffding's inequality needs neither, and none of the coins and labels that were
tried does (`tests/theory/generalization/test_extreme.py`). That these two can be left out is not shown.
"""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
from scipy.optimize import bisect

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.extreme import Instance, coin, inner_noise, labels, new_tasks, own_samples
from theory.generalization.pac_bayes import LARGEST_J, tail, theorem
from theory.generalization.setting import DELTA

ROOT = 0.59
"""A share of the square root that is too small."""
SHARES = tuple(k / 20 for k in range(21))


@cache
def instances() -> dict[str, tuple[str, Instance]]:
    """The term that is needed, and the setting that needs it, by the name of the latter."""
    return {
        "wide labels": ("KL", labels(100, wide=True)),
        "inner noise, A": ("C", inner_noise(5, 1600, 20, "A")),
        "inner noise, B": ("C", inner_noise(5, 1600, 20, "B")),
        "narrow labels": ("ball", labels(100, wide=False)),
        "own samples": ("gamma", own_samples(1000, "B")),
        "own samples, new task": ("gamma", own_samples(1000, "random tasks, B")),
        "new tasks": ("N", new_tasks(100, 20)),
        "four throws": ("delta", coin(2, 2, 0.5)),
        "six throws": ("root", coin(2, 3, 0.58)),
    }


def beyond(of: Instance, **shares: float) -> float:
    """What the bound adds to the maximum over the ball, written out, with shares of its terms (1 unless given)."""
    share = {"KL": 1.0, "C": 1.0, "gamma": 1.0, "tail": 1.0, "N": 1.0, "delta": 1.0, "root": 1.0, **shares}
    new, reused = of.reading.startswith("random"), of.reading.endswith("B")
    gamma = 2 * of.step * of.lipschitz**2 / of.samples if reused else 0.0
    extra = (1 + (of.samples - 1) * gamma) ** 2 - 1 if reused else 4 * of.step**2 * of.lipschitz**4
    factor = 1 + share["C"] * (0.0 if new else extra)
    number = of.tasks * of.samples ** (1 - share["N"] if new else 1)
    deviation = of.radius / (math.sqrt(of.dim) + math.sqrt(math.log(number)))
    j = np.arange(LARGEST_J + 1)
    divergence = (of.dim * (np.exp(-j) - 1 + j) + (of.norm / deviation) ** 2 * np.exp(-j)) / 2
    rest = 0.5 * math.log(number) + np.log(math.pi**2 * (j + 1) ** 2 / 6) - share["delta"] * math.log(DELTA)
    root = math.sqrt((factor * (share["KL"] * divergence + rest) / (2 * (number - 1))).min())
    return share["gamma"] * gamma + share["tail"] * tail(of.dim, of.radius, deviation) + share["root"] * root


def violated(of: Instance, term: str, share: float) -> tuple[float, float]:
    """Probability of a violation with a share of a term."""
    if term == "ball":
        return of.violated(beyond(of), of.empirical + share * (of.ball - of.empirical))
    return of.violated(beyond(of, **{term: share}))


def by_theorem(of: Instance) -> tuple[float, float]:
    """Probability that the theorem is violated."""
    bound = theorem(
        0.0,
        of.norm,
        dim=of.dim,
        radius=of.radius,
        samples=of.samples,
        tasks=of.tasks,
        confidence=1 - DELTA,
        reading=of.reading,
        step=of.step,
        lipschitz=of.lipschitz,
    )
    return of.violated(bound.total)


def smallest_share(of: Instance, term: str) -> float:
    """The smallest share of a term with which the bound is violated with probability delta at most."""
    if violated(of, term, 0.0)[1] <= DELTA:
        return 0.0
    return float(bisect(lambda share: 0.5 - (violated(of, term, share)[1] <= DELTA), 0.0, 1.0, xtol=1e-4))


def item(label: str, interval: tuple[float, float]) -> Item:
    """A probability beside delta."""
    return Item(label, interval[1], DELTA, within=interval)


def measure(budget: Budget, seed: int) -> Evidence:
    """Probabilities that the theorem is violated, and over shares of the term that a setting needs."""
    found = instances()
    return Evidence(
        tuple(item(name, by_theorem(of)) for name, (_, of) in found.items()),
        (
            *(
                Curve(
                    f"{term}, {name}: {smallest_share(of, term):.3f}",
                    SHARES,
                    [violated(of, term, share)[1] for share in SHARES],
                )
                for name, (term, of) in found.items()
            ),
            Curve("delta", (0.0, 1.0), (DELTA, DELTA), "predicted"),
        ),
    )


def without(name: str, budget: Budget, seed: int) -> Evidence:
    """The bound without the term that a setting needs, or with too small a root."""
    term, of = instances()[name]
    return Evidence((item(name, violated(of, term, ROOT if term == "root" else 0.0)),))


CLAIM = Claim(
    rule=Rule("every probability of a violation is at most delta = 0.05", below=math.inf, above=0.0),
    measure=measure,
    controls={
        f"0.59 of the root: {name}" if term == "root" else f"without {term}: {name}": partial(without, name)
        for name, term in {
            "wide labels": "KL_j",
            "inner noise, A": "C",
            "inner noise, B": "C",
            "narrow labels": "the ball",
            "own samples": "gamma_A",
            "own samples, new task": "gamma_A",
            "new tasks": "M for n M",
            "four throws": "ln(1/delta)",
            "six throws": "root",
        }.items()
    },
    evidence="proved exactly",
    axes=("share of the term that is kept", "probability of a violation"),
    scale="linear",
)
