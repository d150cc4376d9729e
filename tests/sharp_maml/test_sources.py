"""Digests change with the code that a claim uses, and with nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sharp_maml.sources  # noqa: F401
from sharp_maml.sources import changed, joint_sources, sources

module = sys.modules["sharp_maml.sources"]  # the package has the function by that name

FILES = {
    "claims": '"""A claim."""\nfrom core import step, Tree\nimport other\n',
    "core/__init__": "from core.steps import step\nif True:\n    from core.trees import Forest as Tree\n",
    "core/steps": 'def step(x):\n    """One step."""\n    return x + 1  # forwards\n',
    "core/trees": "import sys\nForest = dict\n",
    "core/trainer": "import torch\n",
    "other": "def late():\n    from core.trees import Forest\n    return Forest\n",
}


def forget() -> None:
    for function in vars(module).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.fixture
def written(tmp_path: Path, monkeypatch):
    """Writes files of a made-up repository and forgets what was read before."""

    def write(**changed: str) -> dict[str, str]:
        for name, text in {**FILES, **changed}.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        forget()
        return sources("claims")

    monkeypatch.setattr(module, "ROOT", tmp_path)
    yield write
    monkeypatch.undo()
    forget()


def test_a_name_counts_where_it_is_defined(written) -> None:
    assert list(written()) == ["claims", "core.steps", "core.trees", "other"]


def test_words_and_blank_lines_do_not_count_and_code_does(written) -> None:
    before = written()
    in_other_words = 'def step(x):\n    """A step: see above."""\n\n    # to the right\n    return x + 1\n'
    assert written(**{"core/steps": in_other_words}) == before
    after = written(**{"core/steps": FILES["core/steps"].replace("+", "-")})
    assert {name for name in before if before[name] != after[name]} == {"core.steps"}


def test_a_string_that_is_no_docstring_counts(written) -> None:
    before = written(other='TEXT = """a"""\n')
    assert written(other='TEXT = """b"""\n') != before
    assert written(other='TEXT = """# a"""\n') != written(other='TEXT = """# b"""\n')


def test_modules_that_changed_or_are_gone_are_named(written) -> None:
    before = written()
    assert changed(before) == []
    written(other="late = 1\n")
    assert changed({**before, "core.gone": "0" * 16}) == ["other", "core.gone"]


def test_of_what_was_measured_in_parts_the_digest_that_is_not_todays_is_held(written) -> None:
    today = written()
    old = {**today, "other": "0" * 16}
    assert joint_sources([today, old, today]) == joint_sources([old, today]) == old
    assert joint_sources([{"other": today["other"]}, today]) == today
    assert joint_sources([today, None]) is None


def test_a_module_that_the_repository_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"module must be one of the repository around .*, got torch"):
        sources("torch")


def test_a_claim_of_the_core_depends_on_the_core_and_not_on_the_trainer() -> None:
    of_bound = sources("theory.rate.claims.bound")
    assert {"sharp_maml.meta", "synthetic.wells", "theory.rate.setting", "theory.rate.claims.bound"} <= set(of_bound)
    assert not {"sharp_maml", "sharp_maml.train", "theory.check.report", "theory.rate.claims.slope"} & set(of_bound)
