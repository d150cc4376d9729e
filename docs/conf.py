"""Sphinx settings of the documentation: `make docs`."""

import re
import sys
from pathlib import Path
from typing import Any

import pypandoc
from docutils import nodes

sys.path.insert(0, str(Path(__file__).parents[1]))  # `synthetic` and `theory` are not installed

from publish import explorer
from theory.check.verdicts import read

project = "sharp-maml"
author = "The sharp-maml developers"
copyright = "the sharp-maml developers, MIT licence"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["**/records", "README.md"]

default_role = "code"  # the docstrings' single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Params": "Params", "LossFn": "LossFn", "QueryLoss": "QueryLoss", "Logits": "Logits"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "furo"
html_title = "sharp-maml"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
html_math_renderer = "mathml"
html_static_path = ["../notebooks/math.css", "../notebooks/math.woff"]
html_css_files = ["math.css"]


def write_formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """A formula as MathML, which browsers draw without a script; one that pandoc cannot read is an error."""
    fence = "$$" if isinstance(node, nodes.math_block) else "$"
    page = pypandoc.convert_text(
        f"{fence}{node.astext()}{fence}", "html", "markdown", ["--mathml", "--fail-if-warnings"]
    )
    writer.body.append(page.strip().removeprefix("<p>").removesuffix("</p>"))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Docstrings write norms as |x|, a substitution to reStructuredText; pages write formulas as GitHub reads them."""

    def escape(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
        lines[:] = [re.sub(r"(?<!\\)\|", r"\\|", line) for line in lines]

    app.connect("autodoc-process-docstring", escape)

    def plain_dollars(app: Any, name: str, source: list[str]) -> None:
        source[0] = source[0].replace("$`", "$").replace("`$", "$")

    app.connect("source-read", plain_dollars)

    def place_of_alias(app: Any, module: str, name: str) -> str | None:
        return module if name in autodoc_type_aliases else None  # Python says `builtins`, which has no page of source

    app.connect("viewcode-follow-imported", place_of_alias)

    def write_explorer(app: Any, error: Exception | None) -> None:
        if error is None and app.builder.format == "html":
            records = Path(__file__).parents[1] / "records"
            page = explorer.page(records, read(records / "theory"))
            (Path(app.outdir) / "explorer.html").write_text(page, encoding="utf-8")

    app.connect("build-finished", write_explorer)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
