"""The native kernels: their derivatives and sums, where they are used, and what happens where they cannot be had."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from sharp_maml import kernels, provenance
from sharp_maml.models.block import block

CHANNELS_LAST = torch.channels_last
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "positive": lambda scale: scale.abs(),
    "of both signs": lambda scale: scale,
    "negative": lambda scale: -scale.abs(),
    "zero": lambda scale: 0 * scale,  # of both signs too
}


def problem(
    seed: int, images: int, channels: int, filters: int, height: int, width: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Inputs, weight, scale and shift."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, channels, height, width), (filters, channels, 3, 3), (filters,), (filters,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def derivatives(arguments: list[Tensor], *, on_torch: bool = False) -> list[Tensor]:
    """Value, gradient of a random function of it, and Hessian-vector product of the fused block."""
    generator = torch.Generator().manual_seed(1)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    arguments = [a.clone().requires_grad_() for a in arguments]
    with patch.object(kernels, "load", return_value=None) if on_torch else contextlib.nullcontext():
        value = block(*arguments, form="fused")  # type: ignore[misc]
        grads = torch.autograd.grad((normal(value) * value.sin()).sum(), arguments, create_graph=True)
        products = torch.autograd.grad(grads, arguments, [normal(a) for a in arguments])
    return [each.detach() for each in (value, *grads, *products)]


# What they compute


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 4),
    channels=st.integers(1, 3),
    filters=st.integers(1, 20),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    scales=st.sampled_from(list(SCALES)),
    ties=st.booleans(),
)
def test_values_and_derivatives_are_those_of_the_torch_form(
    seed: int, images: int, channels: int, filters: int, height: int, width: int, scales: str, ties: bool
) -> None:
    x, weight, scale, shift = problem(seed, images, channels, filters, height, width)
    if ties:  # whole numbers have exact products, so that windows have several largest entries in both forms
        x, weight = x.round(), weight.round()
    arguments = [x, weight, SCALES[scales](scale), shift]
    for ours, torchs in zip(derivatives(arguments), derivatives(arguments, on_torch=True), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-10 * max(1.0, float(torchs.abs().max())))


@pytest.mark.parametrize("format", [torch.contiguous_format, CHANNELS_LAST], ids=str)
def test_gradients_may_come_in_any_memory_format(format: torch.memory_format) -> None:
    arguments = [a.requires_grad_() for a in problem(0, 2, 3, 5, 6, 7)]

    def products() -> tuple[Tensor, ...]:
        value = block(*arguments, form="fused").contiguous(memory_format=format)  # type: ignore[misc]
        grads = torch.autograd.grad(value.sum(), arguments, create_graph=True)  # an expanded number comes back
        return torch.autograd.grad(sum(g.square().sum() for g in grads), arguments)

    ours = products()
    with patch.object(kernels, "load", return_value=None):
        torchs = products()
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 30.0], ids=["centred", "far from zero"])
@pytest.mark.parametrize("outlier", [False, True], ids=["even", "odd first pixel"])
def test_the_statistics_of_float32_are_exact_to_its_rounding(
    native: kernels.Kernels, offset: float, outlier: bool
) -> None:
    """Torch's own, added up in float32, are off by up to 6e-5 standard deviations on such numbers."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(75, 8, 42, 42, generator=generator) + offset
    if outlier:
        y[0, :, 0, 0] += 20
    y = y.contiguous(memory_format=CHANNELS_LAST)
    *_, (mean, r) = native.pool(y, torch.ones(8), torch.zeros(8))
    exact = y.double()
    deviation = exact.std((0, 2, 3), correction=0)
    error_of_mean = (mean - exact.mean((0, 2, 3))).abs() / deviation
    error_of_r = r * (deviation.square() + 1e-5).sqrt() - 1
    rounding = torch.finfo(torch.float32).eps
    assert error_of_mean.max() < 3 * rounding * (1 + offset)
    assert error_of_r.abs().max() < 3 * rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(5, 16, 20, 21), (9, 3, 42, 43), (1, 7, 64, 64)], ids=str)
