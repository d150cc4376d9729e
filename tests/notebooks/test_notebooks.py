"""The notebooks' sources are diffable, train nothing, and say what is missing; their figures are numbered."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure

from notebooks import __main__ as build
from notebooks.appendix import CAPTION, ROOT, Appendix

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


def test_there_are_six_chapters():
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_sources_are_valid_stripped_of_outputs_and_written_one_way(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
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


def test_every_claim_is_shown_in_a_chapter():
    text = "".join(map(code, PATHS))
    claims = {path.stem for path in (ROOT / "docs/theory/records").glob("*.json")}
    assert claims
    assert claims <= set(re.findall(r'"([a-z]+_[a-z_]+)"', text))


def test_a_missing_record_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS", str(tmp_path))
    chapter = Appendix(2)
    with pytest.raises(FileNotFoundError, match=r"rate_slope\.json is missing; make it with: make theory"):
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
    commit = json.loads((ROOT / "docs/theory/records/rate_slope.json").read_text())["commit"][:10]
    text = "".join(data for data, _ in shown)
    assert f"| `docs/theory/records/rate_slope.json` | {commit} |" in text
    assert "rate_bound.json" in text
    assert "python -m theory --budget full" in text


def test_the_table_of_claims_says_what_the_records_say(shown):
    Appendix(3).claims("lemma_literal", "lemma_single")
    rows = [line for line in shown[0][0].splitlines() if line.startswith("| `")]
    assert "| the source | proved exactly | refuted |" in rows[0]
    assert "| derived here | proved exactly | supported | 3 of 3 |" in rows[1]


def test_an_unknown_chapter_is_an_error(capsys):
    assert build.main(["--only", "77"]) == 2
    assert "no notebook begins with 77" in capsys.readouterr().err


def test_a_pdf_output_becomes_a_numbered_figure_and_its_html_caption_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "markdown2latex", lambda text: text)
    figure = {
        "data": {"image/png": "YQ==", "application/pdf": "Yg==", "text/plain": "Figure 2.3"},
        "metadata": {CAPTION: "C"},
    }
    text = build._output(figure, tmp_path)
    assert "\\caption{C}\n\\label{fig:2.3}" in text
    assert "{{figures/2.3}.pdf}" in text
    assert (tmp_path / "2.3.pdf").read_bytes() == b"b"
    assert build._output({"data": {"text/markdown": "x"}, "metadata": {CAPTION: True}}, tmp_path) == ""
    assert build._output({"data": {"text/markdown": "x"}, "metadata": {}}, tmp_path) == "x"


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
@pytest.mark.skipif(shutil.which("pandoc") is None, reason="pandoc is not installed")
def test_the_fragment_has_the_sections_and_figures_of_the_notebooks(tmp_path):
    path = next(path for path in PATHS if path.stem.startswith("02"))
    code = (
        "import sys; from pathlib import Path; from notebooks.__main__ import execute, write_latex; "
        "write_latex([execute(Path(sys.argv[1]))], Path(sys.argv[2]))"
    )
    assert run(code, path, tmp_path).returncode == 0
    text = (tmp_path / "appendix.tex").read_text()
    assert "\\section{The stationarity rate}" in text
    assert re.findall(r"\\label\{fig:(2\.\d)\}", text)[:2] == ["2.1", "2.2"]
