"""The work of one episode as one compiled graph: an option that costs a minute at the start, and is never needed.

The gradient of an episode is traced once for each form of its arguments, inner steps, query gradient and Hessian
products together, and the trace is compiled by `torch.compile`. There is no autograd left in it, and no Python between
the operations; the fused block stays what it is. Numbers are those of the eager core up to rounding.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten

log = logging.getLogger(__name__)


def compiled(device: str = "cpu") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A `compile_episode` of `Execution`: compiles what it is given when that is first called, and keeps it.

    The start-up cost is logged. Functions that compare equal share their graphs, and each form of the arguments (names,
    shapes, dtypes, devices) has one of its own.

    Args:
        device: The device of the work.

    Returns:
        The wrapper.

    Raises:
        ValueError: There is no C++ compiler, which the CPU needs.
    """
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError(
            "compile = true needs a C++ compiler on a CPU (c++, g++ or clang++): install one or leave it off"
        )
    graphs: dict[Any, Callable[..., Any]] = {}
    lock = threading.Lock()

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            leaves, form = tree_flatten(arguments)
            tensors = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves if isinstance(leaf, torch.Tensor))
            key = (function, str(form), tensors)
            with torch.no_grad():
                with lock:  # episodes may come from several threads, and the first call compiles
                    if key not in graphs:
                        began = time.perf_counter()
                        graph = torch.compile(make_fx(function)(*arguments))
                        result = graph(*arguments)
                        graphs[key] = graph
                        log.info("compiled the work of an episode in %.0f s", time.perf_counter() - began)
                        return result
                return graphs[key](*arguments)

        return run

    return wrap
