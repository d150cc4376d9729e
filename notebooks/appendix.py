"""What the notebooks share: finding records, showing tables, numbered figures, and where everything came from.

By default the records are those that the repository tracks; the environment variable RESULTS names a directory of
fresh ones instead. A record that is missing is an error that names the command which makes it. Read next:
`__main__.py`, which executes the notebooks.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from IPython.display import Markdown, display
from matplotlib import style
from matplotlib.figure import Figure

from reproductions.tables import curves, forms
from reproductions.tables.check import check
from reproductions.tables.lines import build_lines, notes
from reproductions.tables.records import finished_records, tables_run, tracked_records
from reproductions.tables.specification import Table, Tier
from sharp_maml import KINDS, Record, read_result

ROOT = Path(__file__).parents[1]
CAPTION = "sharp-maml/caption"
"""Entry of an output's metadata that makes it a numbered figure."""


class Appendix:
    """A chapter: what is displayed through it is numbered, and `sources` lists the records that it read.

    Args:
        number: Number of the chapter; figures are `number.1`, `number.2`, ...
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.figures = 0
        self.read: dict[str, Mapping[str, Any]] = {}
        self.caveats: dict[str, str] = {}
        self.commands: dict[str, None] = {}
        self.results = Path(os.environ["RESULTS"]).resolve() if os.environ.get("RESULTS") else None

    def record(self, kind: str, name: str, *, tracked: bool = False) -> Mapping[str, Any]:
        """What a record holds, as it lies in the repository's `records` or in RESULTS.

        Args:
            kind: Its kind.
            name: Its path there.
            tracked: Show the repository's even where RESULTS is given.

        Returns:
            The payload.

        Raises:
            RecordError: It is missing; the message names the command that makes it.
        """
        path = (ROOT / "records" if self.results is None or tracked else self.results) / name
        result = read_result(path, kind)
        self.read[_short(path)], self.caveats[_short(path)] = result.provenance, result.caveat
        self.commands[KINDS[kind].made_by] = None
        return result.payload

    def claim(self, name: str) -> Mapping[str, Any]:
        """The record of a claim."""
        return self.record("claim", f"theory/claims/{name}.json")

    def claims(self, *names: str) -> None:
        """A table of claims: what is claimed, by whom, on what evidence, and what came out."""
        rows = []
        for name in names:
            record = self.claim(name)
            controls = {key: unit["outcome"] for key, unit in record["units"].items() if key != "claim"}
            turned = sum(outcome != record["expected"] and outcome != "inconclusive" for outcome in controls.values())
            rows.append(
                [
                    f"`{name}`",
                    _line(record["text"]["Statement"]),
                    "the source" if record["literal"] else "derived here",
                    record["evidence"],
                    record["units"]["claim"]["outcome"] + ("" if record["passed"] else " (not as expected)"),
                    f"{turned} of {len(controls)}",
                ]
            )
        self.table(["claim", "statement", "claimed by", "evidence", "outcome", "controls that came out opposite"], rows)

    def numbers(self, name: str, *, limit: int = 12) -> None:
        """The numbers of a claim and of its controls, beside those that the rule wants."""
        record = self.claim(name)
        rows = []
        for unit, found in record["units"].items():
            for item in found["items"][: limit if unit == "claim" else 1]:
                error = f" ± {item['error']:.2g}" if item["error"] else ""
                within = (item["within"] and " [{:.4g}, {:.4g}]".format(*item["within"])) or ""
                counted = " ({successes} of {n})".format(**item) if item.get("successes") is not None else ""
                rows.append(
                    [
                        "" if unit == "claim" else "control",
                        item["label"],
                        f"{item['measured']:.4g}{error}{within}{counted}",
                        f"{item['predicted']:.4g}",
                        found["outcome"],
                    ]
                )
        left = len(record["units"]["claim"]["items"]) - limit
        self.text(f"**`{name}`.** Rule, fixed beforehand: {_line(record['rule']['text'])}.")
        self.table(["", "number", "measured (standard error)", "predicted", "outcome"], rows)
        if left > 0:
            self.text(f"{left} more numbers of the claim are in its record.")

    def claim_figure(self, name: str, caption: str) -> None:
        """The figure of a claim, as drawn from its record."""
        self.claim(name)
        where = ROOT / "docs/theory/figures" if self.results is None else self.results / "theory/figures"
        self.image(where / f"{name}.png", f"{caption} (`{name}`)")

    def accuracies(self, name: str, *, figures: bool = True) -> None:
        """A table of accuracies, of every tier that has records, and unless they are left out its figures."""
        for table, tier, records in self._run(name):
            check(records, table.rows, allow_dirty=True)  # `notes` says so
            lines, below = build_lines(table, records), notes(table, tier, records)
            title = f"{table.title} ({tier.name} tier)"
            self.text(forms.markdown(title, table.baseline.label, lines, below))
            if figures:
                with TemporaryDirectory() as directory:
                    path = Path(directory) / "table.png"
                    forms.figure(title, table.baseline.label, lines, below, path)
                    self.image(path, f"{title}: {tier.label}.")
                    if tier.data != "synthetic":
                        curves.draw(title, table.rows, records, path)
                        self.image(
                            path, f"{title}: accuracy on the validation classes, mean and 95% interval over seeds."
                        )
            for record in records:
                self.read[f"{tier.name}: {record.name}, seed {record.seed}"] = record.provenance
            self.commands[
                f"make reproduce-table1 TIER={tier.name} TABLE={name} SEEDS={len({r.seed for r in records})}"
            ] = None

    def decided(self, name: str) -> None:
        """What the verdicts of a table say, a sentence a tier that has records."""
        for table, tier, records in self._run(name):
            said = forms.says(table.baseline.label, build_lines(table, records))
            self.text(f"- {table.title} ({tier.name} tier: {tier.label}). {said}")

    def _run(self, name: str) -> list[tuple[Table, Tier, Sequence[Record]]]:
        """The tiers on which a table has been run, with their records."""
        find = tracked_records if self.results is None else partial(finished_records, results=self.results)
        found = [each for each in tables_run(find) if each[0].name == name]
        if not found:
            raise FileNotFoundError(f"no records of {name}; make them with: make reproduce-table1 TABLE={name}")
        return found

    def image(self, path: Path, caption: str) -> None:
        """A figure from a PNG file; a PDF beside it is what the appendix on paper takes."""
        if not path.exists():
            raise FileNotFoundError(f"{_short(path)} is missing: the command that makes its record draws it")
        pdf = path.with_suffix(".pdf")
        self._show(path.read_bytes(), pdf.read_bytes() if pdf.exists() else None, caption)

    def figure(self, figure: Figure, caption: str) -> None:
        """A figure that was drawn here."""
        forms = {}
        with style.context("sharp_maml.paper"):  # ticks are made when they are drawn
            for form in ("png", "pdf"):
                file = io.BytesIO()
                figure.savefig(file, format=form, metadata={"CreationDate": None} if form == "pdf" else None)
                forms[form] = file.getvalue()
        self._show(forms["png"], forms["pdf"], caption)

    def _show(self, png: bytes, pdf: bytes | None, caption: str) -> None:
        self.figures += 1
        label = f"{self.number}.{self.figures}"
        bundle = {"image/png": base64.b64encode(png).decode(), "text/plain": f"Figure {label}"}
        if pdf is not None:
            bundle["application/pdf"] = base64.b64encode(pdf).decode()
        display(bundle, raw=True, metadata={CAPTION: caption})
        self.text(f"*Figure {label}.* {caption}", of_figure=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table."""
        # The dashes are the columns' relative widths: room for the words of the head and, up to a limit, for whole
        # cells. Names in typewriter type are wider than they are long.
        widths = []
        for top, *column in zip(head, *rows, strict=True):
            lengths = [len(cell) * 3 // 2 if cell.startswith("`") else len(cell) for cell in (*top.split(), *column)]
            widths.append(4 + min(60, max(lengths, default=0)))
        lines = [head, [":" + "-" * width for width in widths]]
        lines += [[cell.replace("|", r"\|") for cell in row] for row in rows]
        self.text("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def text(self, markdown: str, *, of_figure: bool = False) -> None:
        """Text in markdown; that of a figure is its caption once more, for Jupyter."""
        display(Markdown(markdown), metadata={CAPTION: True} if of_figure else None)

    def sources(self) -> None:
        """The records that were read, which code made them, and the commands: the end of every notebook."""
        rows = [
            [
                f"`{name}`",
                (record["commit"] or "unknown")[:10] + (" with uncommitted changes" if record["dirty"] else ""),
                record["device"],
            ]
            for name, record in self.read.items()
        ]
        self.text("## Where this comes from")
        self.table(["record", "commit", "device"], rows)
        for name, caveat in self.caveats.items():
            if caveat:
                self.text(f"`{name}`: {caveat}")
        self.text("```\n" + "\n".join(self.commands) + "\n```")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("*", r"\*")  # a star is one of mathematics, as in x*


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
