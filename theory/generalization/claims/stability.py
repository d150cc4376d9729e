"""The gradient step is 2 beta_low L0^2 / n-stable, and no less.

Statement: replacing one of the n support samples moves every loss after one gradient step by at most gamma_A = 2
beta_low L0^2 / n, and this is attained up to one per cent.

Source: the source assumes that the lower-level algorithm is gamma_A-uniformly stable; the constant is derived here.

Assumptions: the loss is L0-Lipschitz; one inner step without perturbation.

Why: the mean gradient moves by at most 2 L0/n, the adapted parameters by beta times that, the loss by L0 times that.

Setting: bounded location tasks in the plane, L0 = exp(-1/2), beta_low = 1/2; `adapt` of the core on pairs of support
sets that differ in one sample, n = 10 to 320. Adversarial: the sample is replaced by one on the other side of x, both
at distance 1, where the loss is steepest, and the query sample has the two results on either side of the steepest
point. Steep: random distances between 0.8 and 1.2 and random directions near these, and other samples anywhere.
Random: Gaussian samples and queries. A number is the largest change over all pairs with n samples, in units of
gamma_A.

Controls: half of gamma_A; gamma_A of n + 1 samples; a constant gamma_A, that of n = 10, for every n.

Limits: an illustration by the pairs that were tried, in floating point; what holds for every pair is under Why. Sharp
for one step of this family.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from sharp_maml import Batch, adapt
from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.pac_bayes import gamma_gradient, value

SIZES = (10, 20, 40, 80, 160, 320)
STEP, TURN = 0.5, 0.1


def adapted(support: Tensor, alpha_low: float = 0.0) -> Tensor:
    """One inner step of the core from 0 on a support set, `n x d`."""
    x = torch.zeros(support.shape[-1], dtype=torch.float64)
    batch = Batch(support, support[:, :0])
    return adapt(Welsch.loss, {"x": x}, batch, beta_low=STEP, alpha_low=alpha_low)["x"].detach()


def difference(one: Tensor, other: Tensor, query: Tensor) -> float:
    """How far the loss of a query sample is between two parameters."""
    losses = [Welsch.risk(x, query[None]) for x in (one, other)]
    return float((losses[0] - losses[1]).abs())


def worst(n: int, alpha_low: float = 0.0) -> float:
    """The change for the adversarial pair of support sets."""
    support = torch.zeros((n, 2), dtype=torch.float64)
    replaced = support.clone()
    support[0, 0], replaced[0, 0] = 1.0, -1.0
    one, other = adapted(support, alpha_low), adapted(replaced, alpha_low)
    return difference(one, other, (one + other) / 2 + torch.tensor([1.0, 0.0], dtype=torch.float64))


def steep(n: int, repeats: int, seed: int) -> float:
    """The largest change over random pairs near the adversarial one."""
    generator = torch.Generator().manual_seed(seed)
    found = 0.0
    for _ in range(repeats):
        support, replaced = torch.randn((2, n, 2), generator=generator, dtype=torch.float64)
        distances = 0.8 + 0.4 * torch.rand(3, generator=generator, dtype=torch.float64)
        angle, *turns = torch.randn(4, generator=generator, dtype=torch.float64)
        first, second, ahead = distances[:, None] * torch.stack(
            [torch.stack([a.cos(), a.sin()]) for a in (angle + TURN * turn for turn in turns)]
        )
        replaced[1:] = support[1:]
        support[0], replaced[0] = first, -second
        one, other = adapted(support), adapted(replaced)
        found = max(found, difference(one, other, (one + other) / 2 + ahead))
    return found


def typical(n: int, repeats: int, seed: int) -> float:
    """The largest change over random pairs and random query samples."""
    generator = torch.Generator().manual_seed(seed)
    found = 0.0
    for _ in range(repeats):
        support, query = torch.randn((2, n + 1, 2), generator=generator, dtype=torch.float64)
        one, other = adapted(support[:-1]), adapted(torch.cat([support[1:-1], support[-1:]]))
        found = max(found, *(difference(one, other, sample) for sample in query))
    return found


def gamma(n: int) -> float:
    """gamma_A."""
    return float(value(gamma_gradient, beta=STEP, L0=Welsch.L0, n=n))


@cache
def changes(budget: Budget, seed: int) -> dict[str, list[float]]:
    """The largest change by kind of pair, for every n."""
    return {
        "adversarial pair": [worst(n) for n in SIZES],
        "steep pairs": [steep(n, budget.instances, seed) for n in SIZES],
        "random pairs": [typical(n, budget.instances, seed) for n in SIZES],
    }


def largest(budget: Budget, seed: int, bound: Callable[[int], float]) -> tuple[Item, ...]:
    """The largest change of all, in units of a bound."""
    found = changes(budget, seed).values()
    pairs = 1 + 2 * budget.instances
    return tuple(
        Item(f"n = {n}, {pairs} pairs", max(of_n) / bound(n), 1.0)
        for n, of_n in zip(SIZES, zip(*found, strict=True), strict=True)
    )


def measure(budget: Budget, seed: int) -> Evidence:
    """Changes in units of gamma_A."""
    return Evidence(
        largest(budget, seed, gamma),
        (
            *(Curve(f"gradient step, {kind}", SIZES, found) for kind, found in changes(budget, seed).items()),
            Curve("gamma_A", SIZES, [gamma(n) for n in SIZES], "predicted"),
        ),
        latex=r"\gamma_A = 2 \beta L_0^2 / n",
    )


def half(budget: Budget, seed: int) -> Evidence:
    """Changes in units of half of gamma_A."""
    return Evidence(largest(budget, seed, lambda n: gamma(n) / 2))


def one_more(budget: Budget, seed: int) -> Evidence:
    """Changes in units of gamma_A of n + 1 samples."""
    return Evidence(largest(budget, seed, lambda n: gamma(n + 1)))


def constant(budget: Budget, seed: int) -> Evidence:
    """Changes in units of gamma_A at n = 10."""
    return Evidence(largest(budget, seed, lambda n: gamma(SIZES[0])))


CLAIM = Claim(
    rule=Rule("the largest change over all pairs lies in [0.99, 1] of gamma_A", below=0.01, above=0.0),
    measure=measure,
    controls={
        "half of gamma_A": half,
        "gamma_A of n + 1 samples": one_more,
        "gamma_A that does not fall with n": constant,
    },
    evidence="illustration",
    axes=("n", "change of a loss"),
)
