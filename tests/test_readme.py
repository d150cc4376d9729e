"""What the README tells a newcomer to type works."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sharp_maml import Config

ROOT = Path(__file__).parent.parent


def test_the_python_example_runs_and_changes_the_parameters():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: list[dict] = [{}, {}]
    for each, text in zip(names, (code, code.replace("optimizer.step()", "pass")), strict=True):
        torch.manual_seed(0)
        exec(compile(text, "README.md", "exec"), each)
    trained, untouched = (each["network"].state_dict() for each in names)
    for name, value in trained.items():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, untouched[name])


def test_the_example_configuration_is_valid():
    assert Config.from_toml(ROOT / "examples/own_classes.toml", ["data=DIR", "alpha_low=5e-4"]).variant == "low"
