"""What the records of landscapes say, tier by tier: smoother or not, and whether flat networks are more accurate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproductions.landscape.accuracy import Point, correlations, gaps, points
from reproductions.landscape.decide import LEVEL
from reproductions.landscape.measure import MEASURES
from reproductions.tables.lines import signed
from reproductions.tables.records import tracked_records
from reproductions.tables.specification import Tier, load
from sharp_maml import Result, read_result


@dataclass(frozen=True)
class Landscapes:
    """The landscapes of a tier's networks, and those networks that have an accuracy beside their sharpness."""

    tier: Tier
    result: Result
    points: Sequence[Point]

    @property
    def named(self) -> dict[str, str]:
        """Names of the rows, as the table has them."""
        labels = self.result.payload["labels"]
        return {row: label.removeprefix("Sharp-MAML ") for row, label in labels.items()}

    @property
    def passages(self) -> dict[str, str]:
        """What pages print of them, by the mark between which it stands."""
        name, caveat = self.tier.name, self.result.caveat
        found = {
            f"landscape-{name}": smoothness(self.result.payload["decisions"], self.named),
            f"landscape-{name}-caveat": f" {caveat}" if caveat else "",
        }
        return found | ({f"flatness-{name}": flatness(self.points, self.named)} if self.points else {})


def measured(records: Path) -> Iterator[Landscapes]:
    """Every tier whose landscapes were measured, by name."""
    tables, tiers = load()
    for path in sorted((records / "landscape").glob("*.json")):
        tier, result = tiers[path.stem], read_result(path, "landscape")
        of_table = tracked_records(tables[tier.tables[0]], tier, records / "tables")
        yield Landscapes(tier, result, points(of_table, result.payload))


def smoothness(decisions: Sequence[dict[str, Any]], named: Mapping[str, str]) -> str:
    """The decisions on a landscape, counted by row, by how many seeds, and what comes nearest where there is none."""
    smoother = dict.fromkeys((line["row"] for line in decisions), 0)
    for line in decisions:
        smoother[line["row"]] += line["verdict"] == "smoother"
    counts = ", ".join(f"{count} (*{named[row]}*)" for row, count in smoother.items())
    worse = sum(line["verdict"] == "less smooth" for line in decisions)
    seeds = max(line["difference"]["n"] for line in decisions)
    said = f"{seeds} seeds: smoother in {counts} of {len(MEASURES)} measures; less smooth in {worse or 'none'}"
    if worse or any(smoother.values()):
        return said
    nearest = min(decisions, key=lambda line: line["p"])
    asked = LEVEL / len(decisions)
    return f"{said}; the smallest p is {nearest['p']:.2g} (*{named[nearest['row']]}*), and Holm asks for {asked:.2g}"


def flatness(found: Sequence[Point], named: Mapping[str, str]) -> str:
    """Rank correlations of accuracy and sharpness, and the gap between classes, as a difference to MAML's."""
    ranks = correlations(found).values()
    flatter = sum(r.high < 0 for r in ranks)
    sharper = sum(r.low > 0 for r in ranks)
    low, high = (choose(r.mean for r in ranks) for choose in (min, max))
    moved = ", ".join(f"*{named[row]}* {signed(gap)}" for row, gap in gaps(found).items())
    return (
        f"over {len(found)} networks the rank correlation of accuracy and sharpness within a seed is on average "
        f"{low:.2f} to {high:.2f}, by measure; its interval over seeds, not corrected for the number of measures, says "
        f"that flatter ones are more accurate in {flatter or 'none'} of {len(MEASURES)} measures, less accurate in "
        f"{sharper or 'none'}. Accuracy on training classes less that on test classes, in points less MAML's: {moved}"
    )
