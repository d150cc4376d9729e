"""Who may import whom: the arrows of the architecture, read from the source and never by importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "sharp_maml", "sharp_maml_command", "synthetic", "theory", "reproductions", "benchmarks", "publish", "notebooks",
    "tests",
)  # fmt: skip
MAY_IMPORT = {
    "sharp_maml": set(),
    "synthetic": {"sharp_maml"},
    "theory": {"sharp_maml", "synthetic"},
    "reproductions": {"sharp_maml", "synthetic"},
    "benchmarks": {"sharp_maml", "reproductions"},
    "notebooks": {"sharp_maml", "synthetic", "theory", "reproductions"},
    "sharp_maml_command": {"sharp_maml", "theory"},
    "publish": {"sharp_maml", "theory", "reproductions", "benchmarks", "tests"},
}
MEASURED = {f"sharp_maml.{name}" for name in ("base", "compiled", "distributed", "meta", "methods", "models")}
"""What `benchmarks` measure from within: they may import these modules of the core, and its commands."""
APART = {f"sharp_maml.{name}" for name in ("train", "evaluate", "progress", "classify")}
"""What `__init__` does not import, because a function there would hide the module of its name, or is for few; importing
from them is importing a public name."""
PAPER = "sharp_maml.paper"
"""What every package that draws imports; `__init__` does not, because matplotlib is an extra."""
CORE = ("base", "tree", "ascent", "meta")


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[str, str]]:
    """Each import of a source text as (module, name); name is empty for `import module`. Relative ones are resolved."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((target, alias.name) for alias in node.names)


def exported(package: str, root: Path = ROOT) -> set[str]:
    """The names in `__all__` of a package."""
    path = root / package / "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def wrong(source: str, module: str, *, is_package: bool = False, root: Path = ROOT) -> list[str]:
    """What is wrong with the imports of one module that lies in one of the packages; empty where nothing is."""
    package, found = module.split(".")[0], []
    for target, name in imports(source, module, is_package=is_package):
        top = target.split(".")[0]
        if top in ("sympy", "flint") and package != "theory":
            found.append(f"{module} imports {target}: exact arithmetic belongs to theory")
        if package != "tests" and RUN & {target, f"{target}.{name}"}:
            found.append(f"{module} imports the command {target} {name}")
        is_start = (module, target) == ("sharp_maml.__main__", "sharp_maml_command")
        if top not in PACKAGES or top == package or package == "tests" or is_start:
            continue
        if top not in MAY_IMPORT[package]:
            found.append(f"{module} imports {target}: {package} may import {sorted(MAY_IMPORT[package]) or 'nothing'}")
        elif package == "publish" or top in ("reproductions", "theory"):
            # packages with an empty `__init__`: what shows and draws their records is public
            if name.startswith("_"):
                found.append(f"{module} imports {name} from {target}: only public names")
        elif package == "benchmarks" and MEASURED & {target, f"{target}.{name}"}:
            pass
        elif package == "sharp_maml_command" and top == "sharp_maml":  # what it calls, from anywhere in the core
            if name.startswith("_"):
                found.append(f"{module} imports {name} from {target}: only public names")
        elif target == PAPER and not name.startswith("_"):
            pass
        elif target in APART or f"{target}.{name}" in APART:
            if package not in ("reproductions", "benchmarks"):
                found.append(f"{module} imports {target} {name}: that is for studies and the command")
        elif target != top or not name:
            found.append(f"{module} imports {target}: only public names, `from {top} import ...`")
        elif name not in exported(top, root):
            found.append(f"{module} imports {name} from {top}, whose __init__ does not export it")
    return found


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


RUN = {
    module_name(path)
    for path in modules("reproductions", "benchmarks", "publish", "notebooks")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
}
"""Commands, which nothing imports from."""


def inside(path: Path) -> set[str]:
    """Modules of the core that a module of the core imports, also where the imported name is a module."""
    found = set()
    every = {module_name(each) for each in modules("sharp_maml")}
    for target, name in imports(
        path.read_text(encoding="utf-8"), module_name(path), is_package=path.stem == "__init__"
    ):
        found |= {each for each in (target, f"{target}.{name}") if each in every}
    return found - {module_name(path)}


