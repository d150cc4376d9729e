r"""Execute the notebooks: `python -m notebooks [--results DIR] [--only 02] [--output results/appendix]`.

Each becomes a page of HTML; where pandoc is found, all become a LaTeX fragment for `\input` with numbered figures, and
where LaTeX is found too, one PDF. Records are the tracked ones, or with `--results` fresh ones. A notebook that fails,
or misses a record, ends the command with exit code 1 and the command that makes the record.
"""

from __future__ import annotations

import argparse
import base64
import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2latex
from rich.console import Console

from notebooks.appendix import CAPTION

HERE = Path(__file__).parent
SECONDS = 300
"""A cell that takes longer is stuck: nothing is trained here."""
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,margin=25mm]{geometry}
\usepackage{amsmath,amssymb,graphicx,longtable,booktabs,array,calc,etoolbox,hyperref,fancyvrb,textcomp}
\usepackage{iftex}
\ifPDFTeX\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\fi
\providecommand{\tightlist}{\setlength{\itemsep}{0pt}\setlength{\parskip}{0pt}}
\providecommand{\pandocbounded}[1]{#1}
\numberwithin{figure}{section}
\setlength{\emergencystretch}{3em}
\AtBeginEnvironment{longtable}{\scriptsize}
\begin{document}
\input{appendix}
\end{document}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m notebooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="directory of fresh records; default: the tracked ones")
    parser.add_argument("--only", nargs="+", metavar="NUMBER", help="such as 02; default: all, then LaTeX and PDF too")
    parser.add_argument("--output", type=Path, default=Path("results/appendix"), help="default: results/appendix")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    paths = [path for path in sorted(HERE.glob("[0-9]*.ipynb")) if not options.only or path.stem[:2] in options.only]
    if not paths:
        print(f"error: no notebook begins with {' or '.join(options.only)}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    executed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, future in [(path, pool.submit(execute, path, options.results)) for path in paths]:
            try:
                executed.append(future.result())
            except CellExecutionError as error:
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"error: {path.name}: {error.ename}: {error.evalue}", file=sys.stderr)
                return 1
            page = options.output / f"{path.stem}.html"
            page.write_text(to_html(executed[-1]), encoding="utf-8")
            console.print(f"{page}")
    if options.only:
        return 0
    index = options.output / "index.html"
    index.write_text(contents(paths, executed), encoding="utf-8")
    console.print(f"{index}")
    if shutil.which("pandoc") is None:
        console.print("no LaTeX fragment and no PDF: pandoc is not installed")
        return 0
    fragment = write_latex(executed, options.output)
    console.print(f"{fragment}, for \\input; its figures are beside it")
    engine = next(filter(shutil.which, ("pdflatex", "tectonic", "xelatex", "lualatex")), None)
    if engine is None:
        console.print("no PDF: no LaTeX is installed (pdflatex, tectonic, xelatex or lualatex)")
        return 0
    return make_pdf(engine, options.output, console)


def execute(path: Path, results: Path | None = None) -> Any:
    """A notebook with its outputs.

    Args:
        path: The notebook.
        results: Directory of fresh records; None: the tracked ones.

    Raises:
        CellExecutionError: A cell failed, for instance because a record is missing.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    )
    client.execute(env={**os.environ, "RESULTS": "" if results is None else str(results.resolve())})
    return notebook


def title(notebook: Any) -> str:
    """The heading of the first cell."""
    return str(notebook.cells[0].source).splitlines()[0].lstrip("# ")


def to_html(notebook: Any) -> str:
    """A page without code, which stands alone but for the script that draws formulas."""
    page, _ = HTMLExporter(template_name="classic", exclude_input=True).from_notebook_node(
        notebook, {"metadata": {"name": title(notebook)}}
    )
    return str(page)


def contents(paths: Sequence[Path], notebooks: Sequence[Any]) -> str:
    """The page that links to the others."""
    lines = [
        f'<li><a href="{path.stem}.html">{html.escape(title(notebook))}</a></li>'
        for path, notebook in zip(paths, notebooks, strict=True)
    ]
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Sharp-MAML: appendix</title>'
        f"<h1>Sharp-MAML: appendix</h1><ol>{''.join(lines)}</ol></html>\n"
    )


def write_latex(notebooks: Sequence[Any], directory: Path) -> Path:
    """All notebooks as one fragment: a section each, without code; figures with captions and labels `fig:N.M`."""
    figures = directory / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir()
    parts: list[str] = []
    for notebook in notebooks:
        parts.append("\\clearpage\n" if parts else "")
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                parts.append(_latex(re.sub(r"^# \d+ ", "# ", cell.source)))  # LaTeX numbers sections itself
            for output in cell.get("outputs", []):
                parts.append(_output(output, figures))
    path = directory / "appendix.tex"
    path.write_text("% Made by `make notebooks`. Needs graphicx, longtable, booktabs, amsmath.\n" + "\n\n".join(parts))
    return path


def _output(output: Any, figures: Path) -> str:
    data = output.get("data", {})
    caption = output.get("metadata", {}).get(CAPTION)
    if "image/png" in data:
        label = data["text/plain"].removeprefix("Figure ")
        form = "application/pdf" if "application/pdf" in data else "image/png"
        file = figures / f"{label}.{form.split('/')[1]}"
        file.write_bytes(base64.b64decode(data[form]))
        return (
            "\\begin{figure}[htbp]\n\\centering\n"
            f"\\includegraphics[width=\\linewidth,height=0.8\\textheight,keepaspectratio]{{{{figures/{label}}}{file.suffix}}}\n"
            f"\\caption{{{_latex(caption).strip()}}}\n\\label{{fig:{label}}}\n\\end{{figure}}\n"
        )
    return _latex(data["text/markdown"]) if "text/markdown" in data and caption is None else ""


def _latex(markdown: str) -> str:
    text = str(markdown2latex(markdown))
    return re.sub(r"[^\x00-\x7f]", lambda match: _ASCII.get(match[0], match[0]), text)


_ASCII = {
    "±": r"\(\pm\)",
    "—": "---",
    "–": "--",
    "×": r"\(\times\)",
    "≤": r"\(\le\)",
    "▼": "v",
    "▲": "\\^{}",
    "²": r"\(^2\)",
}


def make_pdf(engine: str, directory: Path, console: Console) -> int:
    """Typeset `appendix.pdf` from the fragment; returns the exit code."""
    (directory / "sharp-maml.tex").write_text(PREAMBLE)
    command = [
        engine,
        *([] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]),
        "sharp-maml.tex",
    ]
    for _ in range(1 if engine == "tectonic" else 2):  # the second run knows the references
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, errors="replace")
        if done.returncode:
            print(f"error: {' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}", file=sys.stderr)
            return 1
    (directory / "sharp-maml.pdf").replace(directory / "appendix.pdf")
    console.print(f"{directory / 'appendix.pdf'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
