"""The gradient step is 2 beta_low L0^2 / n-stable, and no less.

Statement: replacing one of the n support samples moves every loss after one gradient step by at most gamma_A = 2
beta_low L0^2 / n, and this is attained up to one per cent.

Source: the source assumes that the lower-level algorithm is gamma_A-uniformly stable; the constant is derived here.

Assumptions: the loss is L0-Lipschitz; one inner step without perturbation.

Why: the mean gradient moves by at most 2 L0/n, the adapted parameters by beta times that, the loss by L0 times that.

Setting: bounded location tasks in the plane, L0 = exp(-1/2), beta_low = 1/2; `adapt` of the core on a support set
whose first sample is replaced by one on the other side of x, both at distance 1, where the loss is steepest, and a
query sample for which the two results lie on either side of the steepest point; also the largest over random pairs of
support sets and queries. n = 10 to 320. Numbers are in units of gamma_A.

Controls: half of gamma_A; a constant gamma_A, that of n = 10, for every n.

Limits: sharp for one step of this family; random data move the loss far less, as the figure shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharp_maml import Batch, adapt
from synthetic import Welsch
from theory.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.pac_bayes import gamma_gradient, value

SIZES = (10, 20, 40, 80, 160, 320)
STEP = 0.5


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


def measure(budget: Budget, seed: int) -> Evidence:
    """Changes in units of gamma_A."""
    found = {n: worst(n) for n in SIZES}
    random = {n: typical(n, budget.instances, seed) for n in SIZES}
    return Evidence(
        tuple(Item(f"n = {n}, adversarial", found[n] / gamma(n), 1.0) for n in SIZES),
        (
            Curve("gradient step, adversarial pair", SIZES, list(found.values())),
            Curve("gradient step, random pairs", SIZES, list(random.values())),
            Curve("gamma_A", SIZES, [gamma(n) for n in SIZES], "predicted"),
        ),
        latex=r"\gamma_A = 2 \beta L_0^2 / n",
    )


def half(budget: Budget, seed: int) -> Evidence:
    """In units of half of gamma_A."""
    return Evidence(tuple(Item(f"n = {n}", 2 * worst(n) / gamma(n), 1.0) for n in SIZES))


def constant(budget: Budget, seed: int) -> Evidence:
    """In units of gamma_A at n = 10."""
    return Evidence(tuple(Item(f"n = {n}", worst(n) / gamma(SIZES[0]), 1.0) for n in SIZES))


CLAIM = Claim(
    rule=Rule("every change lies in [0.99, 1] of gamma_A", below=0.01, above=0.0),
    measure=measure,
    controls={"half of gamma_A": half, "gamma_A that does not fall with n": constant},
    evidence="certified",
    axes=("n", "change of a loss"),
)