@pytest.mark.parametrize("path", modules(*MAY_IMPORT), ids=module_name)
def test_a_module_imports_only_what_its_package_may(path):
    source = path.read_text(encoding="utf-8")
    assert wrong(source, module_name(path), is_package=path.stem == "__init__") == []


@pytest.mark.parametrize("place", range(len(CORE)))
def test_the_core_is_a_chain_base_tree_ascent_meta(place):
    """A link is a file or a package, whose files may import one another and what comes before."""
    files = [path for path in modules("sharp_maml") if module_name(path).split(".")[1:2] == [CORE[place]]]
    used = {name.split(".")[1] for path in files for name in inside(path) if name != "sharp_maml"}
    assert files
    assert used <= set(CORE[: place + 1])


def test_the_core_has_no_circle_of_imports():
    graph = {module_name(path): inside(path) for path in modules("sharp_maml") if path.stem != "__init__"}
    for imported in graph.values():
        imported -= {"sharp_maml"}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("sharp_maml.base") < order.index("sharp_maml.meta") < order.index("sharp_maml.train")


def rooms(path: Path) -> set[str]:
    """The rooms of `theory` that a module there imports from: `check`, `runner`, `rate`, `rate.claims`, ..."""
    found = set()
    for target, _ in imports(path.read_text(encoding="utf-8"), module_name(path)):
        _, *parts = target.split(".") if target.startswith("theory.") else [""]
        if parts:
            found.add(".".join(parts[:2]) if "claims" in parts else parts[0])
    return found


PARTS = ("rate", "lemma", "generalization")
THEORY = {
    "check": {"check"},
    "runner": set(),
    **{part: {"check", "runner", part} for part in PARTS},
    **{f"{part}.claims": {"check", "runner", part, f"{part}.claims"} for part in PARTS},
    "networks": {"check", "runner", "rate", "lemma", "generalization", "networks"},
    "networks.claims": {"check", "networks", "networks.claims"},
    "proofs": {"check", "rate", "generalization", "proofs"},
}
THEORY["generalization.claims"] |= {"rate"}  # the smoothness of F is one formula
"""What each room of `theory` may import: the frame nothing else, a part nothing of another one (but for that formula),
engines no claim."""


@pytest.mark.parametrize("path", [path for path in modules("theory") if path.parent.name != "theory"], ids=module_name)
def test_the_rooms_of_theory_are_apart(path):
    _, *parts = path.relative_to(ROOT).with_suffix("").parts
    assert rooms(path) <= THEORY[".".join(parts[:-1])]


def test_the_shared_runner_needs_no_room_of_theory():
    assert rooms(ROOT / "theory/runner.py") == THEORY["runner"]


def test_nothing_in_the_core_imports_the_training_loop():
    assert [module_name(path) for path in modules("sharp_maml") if "sharp_maml.train" in inside(path)] == []


def test_the_public_names_leave_out_the_modules_that_they_would_hide():
    assert not inside(ROOT / "sharp_maml/__init__.py") & APART


def test_the_command_stands_above_all_and_the_package_only_calls_it():
    """`python -m sharp_maml` is the one arrow upwards."""
    above = [path for path in modules("sharp_maml", "synthetic", "theory", "reproductions", "benchmarks", "notebooks")
             if any(target.split(".")[0] == "sharp_maml_command"
                    for target, _ in imports(path.read_text(encoding="utf-8"), module_name(path)))]  # fmt: skip
    assert above == [ROOT / "sharp_maml/__main__.py"]


def test_every_public_name_is_imported_by_the_package_itself():
    source = (ROOT / "sharp_maml/__init__.py").read_text(encoding="utf-8")
    assert {name for _, name in imports(source, "sharp_maml", is_package=True)} == exported("sharp_maml")


