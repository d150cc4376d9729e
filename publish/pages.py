"""Every text that the repository prints from its records. Read next: `figures.py`, the same for figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page as bench
from publish import landscapes, tables
from reproductions.sensitivity.measure import shifts
from reproductions.study import put_between
from reproductions.tables.lines import Line, interval, signed
from sharp_maml import Result, read_result
from sharp_maml.config import reference
from tests.theory import mutants
from tests.torture import fuzz, kills, numbers
from theory.check import calibration
from theory.check.claim import LEVEL, Item, Verdict
from theory.check.report import report
from theory.check.verdicts import record
from theory.networks import certificate, counts, regime_page
from theory.networks import rate as network_rate

MAIN = ("cpu", "miniimagenet")
"""Tier and table that the README shows."""
FILLED = ("README.md", "docs/performance.md", "docs/claims.md", "docs/protocol.md")
"""Pages by hand, with marks around what is printed from records."""
LINKS = "../../records/theory"
"""The way from the theory's pages to their records."""


def pages(root: Path, verdicts: Sequence[Verdict]) -> dict[Path, str]:
    """What every page and every record of a claim must hold.

    Args:
        root: The checkout whose `records` are printed.
        verdicts: The verdicts of its claims: see `theory.check.verdicts.read`.

    Returns:
        The texts by path.

    Raises:
        ValueError: A record is missing, damaged or refused, or a page has not the marks of what it prints.
    """
    records, theory = root / "records", root / "docs/theory"
    texts = {records / f"theory/claims/{verdict.claim.id}.json": str(record(verdict)) for verdict in verdicts}
    texts[theory / "REPORT.md"] = report(verdicts, records=f"{LINKS}/claims", tracked=records / "theory")
    for kind, page in {
        "calibration": calibration.table,
        "certificate": certificate.table,
        "counts": counts.table,
        "mutants": mutants.page,
        "regime": regime_page.table,
        "network-rate": network_rate.table,
    }.items():
        result = read_result(records / f"theory/{kind}.json", kind)
        texts[theory / f"{kind.upper()}.md"] = page(result, f"{LINKS}/{kind}.json")
    texts[root / "docs/reliability.md"] = "".join(
        page(read_result(records / f"{kind}.json", kind), f"../records/{kind}.json")
        for kind, page in {"reliability": fuzz.page, "kills": kills.page, "numbers": numbers.page}.items()
    )
    texts[root / "docs/settings.md"] = reference()
    texts[root / "docs/tables.md"] = tables.page(records)
    path = records / "bench/gpu.json"
    texts[root / "docs/gpu.md"] = bench.gpu_page(read_result(path, "gpu") if path.exists() else None)
    passages = {"clusters": _clusters(read_result(records / "clusters.json", "clusters"))}
    passages |= bench.tables(records) | _accuracies(records) | _as_trained(verdicts)
    passages |= assumptions(records) | sensitivities(records)
    for each in landscapes.measured(records):
        passages |= each.passages
    for name in FILLED:
        text = (root / name).read_text(encoding="utf-8")
        for mark in re.findall("<!-- ([a-z0-9-]+): begin -->", text):
            if mark not in passages:
                raise ValueError(f"{name}: nothing is printed between the marks {mark!r}: no record, or another name")
            text = put_between(text, mark, passages[mark])
        texts[root / name] = text
    return texts


def _clusters(result: Result) -> str:
    """The seconds by number of cells, and the milliseconds of each cell after the first, in markdown."""
    lines = []
    for count, (first, last) in result.payload["seconds"].items():
        each = f"{1000 * (last - first) / (int(count) - 1):.1f}" if int(count) > 1 else ""
        lines.append([f"{int(count):,}", f"{first:.1f}", f"{last:.1f}", each])
    said = f"{result.provenance['device']}, Ray {result.payload['ray']}; {result.code}."
    head = ["cells", "until the first ends, s", "until all end, s", "each further cell, ms"]
    return bench.markdown(head, lines) + _below(said, result)


def _below(said: str, result: Result) -> str:
    """What stands below a table: what measured it, and what is to be said beside the numbers."""
    return f"\n{' '.join(filter(None, [said, result.caveat]))}\n"


