"""The source's statement as it is worded, on small networks.

Statement: "MAML has more stationary points and local minimizers than ERM".

Source: the source text, its Lemma 1; here for networks, which it is about.

Assumptions: none is stated. Read as worded, it is about every network, every set of tasks and every step size.

Why: it is false. Below beta_low L1 = 1 most tanh networks have as many points as with ERM, one, and a ReLU network with
one task and the samples (1/2, 1) and (-1, 1/2) has one where ERM has two. For a ReLU network MAML's objective jumps at
the kinks of support samples, and its lowest values may lie at such a jump, where Clarke's definition does not apply.

Setting: the instances of `networks_counts` with beta_low L1 = 1/2 and 2, whose counts are certified; two-parameter ReLU
networks, f = max(x_1 t + x_2, 0), decay 1/16, one and two tasks of two samples with support = query, whose Clarke
stationary points off the jumps are enumerated in fractions (`theory/networks/relu.py`), with the same steps. A number
is that of the cases in which MAML does not have more; what is undetermined is not among them.

Controls: the tanh neuron with one task and the long step beta_low L1 = 5, four fixed draws, for which the same rule
must be supported.

Limits: weight decay makes the counts finite. Output weights are fixed. That it fails somewhere does not say how often:
see [counts](COUNTS.md).
"""

from __future__ import annotations

import random
from fractions import Fraction as Q
from functools import cache

from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.networks.boxes import Count, Problem, stationary
from theory.networks.claims.counts import CELLS, RATIOS, counted
from theory.networks.neurons import SHAPES
from theory.networks.relu import ReLU, clarke

_SAMPLES = (((Q(1, 2), Q(1)), (Q(-1), Q(1, 2))),)
ONE_TASK = ReLU(_SAMPLES, _SAMPLES)


def both(label: str, erm: list[Count], maml: list[Count]) -> tuple[Item, Item]:
    """Violations of the two halves of the statement among certified counts."""
    pairs = [(one, other) for one, other in zip(erm, maml, strict=True) if one.certified and other.certified]
    label = f"{label}, {len(pairs)} instances"
    return (
        Item(f"{label}: not more stationary points", sum(len(a.zeros) >= len(b.zeros) for a, b in pairs), 0),
        Item(f"{label}: not more local minimizers", sum(a.minima >= b.minima for a, b in pairs), 0),
    )


@cache
def enumerated(tasks: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Numbers of Clarke points of ReLU networks: of ERM, and of MAML for every beta L1."""
    found = []
    for i in range(count):
        drawn = ReLU.random(random.Random(f"{seed} ReLU {tasks} {i}"), tasks=tasks)
        found.append(tuple(len(clarke(drawn, ratio / drawn.L1)) for ratio in RATIOS))
    return found


def measure(budget: Budget, seed: int) -> Evidence:
    """Violations of tanh and ReLU networks, and the numbers of the latter."""
    items: list[Item] = []
    curves, every = [], counted(budget, seed)
    for shape, tasks in CELLS:
        name = f"{shape.name}, M = {tasks}, beta L1 ="
        (_, erm), *others = (every[f"{name} {ratio}"] for ratio in RATIOS)
        for ratio, (_, maml) in zip(RATIOS[1:], others, strict=True):
            items += both(f"{name} {ratio}", erm, maml)
    beta = Q(1, 2) / ONE_TASK.L1
    items.append(
        Item("ReLU, one task: MAML not more", int(len(clarke(ONE_TASK, beta)) <= len(clarke(ONE_TASK, Q(0)))), 0)
    )
    for tasks in (1, 2):
        numbers = enumerated(tasks, max(4, budget.instances // 4), seed)
        for i, ratio in enumerate(RATIOS[1:], 1):
            label = f"ReLU, M = {tasks}, beta L1 = {ratio}"
            not_more = sum(row[i] <= row[0] for row in numbers)
            items.append(Item(f"{label}, {len(numbers)} instances: not more Clarke points", not_more, 0))
            curves.append(Curve(label, [row[0] for row in numbers], [row[i] for row in numbers], "points"))
    return Evidence(tuple(items), tuple(curves))


def long_step(budget: Budget, seed: int) -> Evidence:
    """One task with beta L1 = 5, fixed draws."""
    drawn = [SHAPES[0].draw(random.Random(f"long {i}"), tasks=1, samples=2, shared=True) for i in range(4)]
    erm, maml = (stationary([Problem(tasks, float(ratio / tasks.L1)) for tasks in drawn]) for ratio in (Q(0), Q(5)))
    return Evidence(both(f"{SHAPES[0].name}, beta L1 = 5", erm, maml))


CLAIM = Claim(
    rule=Rule("no case without more", below=0.5, above=0.5),
    measure=measure,
    controls={"one task and a long step": long_step},
    evidence="certified",
    expected="refuted",
    literal=True,
    axes=("points of ERM", "points of MAML, ReLU"),
    scale="linear",
    shares="networks",
)