def test_the_number_of_threads_changes_no_bit(
    native: kernels.Kernels, dtype: torch.dtype, size: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        value = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return value.contiguous(memory_format=CHANNELS_LAST) if len(shape) == 4 else value

    images, channels, height, width = size
    y, u, u2, d_y = (normal(*size) for _ in range(4))
    d = normal(images, channels, height // 2, width // 2)
    scale, shift, A, B = (normal(channels) for _ in range(4))

    def passes() -> list[Tensor]:
        constants = native.pool(y, scale, shift)
        a, b, g, e = native.back(d, d_y, y, scale, constants)
        return [*constants, a, b, g, *native.second([u.clone(), u2], A, B, y, scale, a, b, e, constants)]

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            results.append(passes())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(results[0], other, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4), ids=["x", "weight", "scale", "shift"])
def test_what_is_not_finite_is_not_finite_where_the_torch_form_has_it(place: int, value: float) -> None:
    arguments = problem(0, 3, 2, 4, 5, 6)
    arguments[place].view(-1)[1] = value
    for index, (ours, torchs) in enumerate(
        zip(derivatives(arguments), derivatives(arguments, on_torch=True), strict=True)
    ):
        assert torch.equal(ours.isfinite(), torchs.isfinite()), index
    if math.isnan(value):
        assert not derivatives(arguments)[0].isfinite().all()


def test_a_gradient_that_is_not_finite_stays_so() -> None:
    def gradients() -> tuple[Tensor, ...]:
        arguments = [a.requires_grad_() for a in problem(0, 3, 2, 4, 5, 6)]
        value = block(*arguments, form="fused")  # type: ignore[misc]
        factor = torch.ones_like(value)
        factor[:, 1] = math.nan
        return torch.autograd.grad((factor * value).sum(), arguments)

    ours = gradients()
    with patch.object(kernels, "load", return_value=None):
        torchs = gradients()
    assert not all(each.isfinite().all() for each in ours)
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-10, atol=1e-10)


# Where they are used


class Subclass(Tensor):
    pass


def test_plain_tensors_on_a_cpu_are_computed_natively(native: kernels.Kernels) -> None:
    for dtype in (torch.float32, torch.float64):
        assert kernels.native(*problem(0, 2, 3, 4, 5, 6, dtype)) is native
    assert provenance()["kernels"] == "native"
    with pytest.raises(TypeError, match="all tensors must be of"):
        native.pool(torch.ones(1, 2, 2, 2, dtype=torch.float64), torch.ones(2), torch.ones(2))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    "change",
    [
        lambda x, w, s, b: (x.bfloat16(), w.bfloat16(), s.bfloat16(), b.bfloat16()),
        lambda x, w, s, b: (x.to("meta"), w.to("meta"), s.to("meta"), b.to("meta")),
        lambda x, w, s, b: (x, w, s.double(), b),
        lambda x, w, s, b: (x, w, s[:3], b),
        lambda x, w, s, b: (x, w, s, b[:1].expand(4)),
        lambda x, w, s, b: (x[0], w, s, b),
        lambda x, w, s, b: (x[:0], w, s, b),
        lambda x, w, s, b: (x[..., :1], w, s, b),
        lambda x, w, s, b: (x.as_subclass(Subclass), w, s, b),
    ],
    ids=["bfloat16", "meta", "two types", "too few", "expanded", "no batch", "no image", "no window", "subclass"],
)
def test_other_tensors_are_left_to_torch(change) -> None:
    assert kernels.native(*change(*problem(0, 2, 3, 4, 5, 6, torch.float32))) is None


@pytest.mark.usefixtures("native")
def test_transforms_traces_and_mixed_precision_are_left_to_torch() -> None:
    arguments = problem(0, 2, 3, 4, 5, 6, torch.float32)
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(kernels.native(x, *arguments[1:]))
        return x.sum()

    torch.func.grad(look)(arguments[0])
    torch.func.vmap(look)(arguments[0][None])
    make_fx(look)(arguments[0])
    with FakeTensorMode() as mode:
        seen.append(kernels.native(*map(mode.from_tensor, arguments)))
    with torch.autocast("cpu", torch.bfloat16):
        look(arguments[0])
    with patch.object(torch.compiler, "is_compiling", return_value=True):
        look(arguments[0])
    assert seen == [None] * 6
    look(arguments[0])
    assert seen[-1] is not None


