"""A page to play with: every claim, the table's rows, the phase diagram of Lemma 1 and loss landscapes, from records.

One HTML file with its data and its script in it, which works from a disk and without a network. The documentation is
built with it. Read next: `explorer.html`, the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib import rcParams, style
from matplotlib.colors import to_hex

from publish import tables
from reproductions.tables.curves import validation_curve
from reproductions.tables.forms import HEADER
from sharp_maml import read_result
from theory.check.claim import Curve, Verdict
from theory.check.figures import CONTROL, plan
from theory.check.report import row

PAGE = Path(__file__).with_name("explorer.html")

TIER = "demo"
"""The tier whose networks' landscapes are shown."""


def page(records: Path, verdicts: Sequence[Verdict]) -> str:
    """The page.

    Args:
        records: The folder of the results.
        verdicts: The verdicts of its claims.

    Returns:
        HTML that loads nothing.
    """
    landscape = read_result(records / f"landscape/{TIER}.json", "landscape").payload
    with style.context("sharp_maml.paper"):
        colours = rcParams["axes.prop_cycle"].by_key()["color"]
    data = {
        "colours": [to_hex(colour) for colour in colours],
        "control": CONTROL["color"],
        "claims": {verdict.claim.id: _claim(verdict) for verdict in verdicts},
        "columns": [name.format(baseline="the baseline") for name in HEADER],
        "cells": list(_cells(records)),
        "phase": _phase(verdicts),
        "landscape": {
            "labels": landscape["labels"],
            "cells": [
                {key: cell[key] for key in ("row", "seed", "coordinates", "plane")} for cell in landscape["cells"]
            ],
        },
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", r"<\/")
    return PAGE.read_text(encoding="utf-8").replace("DATA", text, 1)


def _claim(verdict: Verdict) -> dict[str, Any]:
    claim, brought = verdict.claim, verdict.evidence[""]
    controls = []
    for name in claim.controls:
        label, measured, _, region, _ = row(claim.rule, max(verdict.evidence[name].items, key=claim.rule.outside))
        controls.append([name, verdict.outcomes[name], label, measured, region])
    curves = [curve for name, found in verdict.evidence.items() for curve in found.curves if _is_shown(curve, name)]
    return {
        "says": plan(claim.id).says,
        "statement": " ".join(claim.text["Statement"].split()),
        "rule": claim.rule.text,
        "outcome": verdict.outcome + ("" if verdict.passed else ", not as expected"),
        "evidence": claim.evidence,
        "items": [row(claim.rule, item) for item in brought.items],
        "controls": controls,
        "curves": [
            {key: value for key, value in asdict(curve).items() if key not in ("low", "high")} for curve in curves
        ],
        "axes": [axis.replace("$", "").replace("\\", "") for axis in claim.axes],
        "log": claim.scale == "log",
    }


def _is_shown(curve: Curve, control: str) -> bool:
    return not control or curve.role == "control"


def _cells(records: Path) -> Iterable[Mapping[str, Any]]:
    """The rows of each table of each tier that has records, with their curves over training."""
    for each in tables.shown(records):
        for of_row, line in zip(each.table.rows, each.lines, strict=True):
            curve = validation_curve([record for record in each.records if record.name == of_row.name])
            yield {
                "table": f"{each.table.title} ({each.tier.name} tier)",
                "numbers": line.cells(),
                "says": f"Accuracy of {line.label} on the validation classes.",
                "curves": [
                    {
                        "label": line.label,
                        "role": "measured",
                        "x": list(curve),
                        "y": [estimate.mean for estimate in curve.values()],
                    }
                ],
                "axes": ["meta-iteration", "validation accuracy, %"],
                "log": False,
            }


def _phase(verdicts: Sequence[Verdict]) -> dict[str, list[dict[str, Any]]]:
    """The curves of `lemma_phase`, more and fewer, by the number of tasks."""
    (verdict,) = (verdict for verdict in verdicts if verdict.claim.id == "lemma_phase")
    by_tasks: dict[str, list[dict[str, Any]]] = {}
    for curve in verdict.evidence[""].curves:
        label, tasks = curve.label.split(", ")
        shown = {"label": label, "role": curve.role, "x": curve.x, "y": curve.y}
        by_tasks.setdefault(tasks, []).append(shown)
    return by_tasks