def _accuracies(records: Path) -> dict[str, str]:
    """The README's table, and in a line the verdicts of each tier's first table and of those on what the ascent is."""
    shown = {(each.tier.name, each.table.name): each for each in tables.shown(records)}
    verdicts = {f"verdicts-{tier}": decided(each.lines) for (tier, _), each in shown.items() if each.is_first}
    parts = {
        f"mechanism-{tier}": "; ".join(
            f"*{line.label}* {signed(line.difference)}, {line.verdict}"
            for line in each.lines
            if line.difference is not None
        )
        for (tier, name), each in shown.items()
        if name.endswith("mechanism")
    }
    return {"table": shown[MAIN].markdown, **verdicts, **parts}


def decided(lines: Sequence[Line]) -> str:
    """What is said of which variants of Sharp-MAML, and by how many seeds; of one seed, the differences to MAML."""
    variants = {
        line.label.removeprefix("Sharp-MAML "): line
        for line in lines
        if line.label.startswith("Sharp-MAML ") and line.difference is not None
    }
    seeds = sorted({line.runs for line in variants.values()})
    if seeds == [1]:
        found = (f"*{name}* {line.difference.mean:+.2f}" for name, line in variants.items() if line.difference)
        return f"one seed, which decides nothing: {', '.join(found)} points"
    named = {
        verdict: [f"*{name}*" for name, line in variants.items() if line.verdict == verdict]
        for verdict in dict.fromkeys(line.verdict for line in variants.values())
    }
    said = "; ".join(f"{verdict} for {', '.join(names)}" for verdict, names in named.items())
    return f"{' to '.join(map(str, seeds[:: max(1, len(seeds) - 1)]))} seeds: {said}"


def sensitivities(records: Path) -> dict[str, str]:
    """How far each choice of the protocol moves the accuracy of a tier's networks, in markdown."""
    found = {}
    for path in sorted((records / "sensitivity").glob("*.json")):
        result = read_result(path, "sensitivity")
        payload = result.payload
        moved = shifts(payload["accuracies"])
        head = ["changed", "shift, points", "95% interval over training seeds"]
        shown = bench.markdown(head, [[name, f"{shift.mean:+.2f}", interval(shift)] for name, shift in moved.items()])
        said = f"{payload['label']}, tier {path.stem}, {len(payload['accuracies'])} networks; {result.code}."
        least, most = (choose(abs(shift.mean) for shift in moved.values()) for choose in (min, max))
        beside = "less" if most < min(payload["gains"].values()) else "the largest not less"
        found[f"sensitivity-{path.stem}-range"] = (
            f"{least:.2f} to {most:.2f} points, {beside} than the smallest gain printed"
        )
        found[f"sensitivity-{path.stem}"] = shown + _below(said, result)
    return found


def _as_trained(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """How often the bound of what Sharp-MAML trains is larger, and smaller, than that of what MAML trains."""
    (verdict,) = (verdict for verdict in verdicts if verdict.claim.id == "generalization_as_trained")
    items = verdict.evidence[""].items
    return {"as-trained": larger_and_smaller(items)}


def larger_and_smaller(items: Sequence[Item]) -> str:
    """Cells in which the share of smaller bounds is decided, against one half, at the level of all cells together."""
    intervals = [(item, *item.interval(LEVEL / len(items))) for item in items]
    smaller = [item for item, low, _ in intervals if low > 0.5]
    larger = [item for item, _, high in intervals if high < 0.5]
    chosen, of_chosen = (sum("chosen" in item.label for item in some) for some in (smaller, items))
    return (
        f"larger in {len(larger)} and smaller in {len(smaller)} of {len(items)} cells (landscape, start, alpha, "
        "constant or decaying radius), the others being undecided; with the best alpha for each, smaller in "
        f"{chosen} of the {of_chosen} cells"
    )


def assumptions(records: Path) -> dict[str, str]:
    """What the rate's theorem asks, at the checkpoints of trained networks."""
    record = read_result(records / "theory/regime.json", "regime").payload
    return {"regime": "\n".join([*regime_page.verdicts(record), ""])}