# Where they cannot be had: one log line and torch's operations


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], kernels.Kernels | None]]:
    """Loads as a new process would, from an empty cache in `tmp_path`, with a compiler that takes no pains."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SHARP_MAML_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "FLAGS", [flag.replace("-O3", "-O0") for flag in kernels.FLAGS])

    def load() -> kernels.Kernels | None:
        kernels._loaded.cache_clear()
        return kernels.load()

    yield load
    kernels._loaded.cache_clear()


def compiler(path: Path, script: str) -> str:
    """A program in the place of the compiler; `$out` is where it should write."""
    path.write_text(f'#!/bin/sh\nfor out; do :; done\ncase "$*" in *-###*) exit 0;; esac\n{script}\n')
    path.chmod(0o700)
    return str(path)


def falls_back(load: Callable[[], kernels.Kernels | None], caplog: pytest.LogCaptureFixture, message: str) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert load() is None
    assert kernels.load() is None
    assert len(caplog.records) == 1
    assert message in caplog.text
    assert provenance()["kernels"] == "torch"
    arguments = problem(0, 2, 3, 4, 5, 6)
    assert block(*arguments, form="fused").isfinite().all()
    assert len(caplog.records) == 1


def test_the_environment_switches_them_off(start, caplog, monkeypatch) -> None:
    monkeypatch.setenv("SHARP_MAML_KERNELS", "0")
    falls_back(start, caplog, "SHARP_MAML_KERNELS=0")


def test_without_a_compiler_there_are_none(start, caplog, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    falls_back(start, caplog, "there is no C++ compiler")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo it is broken >&2; exit 1", "it is broken"),
        ("exit 0", "No such file"),
        ('echo no library > "$out"', "file too short"),
        ("sleep 10", "timed out"),
    ],
    ids=["fails", "makes nothing", "makes rubbish", "takes too long"],
)
def test_a_compiler_that_does_not_work(start, caplog, monkeypatch, tmp_path, script: str, message: str) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path / "compiler", script))
    monkeypatch.setattr(kernels, "_SECONDS", 0.5)
    falls_back(start, caplog, message)


def test_a_compiler_that_is_not_there(start, caplog, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", f"{tmp_path}/nothing -m64")
    falls_back(start, caplog, "nothing")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_cache_in_which_nothing_can_be_written(start, caplog, monkeypatch, tmp_path, error: OSError) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr(kernels, "write_atomically", refuse)
    monkeypatch.setenv("CXX", compiler(tmp_path / "compiler", 'echo > "$out"'))
    falls_back(start, caplog, error.strerror)


def test_a_cache_that_cannot_be_made(start, caplog, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    falls_back(start, caplog, "Not a directory")


def test_a_user_without_a_home(start, caplog, monkeypatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which does not count
    monkeypatch.setattr(kernels.Path, "home", fail)
    falls_back(start, caplog, "home directory")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_cache_in_which_others_can_write_is_not_trusted(start, caplog, tmp_path, mode: int) -> None:
    (tmp_path / "sharp_maml").mkdir()
    (tmp_path / "sharp_maml").chmod(mode)
    falls_back(start, caplog, "nobody else may write there")


def test_a_cache_of_another_user_is_not_trusted(start, caplog, monkeypatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    falls_back(start, caplog, "must belong to this user")


# The cache


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_a_library_is_compiled_once_and_again_where_it_is_damaged_or_of_another_cpu(
    start, caplog, monkeypatch, tmp_path
) -> None:
    caplog.set_level(logging.INFO)
    (compiled := "compiled the kernels of conv4 in"), (directory := tmp_path / "sharp_maml")
    assert start() is not None
    (path,) = directory.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [record.getMessage().startswith(compiled) for record in caplog.records] == [True]
    assert str(path) in caplog.text
    whole = path.read_bytes()

    caplog.clear()
    assert start() is not None
    assert caplog.records == []

    for content in (whole[: len(whole) // 2], whole.replace(b"pool_float", b"fool_float")):
        path.unlink()  # the one that is loaded must not change under this process
        path.write_bytes(content)
        caplog.clear()
        assert start() is not None
        assert [record.getMessage().startswith(compiled) for record in caplog.records] == [True]
        assert path.read_bytes() == whole

    monkeypatch.setattr(kernels, "_cpu", lambda: "another")
    caplog.clear()
    assert start() is not None
    assert len(caplog.records) == 1
    assert len(list(directory.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    program = """
import sys
from sharp_maml import kernels, provenance
kernels.FLAGS = [flag.replace("-O3", "-O0") for flag in kernels.FLAGS]
print("ready", flush=True)
sys.stdin.readline()
print(provenance()["kernels"])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", program], **options) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120)[0] for process in processes] == ["native\n"] * 2
    assert len(list((tmp_path / "sharp_maml").iterdir())) == 1


def test_the_compiler_is_that_of_the_environment_or_the_first_on_the_path(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "ccache 'my compiler'")
    assert kernels._compiler() == ["ccache", "my compiler"]
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name != "g++" else None)
    assert kernels._compiler() == ["/bin/c++"]


def test_the_cpu_is_what_it_is_and_can_do_and_not_how_fast_it_happens_to_run(tmp_path) -> None:
    one = "model name : A\ncpu MHz : {}\nflags : fpu avx2"
    assert kernels._cpu(tmp_path / "none") == platform.processor()
    seen = []
    for speeds in ((1, 2), (3, 4)):
        (tmp_path / "cpuinfo").write_text("\n\n".join(one.format(speed) for speed in speeds))
        seen.append(kernels._cpu(tmp_path / "cpuinfo"))
    assert seen == ["model name : A flags : fpu avx2"] * 2


@pytest.mark.usefixtures("native")
def test_without_torchs_runtime_of_openmp_one_thread_does_it_all(start, monkeypatch) -> None:
    """Where torch is built with another runtime, or none, the kernels still work."""
    found = kernels.ctypes.CDLL

    class Without:
        pass

    monkeypatch.setattr(kernels.ctypes, "CDLL", lambda name: Without() if name == torch._C.__file__ else found(name))
    assert start() is not None
    assert len(derivatives(problem(0, 8, 3, 16, 42, 42))) == 9
