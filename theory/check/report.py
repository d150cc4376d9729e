"""`REPORT.md`: what the source says, what was checked, how, on what, and what came out. Read next: `__main__.py`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import groupby
from pathlib import Path

from sharp_maml import read_result
from theory.check.calibration import headline
from theory.check.claim import LEVEL, Item, Rule, Verdict
from theory.check.figures import plan
from theory.check.verdicts import TRACKED, commit_of

HOW = (
    "Every claim has one rule, fixed beforehand, that looks at measured numbers beside predicted ones and wants "
    "each in a region. It is *supported* when the data exclude that a number lies outside its region, *refuted* "
    "when they exclude that all lie inside, otherwise *inconclusive*; statistical decisions of a run are taken "
    "together, at a nominal probability of {level:g} that any is wrong (Holm; a claim run alone is decided with "
    "less correction). *Controls* are deliberately wrong settings under the same rule: each must come out the "
    "other way, or the claim does not count. Measured numbers are given with their standard error and the number "
    "of seeds, shares with what they are counted from; intervals are at the level {level:g} of a number alone, and a "
    "region is where the rule wants the number. Every run of the algorithm goes through the package's "
    "`meta_gradient`, in float64."
)
SHOWN = 8
"""Items listed of a claim that has many: those nearest to the edge of their region."""


def report(verdicts: Sequence[Verdict], *, records: str = "claims", tracked: Path = TRACKED) -> str:
    """The report in markdown.

    Args:
        verdicts: The decided claims, of one run.
        records: The folder of their records, as the report links it.
        tracked: Where the records of calibration and mutants lie, which the report quotes.

    Returns:
        The text; figures are linked as `figures/<id>.png`.
    """
    found = verdicts[0].origin
    budget, seconds = found["budget"], sum(sum(verdict.seconds.values()) for verdict in verdicts)
    passed = sum(verdict.passed for verdict in verdicts)
    lines = [
        "# Theory report",
        "",
        f"{passed} of {len(verdicts)} claims came out as expected, with all their controls.",
        "",
        f"Budget `{budget['name']}`: horizons up to T = 2^{budget['log2_horizon']}, {budget['seeds']} seeds; base seed "
        f"{found['seed']}; {_origins(verdicts)}; {seconds:.0f} s of one core.",
        "",
        f"**How to read it.** {HOW.format(level=LEVEL)}",
        "",
        *_calibration(tracked / "calibration.json"),
        *_mutants(tracked / "mutants.json"),
        "| claim | claimed by the source | evidence | outcome | controls | furthest number, edge = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        claim = verdict.claim
        lines.append(
            f"| [{claim.id}](#{claim.id}) | {'yes' if claim.literal else 'derived here'} | "
            f"{claim.evidence} | {_outcome(verdict)} | {verdict.turned} of {len(claim.controls)} {claim.other} | "
            f"{verdict.furthest:.3f} |"
        )
    for part, of_part in groupby(verdicts, lambda verdict: verdict.claim.id.split("_")[0]):
        title, _, body = (import_module(f"theory.{part}").__doc__ or "").partition(":")
        lines += ["", f"## {title}", "", *body.split("\n\n", 1)[1].strip().splitlines()]
        for verdict in of_part:
            lines += ["", *_section(verdict, records)]
    return "\n".join(lines) + "\n"


def _calibration(path: Path) -> list[str]:
    """What the record of the calibration says; nothing while it is made anew."""
    if not path.exists():
        return []
    said = headline(read_result(path, "calibration").payload)
    return [f"**How often the rules err.** {said} All of it: [calibration](CALIBRATION.md).", ""]


def _mutants(path: Path) -> list[str]:
    """What the record of the mutants says; nothing while it is made anew."""
    if not path.exists():
        return []
    entries = read_result(path, "mutants").payload["mutants"]
    caught = [entry for entry in entries if entry["caught"]]
    return [
        f"**What would be noticed.** Of {len(entries)} mistakes that were seeded into the sources, one at a time, "
        f"among them every term of both theorems, {len(caught)} were caught, "
        f"{sum(bool(entry['claim']) for entry in caught)} of them by claims of this suite: [mutants](MUTANTS.md).",
        "",
    ]


def _origins(verdicts: Sequence[Verdict]) -> str:
    """Which code measured the claims and where; how many each did if they were not measured together."""
    counts = Counter(
        f"{commit_of(found)}; {found['device']}, torch {found['torch']}"
        for found in (verdict.origin for verdict in verdicts)
    )
    return "; ".join(f"{number} of them: {text}" if len(counts) > 1 else text for text, number in counts.items())


def _section(verdict: Verdict, records: str) -> list[str]:
    claim, brought = verdict.claim, verdict.evidence[""]
    text = {heading: " ".join(body.split()) for heading, body in claim.text.items()}
    lines = [
        f"### {claim.id}",
        "",
        f"**{text['Statement'][0].upper() + text['Statement'][1:]}**",
        "",
        f"Outcome: **{_outcome(verdict)}**. Rule: {claim.rule.text}.",
        "",
        *(f"- *{heading}.* {text[heading]}" for heading in ("Source", "Assumptions", "Why", "Setting", "Limits")),
        f"- *Controls.* {text['Controls']}",
        "",
    ]
    if brought.latex:
        lines += [f"Predicted: $`{brought.latex}`$", ""]
    shown = sorted(brought.items, key=lambda item: -_distance(verdict, item))[:SHOWN]
    if len(shown) < len(brought.items):
        lines += [f"The {len(shown)} of {len(brought.items)} numbers that are nearest to the edge of their region:", ""]
    lines += ["| number | measured | interval | region | decided by |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(map(_cell, row(claim.rule, item)))} |" for item in shown]
    lines += [
        "",
        "| control | outcome | number furthest outside its region | measured | predicted | "
        f"outside by ({'relative' if math.isinf(claim.rule.below) else 'half-widths'}) |",
        "|---|---|---|---|---|---|",
    ]
    for name in claim.controls:
        item = max(verdict.evidence[name].items, key=claim.rule.outside)
        away = claim.rule.outside(item)
        lines.append(
            f"| {name} | {verdict.outcomes[name]} | {_cell(item.label)} | {_number(item)} | {item.predicted:.4g} | "
            f"{f'{away:.3g}' if away > 0 else 'inside'} |"
        )
    lines += [
        "",
        f"![{plan(claim.id).says}](figures/{claim.id}.png)",
        "",
        f"File: `{claim.module.replace('.', '/')}.py`. [Record]({records}/{claim.id}.json). "
        f"Rerun: `python -m theory --only {claim.id}`.",
    ]
    return lines


def _outcome(verdict: Verdict) -> str:
    if verdict.passed:
        return verdict.outcome if verdict.claim.expected == "supported" else f"{verdict.outcome}, as expected"
    if verdict.outcome == verdict.claim.expected:
        return f"{verdict.outcome}, but a control did not come out the other way"
    return f"ALARM: {verdict.outcome}, expected {verdict.claim.expected}" if verdict.alarm else verdict.outcome


def _distance(verdict: Verdict, item: Item) -> float:
    return abs(verdict.claim.rule.position(item, item.measured))


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def row(rule: Rule, item: Item) -> tuple[str, str, str, str, str]:
    """A number: what it is, measured, its interval, the region where the rule wants it, and how it is decided."""
    measured = _number(replace(item, within=None))
    return item.label, measured, span(*item.interval()), span(*rule.region(item)), decided_by(item)


def span(low: float, high: float) -> str:
    """Two ends, or a number; without a lower end an upper one."""
    if math.isinf(low):
        return f"at most {high:.4g}"
    return f"{low:.4g}" if low == high else f"[{low:.4g}, {high:.4g}]"


def decided_by(item: Item) -> str:
    """What kind of interval a number has."""
    if item.within is not None:
        return "proved interval"
    if item.successes is not None:
        return "binomial"
    return "Student's t" if item.error else "the number itself"


def _number(item: Item) -> str:
    if item.within is not None:
        return f"{item.measured:.4g} [{item.within[0]:.4g}, {item.within[1]:.4g}]"
    if item.successes is not None:
        return f"{item.measured:.4g} ({item.successes} of {item.n})"
    return f"{item.measured:.4g} ± {item.error:.1g} (n = {item.n})" if item.error else f"{item.measured:.6g}"
