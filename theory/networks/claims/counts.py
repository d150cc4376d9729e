"""Certified counts of the stationary points of small networks.

Statement: on layers of tanh neurons with two parameters every stationary point of ERM and of MAML, anywhere, is
enclosed in a box of its own: nothing is left undetermined, the signs (-1)^index add up to 1, and a search on the
package's meta-loss finds no point outside of the boxes.

Source: derived here; the source's Lemma 1 counts such points.

Assumptions: weight decay on the meta-parameters; fixed output weights, so that losses have bounded derivatives; no
stationary point is degenerate (which the count decides).

Why: |grad q| <= G and |Hess s| <= L1 everywhere, so that grad F = 0 needs 2 decay |x| <= (1 + beta L1) G. In that ball
interval Newton (Krawczyk's operator) excludes or proves a single zero box by box. F grows on all sides, so that its
gradient turns around a large sphere as that of |x|^2 does, and the indices add up to 1.

Setting: `theory/networks/neurons.py`: one neuron with weight and bias, two neurons with weights and the output weights
1 and -1/2; decay 1/16; tasks of two support and two other query samples on grids, one and two tasks; beta_low L1 = 0
(ERM), 1/2 and 2. The search is Newton's method from 32 Gaussian starts an instance. A number is that of the instances
that do not have a property.

Controls: one point lost, counted twice, or with another index; a search on MAML with beta_low L1 = 4 for 2.

Limits: interval arithmetic trusts NumPy's tanh to 4e-15. That the search finds no more shows nothing by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction as Q
from functools import cache, partial
from itertools import islice

import numpy as np

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.networks.boxes import Count, Problem, problems, stationary
from theory.networks.neurons import SHAPES
from theory.networks.search import ROUNDING, Found, found_in

RATIOS = (Q(0), Q(1, 2), Q(2))
CELLS = [(shape, tasks) for shape in SHAPES if shape.dim == 2 for tasks in (1, 2)]
STARTS = 32
NAMES = {0: "minimum", 1: "saddle", 2: "maximum"}


@cache
def counted(budget: Budget, seed: int) -> dict[str, tuple[list[Problem], list[Count]]]:
    """Instances and their counts by network, number of tasks and beta L1."""
    found = {}
    for shape, tasks in CELLS:
        families = shape.families(seed, max(2, budget.instances // 20), tasks=tasks, samples=2, shared=False)
        for ratio in RATIOS:
            these = problems(families, ratio)
            found[f"{shape.name}, M = {tasks}, beta L1 = {ratio}"] = these, stationary(these)
    return found


def uncertified(label: str, counts: list[Count]) -> Item:
    """How many counts leave something open, or have indices that do not add up."""
    return Item(f"{label}: not certified, {len(counts)} instances", sum(not one.certified for one in counts), 0)


def beyond(label: str, counts: list[Count], searched: list[Found]) -> Item:
    """In how many instances the search finds a point outside of the boxes."""
    outside = [
        not all(count.is_near(point, ROUNDING) for point in found.points)
        for count, found in zip(counts, searched, strict=True)
    ]
    return Item(f"{label}: found outside of the boxes, {len(counts)} instances", sum(outside), 0)


def measure(budget: Budget, seed: int) -> Evidence:
    """Certificates, and the search; and the points of an instance with many."""
    items: list[Item] = []
    curves, every = [], counted(budget, seed)
    for shape, tasks in CELLS:
        labels = [f"{shape.name}, M = {tasks}, beta L1 = {ratio}" for ratio in RATIOS]
        found = iter(found_in([one for label in labels for one in every[label][0]], starts=STARTS, seed=seed))
        for label in labels:
            _, counts = every[label]
            items += [uncertified(label, counts), beyond(label, counts, list(islice(found, len(counts))))]
    for ratio in RATIOS:
        _, counts = every[f"{CELLS[0][0].name}, M = 1, beta L1 = {ratio}"]
        for index, name in NAMES.items():
            points = [np.add(zero.low, zero.high) / 2 for zero in counts[0].zeros if zero.index == index]
            label = f"{'ERM' if ratio == 0 else f'MAML, beta L1 = {ratio}'}: {name}"
            curves.append(Curve(label, [float(x[0]) for x in points], [float(x[1]) for x in points], "points"))
    return Evidence(tuple(items), tuple(curve for curve in curves if curve.x))


def lost(count: Count) -> Count:
    """The points without the last."""
    return Count(count.zeros[:-1], count.undetermined, count.boxes)


def doubled(count: Count) -> Count:
    """The points with the last one twice."""
    return Count((*count.zeros, *count.zeros[-1:]), count.undetermined, count.boxes)


def mislabelled(count: Count) -> Count:
    """The points with another index of the last."""
    *others, last = count.zeros
    return Count((*others, replace(last, index=(last.index or 0) + 1)), count.undetermined, count.boxes)


def mistaken(budget: Budget, seed: int, *, change: Callable[[Count], Count]) -> Evidence:
    """Certificates after a wrong count."""
    every = counted(budget, seed)
    return Evidence(tuple(uncertified(label, [change(one) for one in counts]) for label, (_, counts) in every.items()))


def other_step(budget: Budget, seed: int) -> Evidence:
    """The search on MAML with twice the step."""
    return Evidence(
        tuple(
            beyond(label, counts, found_in([p._replace(beta=2 * p.beta) for p in these], starts=STARTS, seed=seed))
            for label, (these, counts) in counted(budget, seed).items()
            if label.endswith("= 2")
        )
    )


CLAIM = Claim(
    rule=Rule("no instance without the property", below=0.5, above=0.5),
    measure=measure,
    controls={
        "one point lost": partial(mistaken, change=lost),
        "one point twice": partial(mistaken, change=doubled),
        "another index": partial(mistaken, change=mislabelled),
        "a search with twice the step": other_step,
    },
    evidence="certified",
    axes=("x_1", "x_2"),
    scale="linear",
    shares="networks",
)
