"""`kernels.cpp`, compiled when it is first used: what a block of conv4 does between its convolutions on a CPU.

Torch makes ten passes over an activation where one or two are enough, and its sums over channels in float32 are not
exact. The library is compiled once (some seconds, which the log states) into `$XDG_CACHE_HOME/sharp_maml`, by default
`~/.cache/sharp_maml`, under a name made of the source, the compiler, the CPU and the library's own digest. Where there
is no compiler ($CXX, else g++, c++ or clang++), where compiling, storing or loading fails, and with the environment
variable SHARP_MAML_KERNELS=0, one log line says so and the block runs on torch's operations. Read next:
`models/block.py`.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode

from sharp_maml.checkpoint import write_atomically

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
)
"""Sums keep their order, and what is not finite stays so: none of these flags allows another arithmetic."""

_OFF = "SHARP_MAML_KERNELS"
_SECONDS = 120
_LOCK = threading.Lock()
_POINTERS = {"pool": 7, "back": 10, "second": 14}  # that each function takes
_NAMES = {torch.float32: "float", torch.float64: "double"}


class Kernels:
    """The three passes of a block, in one library: the equations and names of `block.py`, for scales of any sign.

    Activations are `n x filters x height x width` in `channels_last`, pooled ones half as high and wide; the others are
    `filters` numbers. All are of one type, float32 or float64. No number depends on how many threads torch has.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.functions = {}
        for dtype, name in _NAMES.items():
            for kind, pointers in _POINTERS.items():
                function = getattr(library, f"{kind}_{name}")
                function.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_int] + [ctypes.c_void_p] * pointers
                function.restype = None
                self.functions[kind, dtype] = function
        try:  # torch's own runtime of OpenMP, so that there is one
            fork = ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p)
        except (AttributeError, OSError):
            return  # one thread
        library.use_threads_of(fork)

    def pool(self, y: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        """The forward pass from y: the output, P y, the entry that P picks of each window, mean and r in one.

        Entries are 0 to 3, in a window's order, and 4 where ReLU is off.
        """
        images, channels, height, width = y.shape
        size = (images, channels, height // 2, width // 2)
        output = torch.empty(size, dtype=y.dtype, memory_format=torch.channels_last)
        picked, entry, statistics = torch.empty_like(output), torch.empty_like(output), scale.new_empty(2, channels)
        self._call("pool", y, scale, shift, output, picked, entry, statistics)
        return output, picked, entry, statistics

    def back(
        self, d: Tensor, d_y: Tensor | None, y: Tensor, scale: Tensor, constants: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The backward pass from d, the output's gradient, and d_y: a, b, g + d_y, and d, whose e the entries tell."""
        d = _channels_last(d)
        a, b, g = torch.empty_like(scale), torch.empty_like(scale), torch.empty_like(y)
        d_y = None if d_y is None else _channels_last(d_y)
        self._call("back", y, scale, *constants[1:], d, d_y, g, a, b)
        return a, b, g, d.view_as(d)  # not the input itself, which cannot be saved

    def second(
        self,
        terms: list[Tensor],
        A: Tensor | None,
        B: Tensor | None,
        y: Tensor,
        scale: Tensor,
        a: Tensor,
        b: Tensor,
        e: Tensor,
        constants: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """The second backward pass from u, the sum of one or two terms, A and B: the derivatives in d, scale and y.

        None stands for zeros. The derivative in y takes the place of the first term.
        """
        u, u2 = terms if len(terms) == 2 else (terms[0], None)
        A, B = (None if t is None else t.contiguous() for t in (A, B))
        d_d, d_scale = torch.empty_like(e), torch.empty_like(scale)
        self._call("second", y, scale, *constants[1:], e, a, b, A, B, u2, u, d_d, d_scale)
        return d_d, d_scale, u

    def _call(self, kind: str, y: Tensor, *others: Tensor | None) -> None:
        images, channels, height, width = y.shape
        if any(t is not None and t.dtype != y.dtype for t in others):  # their numbers would be misread
            raise TypeError(f"all tensors must be of {y.dtype}")
        pointers = [None if t is None else t.data_ptr() for t in (y, *others)]
        self.functions[kind, y.dtype](images, height, width, channels, torch.get_num_threads(), *pointers)


def native(*tensors: Tensor) -> Kernels | None:
    """The kernels, where they do for a block just what torch does; else None.

    Args:
        tensors: Inputs, weight, scale and shift of the block.

    Returns:
        The kernels, for plain float32 or float64 tensors of one type on a CPU, of sizes that a block can have; None
        under transforms, traces, compilation and automatic mixed precision, and where there is no library.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or _get_current_dispatch_mode() is not None  # traces and tensors without data
        or torch.is_autocast_enabled("cpu")
    ):
        return None
    x, weight, scale, shift = tensors
    is_plain = (
        x.dtype in _NAMES
        and all(type(t) in (Tensor, Parameter) and t.is_cpu and t.dtype == x.dtype for t in tensors)
        and x.ndim == 4
        and x.numel() > 0
        and min(x.shape[2:]) > 1
        and scale.shape == shift.shape == weight.shape[:1]
        and scale.is_contiguous()
        and shift.is_contiguous()
    )
    return load() if is_plain else None


def load() -> Kernels | None:
    """The library, compiled when it is first asked for on this machine and loaded when first asked for in this process.

    Returns:
        The kernels; None where they are switched off or cannot be had, which one log line says.
    """
    with _LOCK:  # episodes may come from several threads
        return _loaded()


@cache
def _loaded() -> Kernels | None:
    compiler = _compiler()
    if os.environ.get(_OFF) == "0" or not compiler:
        log.info("conv4 runs on torch's operations: %s", f"{_OFF}=0" if compiler else "there is no C++ compiler")
        return None
    try:
        return _library(compiler, _cache())
    except (OSError, AttributeError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        log.warning("conv4 runs on torch's operations, since its kernels cannot be had: %s", error)
        return None


def _library(compiler: list[str], directory: Path) -> Kernels:
    """Load the library of this source, compiler and CPU; compile it where there is none, or none that is whole."""
    # What the compiler would run tells its version, and most of them what `native` stands for.
    plan = _run([*compiler, *FLAGS, "-###", "-E", "-x", "c++", os.devnull])
    key = _digest(SOURCE.read_bytes() + " ".join([*FLAGS, plan, _cpu()]).encode())
    for path in sorted(directory.glob(f"kernels-{key}-*.so")):
        if path.stem.endswith(_digest(path.read_bytes())):  # it is whole
            with suppress(OSError, AttributeError):
                return Kernels(ctypes.CDLL(str(path)))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "kernels.so"
        _run([*compiler, *FLAGS, str(SOURCE), "-o", str(made)])
        content = made.read_bytes()
    path = directory / f"kernels-{key}-{_digest(content)}.so"
    write_atomically(path, content)
    kernels = Kernels(ctypes.CDLL(str(path)))
    log.info("compiled the kernels of conv4 in %.1f s, once, into %s", time.perf_counter() - began, path)
    return kernels


def _cache() -> Path:
    """The directory of the libraries. One in which others can write is refused: they could put theirs there."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    directory = (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "sharp_maml"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory} must belong to this user, and nobody else may write there")
    return directory


def _compiler() -> list[str]:
    """The compiler with its own arguments: $CXX, or the first that is on the path; empty where there is none."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    return [path for path in map(shutil.which, ("g++", "c++", "clang++")) if path][:1]


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the first processor is and can do."""
    if not cpuinfo.exists():  # not Linux
        return platform.processor()
    first = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    return " ".join(line for line in first if line.startswith(("model name", "flags", "Features", "CPU")))


def _run(command: list[str]) -> str:
    """What a command says on its standard error, in which a failure is an error."""
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stderr


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
