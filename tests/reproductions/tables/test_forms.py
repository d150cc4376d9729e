from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from reproductions.tables import forms
from reproductions.tables.forms import HEADER, NARROWEST, WIDEST, figure, latex, markdown, terminal
from reproductions.tables.lines import Line, build_lines, notes
from reproductions.tables.records import tracked_records
from reproductions.tables.specification import load
from sharp_maml import Estimate

ONE_RUN = Estimate(45.0, -math.inf, math.inf, 1, "%")
BASELINE = Line("MAML", 47.13, False, Estimate(46.0, 45.0, 47.0, 600), Estimate(46.0, 45.5, 46.5, 3),
                Estimate(42.0, 41.5, 42.5, 600), None, None, "baseline", 3)  # fmt: skip
LOW = Line("Sharp-MAML low", 48.87, False, Estimate(48.0, 47.0, 49.0, 600), Estimate(48.0, 47.25, 48.75, 3),
           Estimate(43.0, 42.5, 43.5, 600), Estimate(2.0, 1.25, 2.75, 3), 1.74, "gain confirmed", 3)  # fmt: skip
SINGLE = Line("One_run & 100% [more]", None, False, Estimate(45.0, 44.0, 46.0, 600), ONE_RUN,
              Estimate(41.0, 40.5, 41.5, 600), Estimate(-1.0, -math.inf, math.inf, 1), None,
              "one seed decides nothing", 1)  # fmt: skip
QUOTED = Line("Matching Nets", 43.56, True, None, None, None, None, -3.57, "—", 0)
LINES = [BASELINE, LOW, SINGLE, QUOTED]
NOTES = ["Data: made up, 5% of it.", "Code: commit abc_def."]


def test_a_line_is_written_in_the_order_of_the_header():
    assert LOW.cells() == (
        "Sharp-MAML low", "48.87", "48.00 ± 1.00", "[47.25, 48.75]", "43.00 ± 0.50", "+2.00 [1.25, 2.75]", "+1.74",
        "gain confirmed", "3",
    )  # fmt: skip
    assert len(LOW.cells()) == len(HEADER)


def test_a_line_without_records_has_dashes_and_says_that_the_sources_value_is_quoted():
    assert QUOTED.cells() == ("Matching Nets", "43.56 (quoted)", "—", "—", "—", "—", "-3.57", "—", "—")


def test_a_single_run_has_no_interval_over_seeds():
    assert SINGLE.cells()[3] == "[one run: no interval]"
    assert SINGLE.cells()[5] == "-1.00 [one run: no interval]"


def test_the_baseline_has_no_difference_to_itself():
    assert BASELINE.cells()[5:7] == ("—", "—")


def in_terminal(title, baseline, lines, notes, width) -> str:
    shown = io.StringIO()
    Console(file=shown, width=width).print(terminal(title, baseline, lines, notes, width))
    return shown.getvalue()


def assert_fits(text: str, lines, width: int) -> None:
    """No line is wider, and each row has its numbers, intervals and verdict whole; labels may be folded."""
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    rule = next(line for line in text.splitlines() if set(line) == {"─"})
    _, *rows = text.split(rule)
    assert len(rows) == len(lines)
    for line, row in zip(lines, rows, strict=True):
        _, source, accuracy, seeds, support, difference, source_difference, verdict, runs = line.cells()
        shown = [source, accuracy, "" if seeds == "—" else seeds, difference, source_difference]
        for cell in [*shown, *([support, runs] if width >= 100 else [])]:
            for piece in cell.replace(": ", ":\n").replace(" [", "\n[").replace(" (", "\n(").split("\n"):
                assert piece in row
        for word in verdict.split():
            assert word in row


@pytest.mark.parametrize("width", [80, 100, 220])
def test_the_terminal_shows_every_cell_and_note_brackets_included(width):
    text = in_terminal("A title (demo tier)", "MAML", LINES, NOTES, width)
    assert_fits(text, LINES, width)
    for expected in ["One_run", "100%", "[more]", *NOTES, "A title (demo tier)", "difference to MAML"]:
        assert expected in text


def test_a_terminal_of_fewer_than_100_columns_does_without_support_set_norm_and_runs():
    wide, narrow = (in_terminal("A title", "MAML", LINES, NOTES, width) for width in (100, 99))
    for only in ("Support-set", "43.00 ± 0.50", "Runs"):
        assert only in wide
        assert only not in narrow


