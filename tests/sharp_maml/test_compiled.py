"""A compiled episode has the numbers of the eager core, and says what it cost."""

from __future__ import annotations

import logging

import pytest
import torch

from sharp_maml import Batch, Config, Episode, build
from sharp_maml.compiled import compiled
from tests.sharp_maml.tiny import tiny_config

# torch's own modules use, when the compiler is imported, what torch deprecates
own_of_torch = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def episodes(queries: int = 4) -> list[Episode]:
    generator = torch.Generator().manual_seed(0)

    def batch(each: int) -> Batch:
        images = torch.rand(3 * each, 3, 16, 16, generator=generator, dtype=torch.float64)
        return Batch(images, torch.arange(3).repeat_interleave(each))

    return [Episode(batch(1), batch(queries)) for _ in range(2)]


@pytest.mark.slow
@own_of_torch
def test_a_compiled_episode_has_the_numbers_of_the_eager_core(caplog):
    settings = {"dtype": "float64", "alpha_low": 0.05, "alpha_up": 0.05}
    eager, fast = (build(tiny_config(compile=compile, **settings), channels=3) for compile in (False, True))
    params = eager.init(0)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            expected, found = eager.method.gradient(params, episodes()), fast.method.gradient(params, episodes())
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found.loss, expected.loss)
            torch.testing.assert_close(found.loss_ascent, expected.loss_ascent)
    said = [record.message for record in caplog.records if "compiled the work of an episode" in record.message]
    assert len(said) == 2  # where the perturbations are made, and where they are given; not once a call


def test_graphs_are_kept_by_function_and_form(monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda graph: made.append(graph) or graph)
    wrap = compiled()

    def double(x):
        return {"y": 2 * x["x"]}

    one = {"x": torch.ones(2)}
    for arguments in (one, {"x": torch.zeros(2)}):
        torch.testing.assert_close(wrap(double)(arguments)["y"], 2 * arguments["x"])
    assert len(made) == 1
    wrap(double)({"x": torch.ones(3)})
    wrap(lambda x: {"y": 3 * x["x"]})(one)
    assert len(made) == 3


def test_without_a_compiler_the_option_is_refused_before_anything_is_done(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=r"compile = true needs a C\+\+ compiler"):
        build(tiny_config(compile=True), channels=3)
    build(tiny_config(), channels=3)


def test_matching_networks_are_not_compiled():
    defaults = {name: field.default for name, field in Config.__dataclass_fields__.items()}
    kept = {name: defaults[name] for name in ("steps", "test_steps", "beta_low")}
    with pytest.raises(ValueError, match="compile has no meaning for method = 'matching'"):
        tiny_config(method="matching", compile=True, **kept)
