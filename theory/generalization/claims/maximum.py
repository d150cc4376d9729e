"""The maximum over the ball is enclosed, and one ascent does not find it.

Statement: in the plane, max over |eps| <= alpha of F(x + eps; D) is enclosed to within 1e-4 by branch and bound.

Source: derived here; the source writes the maximum as if it were at hand.

Assumptions: F has an L_F-Lipschitz gradient, L_F = (1 + beta L1)^2 L1 + beta L2 L0.

Why: on a square with half a diagonal h around y, F <= F(y) + |grad F(y)| h + L_F h^2/2; squares whose bound is below a
value already met are dropped, the others cut.

Setting: trained parameters and random ones on data sets of `generalization_coverage`, alpha = 0.5. A number
is the width of the enclosure, or how far beyond it ascents reach.

Controls: one ascent from x itself in place of the lower end, between two peaks of different height.

Limits: two parameters at most; above that, projected ascent bounds the maximum from below only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthetic import Welsch
from theory.check.claim import Budget, Claim, Curve, Evidence, Item, Rule
from theory.generalization.risk import Enclosure, Risk, ascent_maximum, ball_maximum
from theory.generalization.setting import Setting, Trained, data_sets, trained
from theory.rate.theorem import smoothness

SETTING = Setting()
WIDTH = 1e-4


def risk_of(found: Trained, index: int) -> Risk:
    """F(.; D) of one data set."""
    support, query = found.support[index], found.query[index]
    return lambda x: Welsch.risk(Welsch.adapted(x[..., None, :], support, SETTING.step), query).mean(-1)


def lipschitz() -> float:
    """L_F."""
    known = {"L0": Welsch.L0, "L1": Welsch.L1, "L2": Welsch.L2, "L_q": Welsch.L1, "beta": SETTING.step}
    return float(smoothness.subs({symbol: known[str(symbol)] for symbol in smoothness.free_symbols}))


def enclose(risk: Risk, x: Tensor) -> Enclosure:
    """The maximum over the ball of the setting."""
    return ball_maximum(risk, x, SETTING.radius, smoothness=lipschitz(), tolerance=WIDTH)


def two_peaks(x: Tensor) -> Tensor:
    """A risk with a peak of 0.5 near the start and one of 0.9 across it."""
    left, right = (torch.tensor([at, 0.0], dtype=torch.float64) for at in (-0.35, 0.45))
    return 0.5 * (-20 * (x - left).square().sum(-1)).exp() + 0.9 * (-40 * (x - right).square().sum(-1)).exp()


def measure(budget: Budget, seed: int) -> Evidence:
    """Widths of the enclosures; the risk along a line through the first ball."""
    n = max(2, budget.instances // 4)
    found = trained(SETTING, data_sets(budget), seed)
    generator = torch.Generator().manual_seed(seed)
    points = {"trained": found.x[:n], "random": 2 * torch.randn((n, 2), generator=generator, dtype=torch.float64)}
    items = []
    for label, x in points.items():
        enclosures = [enclose(risk_of(found, i), x[i]) for i in range(n)]
        beyond = [
            ascent_maximum(risk_of(found, i), x[i], SETTING.radius, start=x[i] + eps, smoothness=lipschitz())[0]
            - e.high
            for i, e in enumerate(enclosures)
            for eps in SETTING.radius * torch.eye(2, dtype=torch.float64)
        ]
        items += [
            Item(f"{label}, {n} balls: width", max(e.high - e.low for e in enclosures), WIDTH),
            Item(f"{label}, {n} balls: beyond", max(0.0, *beyond), WIDTH),
        ]
    enclosure = enclose(risk_of(found, 0), found.x[0])
    towards = (enclosure.argument - found.x[0]) / SETTING.radius
    at = torch.linspace(-SETTING.radius, SETTING.radius, 41, dtype=torch.float64)
    along = risk_of(found, 0)(found.x[0] + at[:, None] * towards)
    ends = [-SETTING.radius, SETTING.radius]
    return Evidence(
        tuple(items),
        (
            Curve("F(.; D) through the ball", at.tolist(), along.tolist()),
            Curve("upper end", ends, [enclosure.high] * 2, "predicted"),
            Curve("lower end", ends, [enclosure.low] * 2, "predicted"),
        ),
    )


def one_ascent(budget: Budget, seed: int) -> Evidence:
    """One ascent from the centre of the ball, between two peaks."""
    x = torch.tensor([-0.1, 0.0], dtype=torch.float64)
    # second derivatives of a exp(-c |u|^2) are at most 2 a c
    bound = 2 * (0.5 * 20 + 0.9 * 40)
    enclosure = ball_maximum(two_peaks, x, 0.6, smoothness=bound, tolerance=WIDTH)
    low, _ = ascent_maximum(two_peaks, x, 0.6, start=x, smoothness=bound)
    return Evidence((Item("one ascent between two peaks", enclosure.high - low, WIDTH),))


CLAIM = Claim(
    rule=Rule("every enclosure is at most 1e-4 wide, and nothing is met beyond it", below=float("inf"), above=0.0),
    measure=measure,
    controls={"one ascent between two peaks": one_ascent},
    evidence="certified",
    axes=("distance from x", "F(x + eps; D)"),
    scale="linear",
)