TABLES, TIERS = load()


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(("table", "tier"), [(table, name) for name, tier in TIERS.items() for table in tier.tables])
def test_every_table_of_tracked_records_fits_the_terminal(table, tier, width):
    own, records = TABLES[table], tracked_records(TABLES[table], TIERS[tier])
    lines = build_lines(own, records)
    text = in_terminal(own.title, own.baseline.label, lines, notes(own, TIERS[tier], records), width)
    assert_fits(text, lines, width)


def estimates(low: float, high: float):
    """With intervals as wide as two seeds give them, or infinite."""
    values = st.floats(low, high)
    bounded = st.builds(lambda mean, half: Estimate(mean, mean - half, mean + half, 2), values, st.floats(0, 1300))
    return st.none() | bounded | values.map(lambda mean: Estimate(mean, -math.inf, math.inf, 1))


@given(
    st.lists(
        st.builds(
            Line,
            label=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=90),
            source=st.none() | st.floats(0, 100),
            quoted=st.booleans(),
            accuracy=st.floats(0, 100).map(lambda mean: Estimate(mean, mean - 9, mean + 9, 600)),
            seeds=estimates(0, 100),
            support=st.floats(0, 100).map(lambda mean: Estimate(mean, mean - 9, mean + 9, 600)),
            difference=estimates(-100, 100),
            source_difference=st.none() | st.floats(-100, 100),
            verdict=st.sampled_from(
                ["gain confirmed", "gain excluded, less accurate, equivalent within 0.87 points", "baseline", "—"]
            ),
            runs=st.integers(0, 9999),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([80, 100]),
)
def test_any_lines_fit_the_terminal(lines, width):
    assert_fits(in_terminal("A title", "a baseline " * 5, lines, ["a note " * 40, "x" * 150], width), lines, width)


def test_markdown_has_a_row_a_line_and_every_note():
    text = markdown("A title", "MAML", LINES, NOTES)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
    assert rows[0] == [name.format(baseline="MAML") for name in HEADER]
    assert set("".join(rows[1])) == {":", "-"}
    assert rows[2:] == [list(line.cells()) for line in LINES]
    assert text.startswith("**A title**\n\n|")
    assert text.endswith("\n\n- Data: made up, 5% of it.\n- Code: commit abc_def.\n")


def test_the_dashes_of_a_markdown_table_follow_its_cells():
    rows = markdown("A title", "MAML", LINES, NOTES).splitlines()
    rule = next(row for row in rows if row.startswith("| :-"))
    dashes = [cell.count("-") for cell in rule.strip("|").split("|")]
    for width, name, *cells in zip(dashes, HEADER, *(line.cells() for line in LINES), strict=True):
        needed = max(len(text) for text in [*name.format(baseline="MAML").split(), *cells])
        assert width == needed or (width < needed and width == max(dashes)) or (width > needed and width == min(dashes))
    assert (min(dashes), max(dashes)) == (NARROWEST, WIDEST)  # both limits are met by these lines, and a width between
    assert len(set(dashes)) > 2


def test_latex_has_a_row_a_line_with_as_many_cells_as_the_alignment_says():
    text = latex("A_title", "MAML", LINES, NOTES)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    (alignment,) = re.findall(r"\\begin{tabular}{(\w+)}", text)
    assert len(body) == len(LINES)
    for row in body:
        assert row.endswith(r" \\")
        assert len(re.split(r"(?<!\\)&", row)) == len(alignment) == len(HEADER)
    assert r"One\_run \& 100\% [more]" in text
    assert r"\caption{A\_title. Data: made up, 5\% of it. Code: commit abc\_def.}" in text
    assert r"48.00 $\pm$ 1.00" in text
    assert text.count(r"\begin{") == text.count(r"\end{")


COMMANDS = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"$\pm$": "±", "$-$": "−",
            **{"\\" + c: c for c in "%_&#${}"}}  # fmt: skip


@given(st.text(st.sampled_from("ab %_&#${}\\~^±−x"), max_size=20))
def test_latex_reads_an_escaped_text_as_the_text_itself(text):
    """Reading as LaTeX does, from the left: each special character is part of a command."""
    escaped, read = forms._escape(text), ""
    while escaped:
        command = next((c for c in sorted(COMMANDS, key=len, reverse=True) if escaped.startswith(c)), None)
        if command is None:
            assert escaped[0] not in "%_&#${}\\~^±−"
        read += COMMANDS[command] if command else escaped[0]
        escaped = escaped[len(command or "x") :]
    assert read == text


