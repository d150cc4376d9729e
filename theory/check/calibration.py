"""How often the rules err, under planted truths and the claims' own noise: `python -m theory.check.calibration`.

Every statistical claim is measured once, with more seeds than its budget has, for a pool. Its experiment is then
repeated: the budget's number of seeds, or data sets, is drawn from the pool with replacement, and the same function as
in the claim makes the number and its standard error. The truth of these repetitions is what that function says of the
pool. A factor on the values puts it anywhere: size^c adds c to an exponent, a plain factor multiplies a ratio or a
mean. A share of trials needs no repetitions, its distribution being binomial.

The noisiest number of a claim gets a truth inside, on the edges and outside of its region, the claim's other numbers
being known to lie inside, and the claim's rule decides: at the level of all decisions, as if the claim were alone, and
at the smallest p-value that Holm's correction can ask for in a full run. For the p-values themselves every number has
its truth on an edge: a p-value is at most 0.05 in no more than a share of 0.05. Writes a record, a figure and a table.
Read next: `alarms.py`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from sharp_maml import Result, clopper_pearson, provenance, sources
from sharp_maml.paper import say
from theory.check.budgets import BUDGETS
from theory.check.claim import LEVEL, registry
from theory.check.planted import ALPHAS, KINDS, calibrate
from theory.check.verdicts import commit_of, write_page

EDGE, INSIDE, OUTSIDE = (1.0,), (0.5,), (1.4, 1.5)
"""Places of which the summary speaks; of the last, one is of regions and one of bounds."""
SEED = 3000
"""Base seed of the pools; settings were chosen on seeds 0 to 9, `alarms.py` begins at 1000."""


def shown(share: float, replications: int | None, level: float = 0.05) -> str:
    """A probability; with its Clopper-Pearson interval where it was counted."""
    if replications is None:
        return f"{share:.2g}"
    exact = clopper_pearson(round(share * replications), replications, confidence=1 - level)
    return f"{exact.mean:.4g} [{exact.low:.2g}, {exact.high:.2g}]"


def at(found: Mapping[str, Any], *places: float) -> list[dict[str, Any]]:
    """The points of a curve at places, on either side; 0 and 1 are no places of a share, which cannot lie beyond."""
    points = [point for place in places for point in found["curve"] if math.isclose(abs(point["place"]), place)]
    return [point for point in points if found["replications"] is not None or 0 < point["truth"] < 1]


def too_small(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """The p-values that are small too often, by claim: the share's interval, for all shares of a claim, is above."""
    every: dict[str, list[str]] = {}
    for name, found in record["claims"].items():
        edge, replications = found["edge"], found["replications"]
        for kind in KINDS:
            for alpha, (share, number) in edge[kind].items():
                low = share
                if replications is not None:
                    level = 0.05 / edge["tests"]
                    low = clopper_pearson(round(share * replications), replications, confidence=1 - level).low
                if low > float(alpha):
                    every.setdefault(name, []).append(f"{kind}, {alpha}: {number}")
    return every


def extreme(record: Mapping[str, Any], outcome: str, level: str, places: Sequence[float]) -> str:
    """How probable an outcome at places is over claims, at most on an edge, else at least: with an interval for all.

    Shares of trials count on an edge only: elsewhere theirs depends on the number of trials alone.
    """
    points = [
        (point[outcome][level], name, found["replications"])
        for name, found in record["claims"].items()
        for point in at(found, *places)
        if places == EDGE or found["replications"] is not None
    ]
    if not points:
        return "1 (no claim)"
    share, name, replications = (max if places == EDGE else min)(points, key=lambda point: point[0])
    return f"{shown(share, replications, 0.05 / len(points))} (`{name}`)"


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    wrong, right = extreme(record, "supported", "alone", EDGE), extreme(record, "supported", "alone", INSIDE)
    sentence = f"On an edge of its region a number is supported with probability at most {wrong}, half-way in with at "
    return f"{sentence}least {right}.".replace("`", "")