# The controls: what the checks above must refuse.


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("sharp_maml.meta", "import reproductions.tables.cells", "may import nothing"),
        ("sharp_maml.meta", "def f():\n    from synthetic import write_images", "may import nothing"),
        ("sharp_maml.meta", "from tests.sharp_maml import tiny", "may import nothing"),
        ("sharp_maml.estimates", "import sympy", "belongs to theory"),
        ("synthetic.wells", "from flint import fmpq", "belongs to theory"),
        ("synthetic.images", "from sharp_maml.data.cache import write_cache", "only public names"),
        ("synthetic.images", "import sharp_maml", "only public names"),
        ("synthetic.images", "from sharp_maml import cross_entropy", "does not export it"),
        ("synthetic.images", "from sharp_maml import train", "for studies and the command"),
        ("sharp_maml.meta", "from sharp_maml_command import main", "may import nothing"),
        ("sharp_maml_command.repository", "from reproductions.tables.lines import build_lines", "may import"),
        ("sharp_maml_command.repository", "from sharp_maml.evaluate import _entry", "only public names"),
        ("synthetic.images", "from theory import Claim", "may import ['sharp_maml']"),
        ("theory.check.claim", "from reproductions.tables import cells", "may import ['sharp_maml', 'synthetic']"),
        ("reproductions.tables.cells", "from theory import Claim", "may import ['sharp_maml', 'synthetic']"),
        ("reproductions.tables.cells", "from sharp_maml.estimates import Estimate", "only public names"),
        ("reproductions.tables.cells", "from sharp_maml import _pretty", "does not export it"),
        ("notebooks.appendix", "from reproductions.tables.lines import _line", "only public names"),
        ("notebooks.appendix", "from reproductions.tables.__main__ import main", "the command"),
        ("reproductions.landscape.figures", "from reproductions.landscape.flatness import read", "the command"),
        ("benchmarks.page", "from benchmarks import bench", "the command"),
        ("benchmarks.page", "from sharp_maml.tree import dot", "only public names"),
        ("benchmarks.page", "from theory import Claim", "may import ['reproductions', 'sharp_maml']"),
        ("theory.check.claim", "import benchmarks.work", "may import ['sharp_maml', 'synthetic']"),
        (
            "notebooks.appendix",
            "from benchmarks import page",
            "may import ['reproductions', 'sharp_maml', 'synthetic', 'theory']",
        ),
        ("reproductions.tables.cells", "from synthetic.images import render", "only public names"),
        ("publish.pages", "from theory.check.report import _section", "only public names"),
        ("publish.pages", "from benchmarks import bench", "the command"),
        ("theory.check.report", "from publish.pages import pages", "may import ['sharp_maml', 'synthetic']"),
    ],
)
def test_a_wrong_import_is_found(module, source, message):
    (found,) = wrong(source, module)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sharp_maml.meta", "from .tree import dot\nimport torch"),
        ("synthetic.images", "from sharp_maml import Dataset, write_cache"),
        ("theory.counting", "import sympy\nfrom sharp_maml import adapt"),
        ("reproductions.tables.cells", "from sharp_maml.train import train\nfrom sharp_maml import evaluate"),
        ("reproductions.tables.cells", "from reproductions.tables.specification import load"),
        ("sharp_maml_command", "from sharp_maml import distributed\nfrom sharp_maml.evaluate import PRESETS"),
        ("sharp_maml_command.repository", "from theory.check.claim import registry"),
        ("benchmarks.work", "from sharp_maml import distributed, meta_gradient\nfrom sharp_maml.train import train"),
    ],
)
def test_a_right_import_is_not(module, source):
    assert wrong(source, module) == []


@pytest.mark.parametrize(
    ("source", "is_package", "expected"),
    [
        ("from .cache import a, b", False, [("sharp_maml.data.cache", "a"), ("sharp_maml.data.cache", "b")]),
        ("from ..base import Batch", False, [("sharp_maml.base", "Batch")]),
        ("from . import cache", False, [("sharp_maml.data", "cache")]),
        ("from .cache import a", True, [("sharp_maml.data.folders.cache", "a")]),
        ("import a.b as c", False, [("a.b", "")]),
    ],
)
def test_relative_imports_are_resolved(source, is_package, expected):
    assert list(imports(source, "sharp_maml.data.folders", is_package=is_package)) == expected
