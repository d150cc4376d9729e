"""The bound holds with the probability that it states.

Statement: with probability at least 1 - delta = 0.95 over the data, F(x; P) is at most the maximum of F(.; D) over the
ball around the trained x, plus g, the Gaussian's tail and the square root; for fixed tasks with query sets of their own
(A, g = 0), in two and in ten dimensions, with the support set reused (B, g = gamma_A), and for a new task (N = M).

Source: the source text's generalization theorem, in the form of `theory/generalization/pac_bayes.py`.

Assumptions: the loss is in [0, 1]; F(x; P) <= E F(x + eps; P) at the trained x (`generalization_perturbation`).

Why: PAC-Bayes with bounded differences; the ball is as in `generalization_ball`.

Setting: the core trains on every data set, whose tasks are drawn for it alone: a bound that holds with probability 1 -
delta whatever the tasks are holds with that probability over both. In ten dimensions M = n = 10, and the centres and
samples have variances 1/5, so that distances are those of the plane. alpha, delta and the prior grid are fixed
beforehand. The maximum over the ball is replaced by a lower bound of it, the largest of 49 values, which makes the
check stricter. A number is the share of data sets for which the bound holds. It is decided on the tails of the binomial
distribution at 0.95, together with all other claims: even without a miss that takes more than two hundred data sets.

Controls: the empirical risk plus 1/(4 n M); the bound without its square root; reading B without gamma_A, where the
inner step is large and n = 2; N = n M for the risk of a new task.

Limits: coverage near 1 says that the bound is loose here, as the figure's bars show, not that it is sharp: with a tenth
of the root, or without a term, it would often still cover. What each term is for is seen in `generalization_terms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from torch import Tensor, tensor

from theory.check.claim import Budget, Claim, Curve, Evidence, Rule
from theory.generalization.pac_bayes import Bound, Reading
from theory.generalization.setting import DELTA, Setting, Trained, coverage, data_sets, trained

A, B, NEW = Setting(), Setting(reused=True), Setting(fresh_tasks=True, tasks=100, samples=5)
TEN = Setting(dim=10, tasks=10, samples=10, tau=0.2**0.5, sigma=0.2**0.5)
SMALL_BALL = Setting(radius=0.05)
TWO_SAMPLES = Setting(reused=True, tasks=300, samples=2, step=2.0)
FEW_TASKS = Setting(fresh_tasks=True, tasks=4, samples=200, tau=2.0, sigma=0.3)


def bounds(found: Trained, reading: Reading, *, step: float | None = None) -> list[Bound]:
    """The theorem for every data set, or what it would be for another inner step."""
    setting = found.setting if step is None else replace(found.setting, step=step)
    return [
        setting.bound(float(maximum), float(x.norm()), reading=reading)
        for maximum, x in zip(found.ball_maximum, found.x, strict=True)
    ]


@cache
def readings(budget: Budget, seed: int) -> dict[str, tuple[Trained, list[Bound]]]:
    """What is trained in each reading, and its bounds."""
    repeats = data_sets(budget)
    settings: dict[str, tuple[Reading, Setting]] = {
        "reading A": ("A", A),
        "reading A, d = 10": ("A", TEN),
        "reading B": ("B", B),
        "a new task": ("random tasks, A", NEW),
    }
    return {
        name: (found, bounds(found, reading))
        for name, (reading, setting) in settings.items()
        for found in [trained(setting, repeats, seed)]
    }


def measure(budget: Budget, seed: int) -> Evidence:
    """Coverage of each reading, and what the bounds are made of."""
    found = readings(budget, seed)
    labels = list(found)
    parts: dict[str, Callable[[Trained, list[Bound]], float]] = {
        "risk F(x; P)": lambda made, _: float(made.population.mean()),
        "maximum over the ball": lambda _, of: mean([bound.empirical for bound in of]),
        "+ stability": lambda _, of: mean([bound.empirical + bound.stability for bound in of]),
        "+ tail": lambda _, of: mean([bound.empirical + bound.stability + bound.tail for bound in of]),
        "+ square root: the bound": lambda _, of: mean([bound.total for bound in of]),
    }
    return Evidence(
        tuple(coverage(label, made.population <= totals(of)) for label, (made, of) in found.items()),
        tuple(
            Curve(name, list(range(len(labels))), [part(*found[label]) for label in labels], "points")
            for name, part in parts.items()
        ),
    )


def mean(values: list[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def totals(of: list[Bound]) -> Tensor:
    """The bounds as one tensor."""
    return tensor([bound.total for bound in of])


def raw(budget: Budget, seed: int) -> Evidence:
    """The empirical risk plus 1/(4 n M)."""
    made = trained(A, data_sets(budget), seed)
    number = A.samples * A.tasks
    return Evidence((coverage("raw", made.population <= made.empirical(made.x) + 1 / (4 * number)),))


def no_root(budget: Budget, seed: int) -> Evidence:
    """The bound without its square root, for a small ball."""
    made = trained(SMALL_BALL, data_sets(budget), seed)
    of = bounds(made, "A")
    return Evidence((coverage("no square root", made.population <= totals(of) - tensor([b.complexity for b in of])),))


def no_stability(budget: Budget, seed: int) -> Evidence:
    """Reading B with gamma_A = 0, as it is without an inner step."""
    made = trained(TWO_SAMPLES, budget.instances, seed)
    return Evidence((coverage("no gamma_A", made.population <= totals(bounds(made, "B", step=0.0))),))


def all_samples(budget: Budget, seed: int) -> Evidence:
    """The bound of fixed tasks for the risk of a new one."""
    made = trained(FEW_TASKS, budget.instances, seed)
    return Evidence((coverage("N = n M", made.population <= totals(bounds(made, "A"))),))


CLAIM = Claim(
    rule=Rule("every coverage is at least 0.95", below=0.0, above=DELTA),
    measure=measure,
    controls={
        "empirical risk + 1/(4 n M)": raw,
        "no square root": no_root,
        "reading B without gamma_A": no_stability,
        "N = n M for a new task": all_samples,
    },
    evidence="statistical",
    axes=("reading: A, A with d = 10, B, a new task", "risk and bound, mean over data sets"),
    scale="linear",
)