def test_a_dash_is_written_as_latex_writes_it():
    assert forms._escape("—") == "--"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw a figure, and look at what was drawn."""
    kept: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda plot, *a, **k: (kept.append(plot), original(plot, *a, **k)))

    def draw(lines, notes=NOTES, baseline="MAML"):
        figure("A title", baseline, lines, notes, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
        return kept[-1]

    yield draw
    monkeypatch.undo()


def dots(axes, marker: str) -> list[float]:
    """Where the marks of a kind stand; an empty line is the legend's."""
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]


def intervals(axes) -> list[list[float]]:
    return [
        [float(x) for x in line.get_xdata()]
        for line in axes.lines
        if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]
    ]


def test_the_figure_has_a_dot_and_an_interval_for_each_row_with_records(drawn):
    left, right = drawn(LINES).axes
    assert dots(left, "o") == [46.0, 48.0, 45.0]
    assert dots(left, "s") == [42.0, 43.0, 41.0]
    assert [45.0, 47.0] in intervals(left)
    assert [41.5, 42.5] in intervals(left)
    assert dots(right, "o") == [2.0, -1.0]
    assert intervals(right) == [[1.25, 2.75]]
    assert [label.get_text() for label in left.get_yticklabels()] == ["MAML", "Sharp-MAML low", "One_run & 100% [more]"]


def test_the_names_of_the_axes_do_not_overlap_with_long_names_of_rows(drawn):
    label = "ascent on a random half of the parameters in every second iteration"
    left, right = drawn([replace(line, label=label) for line in LINES], baseline=label).axes
    left.figure.draw_without_rendering()
    assert left.xaxis.label.get_window_extent().x1 < right.xaxis.label.get_window_extent().x0


def test_the_figure_marks_the_values_of_the_source_beside_the_rows_that_have_one(drawn):
    left, right = drawn(LINES).axes
    assert dots(left, "D") == [47.13, 48.87]
    assert dots(right, "D") == [1.74]


def test_the_margin_of_equivalence_lies_behind_the_differences_and_is_named(drawn):
    plot = drawn(LINES)
    (band,) = plot.axes[1].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.87, 0.87)
    assert "equivalent: a mean difference within 0.87 points" in [text.get_text() for text in plot.legends[0].texts]


def test_the_legend_names_the_source_where_one_of_its_values_is_marked(drawn):
    own = replace(LOW, source=None, source_difference=None)
    of_legend = [[text.get_text() for text in drawn(lines).legends[0].texts] for lines in (LINES, [own])]
    assert "printed by the source (miniImageNet)" in of_legend[0]
    assert len(of_legend[1]) == len(of_legend[0]) - 1


def test_rows_stand_from_top_to_bottom_in_the_order_of_the_table(drawn):
    left, _ = drawn(LINES).axes
    heights = [float(line.get_ydata()[0]) for line in left.lines if line.get_marker() == "o" and len(line.get_ydata())]
    assert heights == sorted(heights, reverse=True) == [3, 2, 1]


def test_intervals_of_two_seeds_far_wider_than_any_difference_leave_the_axes(drawn):
    wide = Line("wide", None, False, LOW.accuracy, LOW.seeds, LOW.support, Estimate(1.0, -90.0, 92.0, 2), None, "", 2)
    assert drawn([BASELINE, wide]).axes[1].get_xlim() == (-25, 25)
    assert drawn([BASELINE, LOW]).axes[1].get_xlim() != (-25, 25)


@pytest.mark.parametrize("lines", [[], [QUOTED], [SINGLE], [BASELINE], [BASELINE] * 12], ids=len)
def test_a_figure_is_written_for_any_number_of_rows(drawn, lines):
    left, right = drawn(lines, ["no records"]).axes
    assert len(dots(left, "o")) == len([line for line in lines if line.accuracy])
    assert left.get_xlabel() == "accuracy, %"
    assert "MAML" in right.get_xlabel()


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (
            ["gain excluded"] * 2 + ["gain excluded, less accurate"],
            "gain excluded in 2 rows; gain excluded, less accurate in 1 row.",
        ),
        ([f"not enough runs: about {n} seeds needed" for n in (9, 4)], "not enough runs in 2 rows."),
        ([], "nothing to compare."),
    ],
)
def test_the_sentence_counts_the_verdicts_of_the_rows_that_are_compared(verdicts, said):
    lines = [BASELINE, QUOTED, *(replace(LOW, verdict=verdict) for verdict in verdicts)]
    assert forms.says("MAML", lines) == f"Beside MAML: {said}"


def test_a_figure_is_closed_after_it_was_written(tmp_path):
    before = plt.get_fignums()
    figure("A title", "MAML", LINES, NOTES, tmp_path / "figure.png")
    assert plt.get_fignums() == before