def headline(record: Mapping[str, Any]) -> str:
    """What the record says in a few sentences."""
    wrong = too_small(record)
    return (
        "With its truth on an edge of its region a number was called inside with probability at most "
        f"{extreme(record, 'supported', 'alone', EDGE)}, and outside with at most "
        f"{extreme(record, 'refuted', 'alone', EDGE)}, at a level of {record['level']:g}; at "
        f"{record['strictest']:.1g}, the least that Holm's correction can ask for in a full run, with at most "
        f"{extreme(record, 'supported', 'strictest', EDGE)} and {extreme(record, 'refuted', 'strictest', EDGE)}. At "
        "that level a number with a standard error was called inside, half-way from the middle to an edge, with "
        f"probability at least {extreme(record, 'supported', 'strictest', INSIDE)}, and outside, at {OUTSIDE[0]:g} "
        f"half-widths or {OUTSIDE[1]:g} of a bound, with at least {extreme(record, 'refuted', 'strictest', OUTSIDE)}. "
    ) + (
        "No p-value was small more often than it may be."
        if not wrong
        else "P-values are small more often than they may be: "
        + "; ".join(f"`{name}` ({', '.join(of_name)})" for name, of_name in wrong.items())
        + "."
    )


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    record = result.payload
    first, second = (" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:3])
    budget = record["budget"]
    lines = [
        "# How often the rules err",
        "",
        first,
        "",
        second.removesuffix(" Read next: `alarms.py`."),
        "",
        f"Budget `{budget['name']}`; {record['replications']} repetitions; base seed {record['seed']}; "
        f"{commit_of(result.provenance)}. Levels: "
        f"{record['level']:g} alone; {record['strictest']:.2g} = {record['level']:g} / {record['decisions']} at Holm's "
        "strictest, for two decisions on each statistical claim and control. Intervals are Clopper's and Pearson's, 95 "
        "per cent. Places are in half-widths of the region from its middle, so that edges are at -1 and 1; where there "
        "is one edge, in units of it.",
        *(["", result.caveat] if result.caveat else []),
        "",
        f"**{headline(record)}**",
        "",
        "![operating curves](calibration.png)",
        "",
        "*Probability of each outcome against the planted truth, the region being grey. Solid: the claim alone. "
        "Dashed: Holm's strictest level.*",
        *_rules(record["claims"]),
        *_p_values(record["claims"]),
        *_curves(record["claims"]),
        "",
        f"[Record]({link}).",
        "",
    ]
    return "\n".join(lines)


def _rules(claims: Mapping[str, Any]) -> list[str]:
    """A line a claim: how its rule decides on its noisiest number, and on all of them."""
    lines = [
        "",
        "## Every rule",
        "",
        "Probabilities are those of the noisiest number. *Whole claim*: that it comes out as expected, all numbers "
        "together, each with the truth of its pool, at the strictest level.",
        "",
        "| claim | n, of a pool of | half-width, or edge | standard error in it | on the edge: supported | refuted "
        f"| inside, at {INSIDE[0]:g}: supported, strictest | outside, at {OUTSIDE[0]:g} or {OUTSIDE[1]:g} of a bound: "
        "refuted, strictest | whole claim |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in claims.items():
        n, pool = found["replications"], found["pool"]
        on, inside, outside = (at(found, *places) for places in (EDGE, INSIDE, OUTSIDE))
        whole = "exact" if n is None else shown(found["as measured"][found["expected"]]["strictest"], n)
        lines.append(
            f"| [{name}](#{name}) | {found['n']}, {'binomial' if n is None else pool} | {found['half_width']:.3g} | "
            f"{found['noise']:.2f} | {shown(max(point['supported']['alone'] for point in on), n)} | "
            f"{shown(max(point['refuted']['alone'] for point in on), n)} | "
            f"{shown(min(point['supported']['strictest'] for point in inside), n)} | "
            f"{shown(min(point['refuted']['strictest'] for point in outside), n)} | {whole} |"
        )
    return lines


def _p_values(claims: Mapping[str, Any]) -> list[str]:
    """A line a claim: its largest shares of small p-values."""
    lines = [
        "",
        "## The p-values",
        "",
        "The largest share of p-values at most as large as a level, over all numbers of a claim and both edges, the "
        "truth being on the edge; that against *outside* is small where a claim is supported, that against *inside* "
        "where it is refuted (twice the smaller tail, so that half of its level is to be expected). Intervals are for "
        "all shares of a claim at once.",
        "",
        f"| claim | shares | {' | '.join(f'{kind}: {alpha:g}' for kind in KINDS for alpha in ALPHAS)} |",
        "|---|---|" + "---|" * 2 * len(ALPHAS),
    ]
    for name, found in claims.items():
        edge = found["edge"]
        cells = [
            shown(edge[kind][str(alpha)][0], found["replications"], 0.05 / edge["tests"])
            for kind in KINDS
            for alpha in ALPHAS
        ]
        lines.append(f"| {name} | {edge['tests']} | {' | '.join(cells)} |")
    return lines


def _curves(claims: Mapping[str, Any]) -> list[str]:
    """The operating curve of each claim, a line a planted truth."""
    lines: list[str] = []
    for name, found in claims.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{found['rule'][0].upper()}{found['rule'][1:]}. Planted: {found['number']}.",
            "",
            "| truth | place | supported, alone | supported, strictest | refuted, alone | refuted, strictest |",
            "|---|---|---|---|---|---|",
        ]
        for point in found["curve"]:
            cells = [
                shown(point[outcome][level], found["replications"])
                for outcome in ("supported", "refuted")
                for level in ("alone", "strictest")
            ]
            lines.append(f"| {point['truth']:.4g} | {point['place']:.4g} | {' | '.join(cells)} |")
    return lines


def draw(record: Mapping[str, Any]) -> Figure:
    """The operating curves, a panel a claim."""
    claims = record["claims"]
    rows = math.ceil(len(claims) / 3)
    colours = dict(zip(("supported", "refuted", "inconclusive"), ("C0", "C1", "C7"), strict=True))
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 1.7 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False, sharey=True).flat
        for axes, (name, found) in zip(panels, claims.items(), strict=False):
            low, high = found["region"]
            unit = 1.0 if low is not None else found["half_width"]
            truths = [point["truth"] / unit for point in found["curve"]]
            axes.axvspan(truths[0] if low is None else low, high / unit, color="0.9", lw=0)
            for level, look in (("alone", "-"), ("strictest", "--")):
                supported, refuted = (
                    np.array([point[outcome][level] for point in found["curve"]])
                    for outcome in ("supported", "refuted")
                )
                shares = dict(zip(colours, (supported, refuted, 1 - supported - refuted), strict=True))
                for outcome, share in shares.items():
                    label = f"{outcome}, {level}" if axes is figure.axes[0] else None
                    axes.plot(truths, share, look, color=colours[outcome], label=label)
            axes.set_title(name)
            axes.set_xlabel("truth / bound" if low is None else "truth")
        for axes in list(figure.axes)[len(claims) :]:
            axes.set_axis_off()
        for row in range(rows):
            figure.axes[3 * row].set_ylabel("probability")
        figure.legend(loc="outside lower center", ncols=3)
        say(figure, says(record))
    return figure


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m theory.check.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", choices=("test", "full"), default="test", help="the experiments' (default test)")
    parser.add_argument("--replications", type=int, default=2000, help="repetitions of each (default 2000)")
    parser.add_argument("--output", type=Path, default=Path("results/theory"), help="folder (default results/theory)")
    options = parser.parse_args(arguments)
    if options.replications < 1:
        print(f"error: replications must be >= 1, got {options.replications}", file=sys.stderr)
        return 2
    claims = {name: claim for name, claim in registry().items() if claim.evidence == "statistical"}
    decisions = 2 * sum(1 + len(claim.controls) for claim in claims.values())
    levels = {"alone": LEVEL, "strictest": LEVEL / decisions}
    budget, found, origin = BUDGETS[options.budget], {}, provenance()  # the code may change meanwhile
    codes = {name: sources(claim.module) for name, claim in claims.items()}
    for name, claim in claims.items():
        found[name] = {**calibrate(claim, budget, SEED, options.replications, levels), "sources": codes[name]}
        print(name, flush=True)
    payload = {
        "budget": asdict(budget),
        "seed": SEED,
        "replications": options.replications,
        "level": LEVEL,
        "decisions": decisions,
        "strictest": levels["strictest"],
        "claims": found,
    }
    decided_by = {module: digest for code in codes.values() for module, digest in code.items()}
    write_page(Result("calibration", {**origin, "sources": decided_by}, payload), options.output, draw=draw, page=table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
