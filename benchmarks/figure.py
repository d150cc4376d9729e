"""The figure of the page on speed, from its record. Read next: `page.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from benchmarks.page import TARGETS
from benchmarks.profile import KINDS, OTHER, OUTSIDE
from sharp_maml.paper import say


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    found = [(row["ratio"]["plain"]["median"], TARGETS[int(row["work"].split("@")[1])]) for row in record["rows"]]
    every = [ratio for ratio, _ in found]
    return (
        f"A meta-gradient is {min(every):.1f} to {max(every):.1f} times as fast as the plain loop's, and reaches the "
        f"target in {sum(ratio >= target for ratio, target in found)} of {len(found)} cases."
    )


def draw(record: Mapping[str, Any]) -> Figure:
    """Ratios, where the time goes, and scaling."""
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 5.4), layout="constrained")
        panels = figure.subplot_mosaic([["left", "right"], ["below", "below"]], height_ratios=(1, 1.1))
        left, right, middle = (panels[name] for name in ("left", "right", "below"))
        for offset, (pixels, target) in zip((-0.12, 0.12), TARGETS.items(), strict=True):
            rows = [row for row in record["rows"] if row["work"].endswith(f"@{pixels}")]
            ours = [row["ratio"]["plain"] for row in rows]
            low, high = ([abs(of["median"] - of[end]) for of in ours] for end in ("min", "max"))
            at = [index + offset for index in range(len(rows))]
            drawn = left.errorbar(
                at, [of["median"] for of in ours], yerr=[low, high], fmt="o", label=f"{pixels} pixels"
            )
            left.axhline(target, color=drawn.lines[0].get_color(), linestyle=":", linewidth=1)
        left.set_xticks(range(len(rows)), [row["work"].split("@")[0] for row in rows], rotation=45)
        left.set_ylim(0)
        left.set_ylabel("times as fast as the plain loop")
        left.set_title("Speed (dotted: target)")
        left.legend(loc="lower right")

        labels = []
        for index, (row, side) in enumerate((row, side) for row in record["profile"] for side in ("ours", "plain")):
            labels.append(f"{row['work']} {side}")
            start = 0.0
            for place, kind in enumerate((*KINDS, OTHER, OUTSIDE)):
                width = row[side]["seconds_by_kind"][kind] / row["plain"]["seconds"]
                middle.barh(index, width, left=start, color=f"C{place}", label=kind if index == 0 else None)
                start += width
        middle.set_yticks(range(len(labels)), labels)
        middle.invert_yaxis()
        middle.set_xlabel("time, plain loop = 1 (one thread)")
        middle.set_title("Where the time goes")
        figure.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=4)

        for over, look in (("inner steps", "o-"), ("episodes", "s--")):
            rows = [row for row in record["scaling"] if row["over"] == over]
            x = [row["steps" if over == "inner steps" else "episodes"] for row in rows]
            for side, line in (("ours", "C0"), ("plain", "C1")):
                right.plot(
                    x, [row["median_seconds"][side] for row in rows], look, color=line, label=f"{side}, over {over}"
                )
        right.set_xlabel("inner steps, or episodes")
        right.set_ylabel("seconds a meta-iteration, 42 pixels")
        right.set_ylim(0)
        right.set_title("Scaling, MAML")
        right.legend()
        say(figure, says(record))
    return figure
