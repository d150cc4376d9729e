"""Every claim has a figure that says a sentence and is drawn from its record at the size of a page."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib import style
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from sharp_maml.paper import COLUMN, PAGE, wrapped
from theory.check.claim import Claim, Curve, Evidence, Item, Rule, Verdict, registry
from theory.check.figures import CONTROL, draw, lines, plan
from theory.check.verdicts import TRACKED, read

PARTS = {name.split("_")[0] for name in registry()}


@pytest.fixture(scope="module")
def verdicts():
    return {verdict.claim.id: verdict for verdict in read(TRACKED)}


@pytest.mark.theory
@pytest.mark.parametrize("name", registry())
def test_a_claim_is_drawn_as_pixels_and_as_lines_at_its_size_in_print(
    name: str, verdicts, tmp_path, monkeypatch
) -> None:
    drawn, original = [], Figure.savefig

    def save(figure: Figure, path: Path, **options) -> None:
        original(figure, path, **options)
        if path.suffix == ".png":
            labels = [label for axes in figure.axes for label in (axes.title, axes.xaxis.label, axes.yaxis.label)]
            texts = [figure._suptitle, *(label for label in labels if label.get_text()), *figure.legends]
            drawn.append((figure, [text.get_window_extent() for text in texts]))

    monkeypatch.setattr(Figure, "savefig", save)
    path = draw(verdicts[name], tmp_path)
    assert path.stat().st_size > 10_000
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    ((figure, boxes),) = drawn
    assert figure.get_figwidth() == (COLUMN if len(figure.axes) == 1 else PAGE)
    assert all(axes.has_data() for axes in figure.axes)
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, "a text is cut"
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, "a text is cut"
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def test_every_claim_has_a_figure_and_every_figure_a_claim() -> None:
    planned = {f"{part}_{name}" for part in PARTS for name in import_module(f"theory.{part}.figures").FIGURES}
    assert planned == set(registry())


@pytest.mark.parametrize("name", registry())
def test_a_figure_says_one_sentence_that_is_no_one_elses(name: str) -> None:
    says = plan(name).says
    assert says[0].isupper()
    assert says[-1] == "."
    assert [other for other in registry() if plan(other).says == says] == [name]


def test_what_did_not_come_out_as_expected_is_not_said_without_that(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(Figure, "suptitle", lambda figure, text: seen.append(text))
    claim = replace(registry()["lemma_morse"], controls={"wrong": lambda budget, seed: Evidence(())})
    evidence = Evidence((Item("n", 1, 0),), (Curve("MAML", [0, 1], [1, 2]),))
    for outcome in ("supported", "inconclusive"):
        verdict = Verdict(claim, {"": outcome, "wrong": "refuted"}, {"": evidence, "wrong": evidence}, {})
        draw(verdict, tmp_path)
    good, bad = (" ".join(text.split()) for text in seen)
    assert good == plan("lemma_morse").says
    assert bad == f"Not as expected, inconclusive: {good}"


def test_the_colour_of_controls_is_theirs_alone() -> None:
    with style.context("sharp_maml.paper"):
        figure = Figure()
        colours = [to_hex(f"C{i}") for i in range(8)]
        axes = figure.subplots()
        rule = Rule("small", below=1, above=1)
        claim = Claim(
            rule, lambda budget, seed: Evidence(()), {"wrong": lambda budget, seed: Evidence(())}, "illustration"
        )
        mine = Evidence((), (Curve("mine", [1, 2], [1, 2]), Curve("line", [1, 2], [1, 2], "predicted")))
        wrong = Evidence((), (Curve("not mine", [1, 2], [2, 1], "control"),))
        lines(Verdict(claim, {}, {"": mine, "wrong": wrong}, {}), axes)
    assert len(set(colours)) == 8
    assert CONTROL["color"].lower() not in colours
    assert [line.get_label() for line in axes.lines if line.get_color() == CONTROL["color"]] == ["not mine"]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", ":"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("one two three four", 14, "one two\nthree four"),
        ("short", 14, "short"),
        ("$a long formula that stays$", 5, "$a long formula that stays$"),
    ],
)
def test_a_title_is_wrapped_into_lines_of_about_one_length(text: str, width: int, expected: str) -> None:
    assert wrapped(text, width) == expected
