"""What each variant needs for its bias: smoothness of F alone for up, more for low.

Statement: without noise in the support samples the meta-gradient of MAML is grad F; that of up differs from it by at
most L_F alpha_up, where L_F is the smoothness of F and nothing else is asked of the tasks; that of low by at most beta
(kappa Lq L1 alpha_low + L0 min(L2 alpha_low, 2 L1)); that of both by the sum. So "F smooth" is enough for up. For low
L1, Lq and L0 are those of the single tasks; L2 is needed only for a bias that shrinks with alpha_low.

Source: derived here; the source assumes that F is Lipschitz and smooth, for all variants.

Assumptions: those in the statement, no others. Support and query gradients and Hessians are exact. Noise in the support
samples makes a bias beta Lq sg (1 + ...) and a variance with sH L0 in it, which need Lq and L0 for MAML and up as well
(`rate_pieces`).

Why: at x + eps the meta-gradient of up is grad F(x + eps). The lower perturbation moves the point of grad q by beta L1
alpha_low, and the Hessian by L2 alpha_low, or by 2 L1 whatever L2 is, since |H| <= L1; this meets a query gradient, of
size L0. beta = O(1/sqrt T) makes either O(1/sqrt T), so that without L2 the rate stays, and so does the leading
constant, in which there is no b (`rate_algebra`): Delta/c2 + c2 L_F sq^2/(2M).

Setting: tasks in three dimensions whose query losses have terms that cancel. Steep: these terms grow like e^(3z), so
that L0 and Lq are infinite, and F does not see them. Kinked: the Hessian of the support losses jumps from -L1 to L1,
so that L2 is infinite; F is smooth, because its gradient vanishes there. Kinked, one task: nothing cancels, and F is
not smooth. Through the core, along its own ascent directions, over a grid; beta = 0.1 and 0.5.

Controls: L_F alpha_low for low on the steep tasks, as if smoothness of F were enough; L2 = L1 for low on the kinked
ones; 1.94 L1 in place of 2 L1 on the one kinked task; 0.97 L_F for up on the kinked ones.

Limits: the largest value over a grid is not a supremum; the proof is above. That low, without L0 and Lq, loses the rate
and not only this bound, is `rate_separation`. Tasks with Lq and without L0 are not decided here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from sharp_maml import Batch, Episode, meta_gradient
from synthetic import Opposed, apart
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Measure, Rule
from theory.rate.setting import KINKED, SMOOTH, STEEP
from theory.rate.theorem import bias, evaluate

ALONE = Opposed(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), K=300.0, kinked=True)
"""K is large against log cosh, so that the query gradient at the kink is nearly L0."""
BETAS = (0.1, 0.5)
UP, LOWS = 0.1, (0.5, 0.05, 0.005)
Y = torch.linspace(-3, 3, 1200, dtype=torch.float64)
"""Without 0, where the kink is."""


@cache
def largest(family: Opposed, beta: float, up: float, low: float) -> float:
    """Largest distance of the core's meta-gradient from grad F over a grid."""
    heights = (0.0, 1.0) if family.growth else (0.0, 40.0)  # at 40 the gradient has no part along z
    grid = torch.cartesian_prod(Y, torch.tensor(heights, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    episodes = [
        Episode(*(Batch(batch.inputs[0], batch.targets[0]) for batch in episode))
        for episode in apart(family.sample(torch.Generator(), 1))
    ]

    def one(x: Tensor) -> Tensor:
        return meta_gradient(
            family.loss, {"x": x}, episodes, beta_low=beta, alpha_low=low, alpha_up=up, query_loss=family.query_loss
        ).grad["x"]

    return float((torch.vmap(one)(grid) - family.meta_gradient(grid, beta)).norm(dim=-1).max())


def upper(family: Opposed, beta: float) -> float:
    """L_F alpha_up, of the smoothness of F alone."""
    return family.smoothness(beta) * UP


def lower(family: Opposed, beta: float, low: float, *, jump: float = 2.0, L2: float = math.inf) -> float:
    """beta (kappa Lq L1 alpha_low + L0 min(L2 alpha_low, jump L1)): what `bounds.bias` is with the smaller L2."""
    known = family.constants
    smallest = min(L2, known.L2, jump * known.L1 / low)
    return evaluate(bias, replace(known, L2=smallest), beta=beta, alpha_up=0, alpha_low=low)


def item(label: str, family: Opposed, beta: float, stated: float, *, up: float = 0.0, low: float = 0.0) -> Item:
    """The largest bias beside what is stated."""
    return Item(f"{label}, beta = {beta}", largest(family, beta, up, low), stated)


def measure(budget: Budget, seed: int) -> Evidence:
    """Every variant that the statement covers, on each family."""
    items = []
    for beta in BETAS:
        for name, family in {"steep": STEEP, "kinked": KINKED}.items():
            items.append(item(f"{name}, maml", family, beta, 0.0))
            items.append(item(f"{name}, up", family, beta, upper(family, beta), up=UP))
        for low in LOWS:
            stated = lower(KINKED, beta, low)
            items.append(item(f"kinked, low, alpha_low = {low}", KINKED, beta, stated, low=low))
            stated += upper(KINKED, beta)
            items.append(item(f"kinked, both, alpha_low = {low}", KINKED, beta, stated, up=UP, low=low))
            name = f"kinked, one task, low, alpha_low = {low}"
            items.append(item(name, ALONE, beta, lower(ALONE, beta, low), low=low))
    beta = BETAS[0]
    curves = (
        Curve("low, kinked", LOWS, [largest(KINKED, beta, 0.0, low) for low in LOWS]),
        Curve("its constant", LOWS, [lower(KINKED, beta, low) for low in LOWS], "predicted"),
        Curve("low, smooth", LOWS, [largest(SMOOTH, beta, 0.0, low) for low in LOWS]),
        Curve("its constant", LOWS, [lower(SMOOTH, beta, low) for low in LOWS], "predicted"),
    )
    return Evidence(tuple(items), curves, latex=r"L_F\alpha_{up},\quad " + LOWER)


def wrong(name: str) -> Measure:
    """One bias beside a number that asks too little."""
    beta, low = BETAS[0], LOWS[-1]
    return {
        "low: L_F alpha_low": lambda *_: Evidence((item("steep", STEEP, beta, STEEP.smoothness(beta) * low, low=low),)),
        "low: L2 = L1": lambda *_: Evidence((item("kinked", KINKED, beta, lower(KINKED, beta, low, L2=1.0), low=low),)),
        "low: 1.94 L1": lambda *_: Evidence(
            (item("one task", ALONE, beta, lower(ALONE, beta, low, jump=1.94), low=low),)
        ),
        "up: 0.97 L_F": lambda *_: Evidence((item("kinked", KINKED, beta, 0.97 * upper(KINKED, beta), up=UP),)),
    }[name]


LOWER = r"\beta\,(\kappa L_q L_1\alpha_{low} + L_0\min\{L_2\alpha_{low},\,2L_1\})"

CLAIM = Claim(
    rule=Rule("no measured bias exceeds its constant", below=math.inf, above=1e-12),
    measure=measure,
    controls={name: wrong(name) for name in ("low: L_F alpha_low", "low: L2 = L1", "low: 1.94 L1", "up: 0.97 L_F")},
    evidence="illustration",
    axes=("alpha_low", "largest bias at beta = 0.1"),
)
