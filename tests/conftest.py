"""Options and fixtures for what a machine may lack: a GPU, real data, a compiler. `--require` forbids to skip."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import hypothesis
import pytest
import torch

from sharp_maml import kernels

# How long an example takes says nothing on a busy machine: tests assert no times.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", help="directory of miniImageNet (default: environment variable DATA)")
    parser.addoption(
        "--omniglot",
        help="directory of Omniglot (default: environment variable OMNIGLOT, else `omniglot` beside --data)",
    )
    parser.addoption(
        "--require", default="", help="what must not be skipped, separated by commas: gpu, data, kernels, ray"
    )


def _absent(config: pytest.Config, kind: str, reason: str) -> NoReturn:
    if kind in config.getoption("--require").split(","):
        pytest.fail(f"--require {kind}: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def data_path(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """From a name (`miniimagenet`, `omniglot`) to the directory where the real data lie."""

    def find(name: str) -> Path:
        given = {
            "miniimagenet": pytestconfig.getoption("--data") or os.environ.get("DATA"),
            "omniglot": pytestconfig.getoption("--omniglot") or os.environ.get("OMNIGLOT"),
        }
        if name == "omniglot" and not given["omniglot"] and given["miniimagenet"]:
            beside = Path(given["miniimagenet"]).resolve().with_name("omniglot")
            given["omniglot"] = str(beside) if beside.is_dir() else None
        option, variable = ("--data", "DATA") if name == "miniimagenet" else ("--omniglot", "OMNIGLOT")
        if not given[name]:
            _absent(pytestconfig, "data", f"no {name}: name its directory with {option} or {variable}")
        if not Path(str(given[name])).is_dir():
            _absent(pytestconfig, "data", f"no {name}: {given[name]} is not a directory ({option}, {variable})")
        return Path(str(given[name]))

    return find


@pytest.fixture
def ray(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Ray, whose processes find the repository."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    try:
        return importlib.import_module("ray")
    except ImportError:
        _absent(pytestconfig, "ray", "no Ray: it is in the extra `ray`, which the lock files leave out")


@pytest.fixture
def gpu(pytestconfig: pytest.Config) -> torch.device:
    """The first CUDA device."""
    if not torch.cuda.is_available():
        _absent(pytestconfig, "gpu", "no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def backends() -> Iterator[tuple[Any, Any]]:
    """Torch's switches for TF32, put back afterwards."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def _run_on(passes: str, config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    if passes == "torch":
        monkeypatch.setattr(kernels, "load", lambda: None)
    elif kernels.load() is None:
        _absent(config, "kernels", "no native kernels: they need a C++ compiler, and SHARP_MAML_KERNELS not to be 0")


@pytest.fixture
def native(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> kernels.Kernels | None:
    """The native kernels of this machine."""
    _run_on("native", pytestconfig, monkeypatch)
    return kernels.load()


@pytest.fixture(params=["native", "torch"])
def passes(request: pytest.FixtureRequest, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the fused block runs on between its convolutions."""
    _run_on(request.param, pytestconfig, monkeypatch)
    return request.param


@pytest.fixture(params=["native", "torch", "elementary"])
def form(request: pytest.FixtureRequest, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form of the block: the fused one on either of its passes, and the elementary one."""
    if request.param == "elementary":
        return "elementary"
    _run_on(request.param, pytestconfig, monkeypatch)
    return "fused"
