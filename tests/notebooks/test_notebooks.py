"""The notebooks' sources are diffable, train nothing, and say what is missing; their figures are numbered."""

from __future__ import annotations

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
import typst
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from PIL import Image

from notebooks import __main__ as build
from notebooks.appendix import CAPTION, ROOT, Appendix
from sharp_maml import RecordError, read_result

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINING = {"meta_gradient", "train", "meta_loss", "adapt", "evaluate", "measure", "judge"}


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as (data, metadata)."""
    outputs = []

    def display(item, *, raw=False, metadata=None):
        outputs.append((item if raw else item.data, metadata or {}))

    monkeypatch.setattr("notebooks.appendix.display", display)
    monkeypatch.delenv("RESULTS", raising=False)
    return outputs


def code(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_there_are_seven_chapters():
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_sources_are_valid_stripped_of_outputs_and_written_one_way(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "code" or "chapter." not in cell.source  # code that would be shown as text
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n" == text


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_chapter_has_its_number_ends_with_its_sources_and_trains_nothing(path):
    cells = nbformat.read(path, as_version=4).cells
    number = int(path.stem[:2])
    assert cells[0].source.startswith(f"# {number} ")
    assert f"Appendix({number})" in code(path)
    assert cells[-1].source == "chapter.sources()"
    called = {
        getattr(n.func, "attr", getattr(n.func, "id", ""))
        for n in ast.walk(ast.parse(code(path)))
        if isinstance(n, ast.Call)
    }
    assert not called & TRAINING


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_chapter_says_first_what_was_found_and_has_at_most_three_figures(path):
    """A table of accuracies draws what its tiers have: one table of a chapter has figures, the others none."""
    cells = nbformat.read(path, as_version=4).cells
    assert "## What was found" in "".join(cell.source for cell in cells[:3])
    figures = len(re.findall(r"chapter\.(?:claim_figure|figure|image)\(", code(path)))
    tables = len(re.findall(r"chapter\.accuracies\((?![^)]*figures=False)", code(path)))
    assert figures + 3 * tables <= 3


def test_every_claim_is_shown_in_a_chapter():
    text = "".join(map(code, PATHS))
    claims = {path.stem for path in (ROOT / "records/theory/claims").glob("*.json")}
    assert claims
    assert claims <= set(re.findall(r'"([a-z]+_[a-z_]+)"', text))


def test_a_missing_record_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", str(tmp_path))
    chapter = Appendix(2)
    with pytest.raises(RecordError, match=r"rate_slope\.json is missing; make it with: make theory"):
        chapter.claims("rate_slope")
    with pytest.raises(FileNotFoundError, match="make reproduce-table1 TABLE=table1"):
        chapter.accuracies("table1")


def test_figures_are_numbered_by_chapter_and_captions_follow_them(shown):
    chapter = Appendix(7)
    for _ in range(2):
        chapter.figure(Figure(), "What it shows.")
    bundles = [(data, metadata) for data, metadata in shown if not isinstance(data, str)]
    assert [data["text/plain"] for data, _ in bundles] == ["Figure 7.1", "Figure 7.2"]
    assert all(metadata[CAPTION] == "What it shows." for _, metadata in bundles)
    assert [data for data, _ in shown if isinstance(data, str)] == [f"*Figure 7.{n}.* What it shows." for n in (1, 2)]


def test_the_end_lists_every_record_that_was_read_with_its_commit(shown):
    chapter = Appendix(2)
    chapter.claims("rate_slope", "rate_bound")
    chapter.sources()
    commit = read_result(ROOT / "records/theory/claims/rate_slope.json", "claim").provenance["commit"][:10]
    text = "".join(data for data, _ in shown)
    assert f"| `records/theory/claims/rate_slope.json` | {commit} |" in text
    assert "rate_bound.json" in text
    assert "make theory BUDGET=full" in text


def test_the_table_of_claims_says_what_the_records_say(shown):
    Appendix(3).claims("lemma_literal", "lemma_single")
    rows = [line for line in shown[0][0].splitlines() if line.startswith("| `")]
    assert "| the source | proved exactly | refuted |" in rows[0]
    assert "| derived here | proved exactly | supported | 3 of 3 |" in rows[1]


def test_an_unknown_chapter_is_an_error(capsys):
    assert build.main(["--only", "77"]) == 2
    assert "no notebook begins with 77" in capsys.readouterr().err


def figure(**forms: str):
    output = {"data": {"text/plain": "Figure 2.3", **forms}, "metadata": {CAPTION: "C `c`."}}
    caption = {"data": {"text/markdown": "*Figure 2.3.* C `c`."}, "metadata": {CAPTION: True}}
    text = {"data": {"text/markdown": "| a |\n|---|\n| $x^2$ |"}, "metadata": {}}
    cells = [{"cell_type": "markdown", "source": "# 2 A chapter"}, {"cell_type": "code", "source": "secret()"}]
    cells[1]["outputs"] = [output, caption, text]
    return nbformat.from_dict({"cells": cells})


def pixel() -> str:
    file = BytesIO()
    Image.new("RGB", (1, 1)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


PIXEL = pixel()


def test_on_paper_a_figure_is_its_pdf_with_a_caption_and_a_label_and_numbers_are_left_to_the_typesetter(tmp_path):
    notebook = figure(**{"image/png": PIXEL, "application/pdf": "Yg=="})
    text = build.markdown(notebook, tmp_path, printed=True)
    assert (tmp_path / "figures/2-3.pdf").read_bytes() == b"b"
    latex = build.write_latex(tmp_path, text).read_text()
    assert "\\section{A chapter}" in latex
    assert "{figures/2-3.pdf}\n\\caption{C \\protect\\texttt{c}.}\\label{fig:2.3}\n\\end{figure}" in latex
    assert "Figure 2.3" not in latex
    assert "secret" not in latex


def test_a_page_stands_alone_with_numbered_figures_and_without_a_script(tmp_path):
    page = tmp_path / "page.html"
    build.write_html(page, "T", build.markdown(figure(**{"image/png": PIXEL, "application/pdf": "Yg=="}), tmp_path))
    html = " ".join(page.read_text().split())
    assert "<em>Figure 2.3.</em> C <code>c</code>.</figcaption>" in html
    assert html.count("<em>Figure 2.3.</em>") == 1  # the caption for Jupyter is left out
    assert f'src="data:image/png;base64,{PIXEL}"' in html
    assert "url(data:font/woff" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "secret" not in html


def test_a_pdf_is_made_without_latex(tmp_path):
    text = build.markdown(figure(**{"image/png": PIXEL}), tmp_path, printed=True)
    assert build.write_pdf(tmp_path, text).read_bytes().startswith(b"%PDF-")
    shown = json.loads(typst.query(tmp_path / "appendix.typ", "figure.where(kind: image)"))
    assert [each["label"] for each in shown] == ["<fig:2.3>"]


def formulas(path: Path) -> list[str]:
    """The formulas of a notebook or of a page of the docs, by their dollars."""
    if path.suffix == ".md":
        return re.findall(r"\$`(.+?)`\$", path.read_text(encoding="utf-8"))
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [display or inline for display, inline in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text, re.S)]


PAGES = [*PATHS, *sorted((ROOT / "docs").rglob("*.md"))]
INVISIBLE = {0x2061, *map(ord, "\n\u00a0\u2003")}
CHARACTERS = set(TTFont(ROOT / "notebooks/math.woff").getBestCmap())


@pytest.mark.parametrize("path", [path for path in PAGES if formulas(path)], ids=lambda path: path.stem)
def test_every_formula_converts_and_its_characters_are_in_the_font(path):
    """A norm is written with lVert and rVert: of two bars alike, Typst sets what follows over the second one."""
    assert not [formula for formula in formulas(path) if r"\|" in formula]
    text = "\n\n".join(f"${formula}$" for formula in formulas(path))
    html = build._converted(text, "html", "--mathml")
    found = [unescape(each) for each in re.findall(r"<annotation[^>]*>(.*?)</annotation>", html, re.S)]
    assert found == formulas(path)
    drawn = "".join(re.findall(r">([^<]+)</m(?:i|o|n|text)>", html))
    assert {ord(each) for each in unescape(drawn)} - CHARACTERS - INVISIBLE == set()
    assert build._converted(text, "typst").count("$") == 2 * len(found)


def test_the_font_has_the_italic_letters_that_browsers_put_for_letters():
    italic = set(range(0x1D434, 0x1D468)) | set(range(0x1D6E2, 0x1D71C))
    assert italic - {0x1D455} <= CHARACTERS  # italic h stands elsewhere, among the letterlike symbols
    assert 0x210E in CHARACTERS


@pytest.mark.parametrize("formula", [r"$\frac{1$", r"$\nosuchthing x$"])
def test_a_formula_that_cannot_be_read_is_an_error(formula):
    with pytest.raises(RuntimeError, match="convert"):
        build._converted(formula, "html", "--mathml")


def test_a_star_in_a_statement_is_no_markup(shown):
    Appendix(2).claims("rate_constant")
    assert r"F_0(x\*)" in shown[0][0]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the kernel's client leaves its event loop to the end of the process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_notebook_with_a_missing_record_fails_with_the_command(tmp_path):
    code = "import sys; from notebooks.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = run(code, "--only", "02", "--results", tmp_path, "--output", tmp_path / "pages")
    assert done.returncode == 1
    assert "is missing; make it with: make theory" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_fragment_is_typeset_by_latex(tmp_path):
    """With the packages that its first line names, a section for a chapter, and figures with their labels."""
    code = (
        "import sys; from pathlib import Path; from notebooks.__main__ import execute, markdown, write_latex; "
        "to = Path(sys.argv[2]); write_latex(to, markdown(execute(Path(sys.argv[1])), to, printed=True))"
    )
    assert run(code, next(path for path in PATHS if path.stem.startswith("02")), tmp_path).returncode == 0
    text = (tmp_path / "appendix.tex").read_text()
    assert "\\section{The stationarity rate}" in text
    assert re.findall(r"\\label\{fig:(2\.\d+)\}", text) == ["2.1", "2.2", "2.3"]
    packages = re.search(r"Needs ([\w, ]+)\.", text)[1].replace(" ", "")
    preamble = f"\\documentclass{{article}}\\usepackage{{{packages}}}"
    (tmp_path / "paper.tex").write_text(f"{preamble}\\begin{{document}}\\input{{appendix}}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
