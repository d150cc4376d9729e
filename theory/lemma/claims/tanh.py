"""Certified counts of two-parameter regression that is not periodic.

Statement: in the square |x_i| <= 12, the indices of the stationary points of ERM and of MAML add up to the winding
number of the gradient along its boundary; for one task and beta_low L1 < 1, MAML has as many minima, saddles and
maxima there as ERM.

Source: derived here; the source's Lemma 1 in two parameters.

Assumptions: no stationary point is degenerate or on the boundary (which the count decides).

Why: the winding number is the sum of the indices inside. For beta L1 < 1 the inner step is a diffeomorphism of the
plane and stationary points of ERM are its fixed points, so that they are those of MAML, too.

Setting: f(t; x) = tanh(x_1 t + x_2) with a ridge of 1/256, four samples a task, one and two tasks, beta_low L1 = 0,
1/2, 9/10, where L1 is an upper bound; the winding number is certified by segments on which the gradient excludes
zero. Numbers are as in `lemma_torus`.

Controls: one point lost, counted twice, or mislabelled; the winding number of the opposite orientation.

Limits: a square, not the whole plane.
"""

from __future__ import annotations

import random
from fractions import Fraction as Q
from functools import cache

from synthetic import Tanh
from theory.check.claim import Budget, Evidence
from theory.lemma.claims.torus import Found, certificates, claim
from theory.lemma.field import Problem
from theory.lemma.plane import Count, stationary

RATIOS = (Q(0), Q(1, 2), Q(9, 10))
REACH = 12


@cache
def counts(budget: Budget, seed: int, tasks: int) -> Found:
    """Counts of the same random tasks for each beta L1; 0 is ERM."""
    n = max(2, budget.instances // 10)
    families = [
        Tanh.random(random.Random(f"{seed} tanh {tasks} {i}"), tasks=tasks, samples=4, ridge=Q(1, 256))
        for i in range(n)
    ]
    return {ratio: stationary([Problem(family, ratio / family.L1, REACH) for family in families]) for ratio in RATIOS}


def backwards(budget: Budget, seed: int) -> Evidence:
    """Winding numbers of the opposite sign."""
    found = {
        ratio: [Count(c.zeros, c.undetermined, None if c.winding is None else -c.winding) for c in of_ratio]
        for ratio, of_ratio in counts(budget, seed, 1).items()
    }
    return Evidence(certificates(found, "M = 1"))


CLAIM = claim(counts, shown=1, others={"opposite orientation": backwards})
