r"""Execute the notebooks: `python -m notebooks [--results DIR] [--only 02] [--output results/appendix]`.

Each becomes a page of HTML; all become one PDF, and a LaTeX fragment for `\input` with numbered figures. A page stands
alone, with formulas as MathML. Records are the tracked ones, or with `--results` fresh ones. A notebook that fails, or
misses a record, ends the command with exit code 1 and the command that makes the record.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pypandoc
import typst
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from rich.console import Console

from notebooks.appendix import CAPTION

HERE = Path(__file__).parent
SECONDS = 300
"""A cell that takes longer is stuck: nothing is trained here."""
TITLE = "Sharp-MAML: appendix"
HEAD = r"""% Made by `make notebooks`. Needs graphicx, longtable, booktabs, array, calc, amsmath, amssymb, etoolbox.
% For figures numbered by chapter: \numberwithin{figure}{section}; for the wide tables:
% \AtBeginEnvironment{longtable}{\scriptsize}
\providecommand{\tightlist}{\setlength{\itemsep}{0pt}\setlength{\parskip}{0pt}}
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
            write_html(page, title(executed[-1]), markdown(executed[-1], options.output))
            console.print(f"{page}")
    if options.only:
        return 0
    index = options.output / "index.html"
    write_html(index, TITLE, contents(paths, executed))
    console.print(f"{index}")
    whole = "\n\n\\clearpage\n\n".join(markdown(each, options.output, printed=True) for each in executed)
    console.print(f"{write_latex(options.output, whole)}, for \\input; its figures are beside it")
    console.print(f"{write_pdf(options.output, whole)}")
    return 0


def execute(path: Path, results: Path | None = None) -> Any:
    """A notebook with its outputs.

    Args:
        path: The notebook.
        results: Directory of fresh records; None: the tracked ones.

    Raises:
        CellExecutionError: A cell failed, for instance because a record is missing.
    """
    notebook = nbformat.read(path, as_version=4)
    processor = ExecutePreprocessor(timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(HERE)}})
    processor.nb = notebook
    processor.execute(env={**os.environ, "RESULTS": "" if results is None else str(results.resolve())})
    return notebook


def title(notebook: Any) -> str:
    """The heading of the first cell."""
    return str(notebook.cells[0].source).splitlines()[0].lstrip("# ")


def contents(paths: Sequence[Path], notebooks: Sequence[Any]) -> str:
    """The page that links to the others, in markdown."""
    names = [title(notebook).lstrip("0123456789 ") for notebook in notebooks]
    links = [f"1. [{name}]({path.stem}.html)" for path, name in zip(paths, names, strict=True)]
    return "\n".join([f"# {TITLE}\n", *links, "\nAs one document: [PDF](appendix.pdf)."])


def markdown(notebook: Any, directory: Path, *, printed: bool = False) -> str:
    """What a reader is shown of an executed notebook, in pandoc's markdown: no code, and figures with their captions.

    Args:
        notebook: With its outputs.
        directory: Gets the figures, `figures/CHAPTER-NUMBER.png`, and `.pdf` where there is one.
        printed: For paper, which takes a figure's PDF where there is one, and numbers chapters and figures itself.

    Returns:
        The text. Figures have the identifiers `fig:CHAPTER.NUMBER`.
    """
    parts: list[str] = []
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"^# \d+ ", "# ", cell.source) if printed else cell.source)
        for output in cell.get("outputs", []):
            data, caption = output.get("data", {}), output.get("metadata", {}).get(CAPTION)
            if "image/png" in data:
                label = data["text/plain"].removeprefix("Figure ")
                form = "application/pdf" if printed and "application/pdf" in data else "image/png"
                file = f"figures/{label.replace('.', '-')}.{form.split('/')[1]}"
                (directory / file).write_bytes(base64.b64decode(data[form]))
                number = "" if printed else f"*Figure {label}.* "
                parts.append(f"![{number}{caption}]({file}){{#fig:{label} width=100%}}")
            elif "text/markdown" in data and caption is None:
                parts.append(data["text/markdown"])
    return "\n\n".join(parts)


def write_html(path: Path, title: str, text: str) -> None:
    """A page that stands alone: figures and style are in it, formulas are MathML, and there is no script."""
    options = ["--standalone", "--embed-resources", "--mathml", "--metadata=lang:en", f"--variable=pagetitle:{title}"]
    options += [f"--css={HERE / 'page.css'}", f"--css={HERE / 'math.css'}", f"--resource-path={path.parent}"]
    path.write_text(_converted(text, "html", *options), encoding="utf-8")


def write_latex(directory: Path, text: str) -> Path:
    """The appendix as one fragment: a section each chapter; figures with captions and labels `fig:N.M`."""
    body = re.sub(r"[^\x00-\x7f]", lambda match: _ASCII.get(match[0], match[0]), _converted(text, "latex"))
    path = directory / "appendix.tex"
    path.write_text(HEAD + body, encoding="utf-8")
    return path


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


def write_pdf(directory: Path, text: str) -> Path:
    """The appendix as one document, typeset by Typst with the fonts that it brings along."""
    source, path = directory / "appendix.typ", directory / "appendix.pdf"
    source.write_text((HERE / "paper.typ").read_text(encoding="utf-8") + _converted(text, "typst"), encoding="utf-8")
    typst.compile(source, output=path, ignore_system_fonts=True)
    return path


def _converted(text: str, form: str, *options: str) -> str:
    """The text by pandoc; a formula that it cannot read, or a figure that it cannot find, is an error."""
    options = (*options, "--fail-if-warnings")
    return str(pypandoc.convert_text(text, form, "markdown-superscript-subscript", options))


if __name__ == "__main__":
    sys.exit(main())
