"""What the README tells a newcomer to type works."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sharp_maml import Config

ROOT = Path(__file__).parent.parent


def test_the_python_example_runs_and_changes_the_parameters():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    before = names["model"].init(torch.Generator())
    for name, value in names["params"].items():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, before[name])


def test_the_example_configuration_is_valid():
    assert Config.from_toml(ROOT / "examples/own_classes.toml", ["data=DIR", "alpha_low=5e-4"]).variant == "low"
