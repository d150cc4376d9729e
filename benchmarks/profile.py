"""Where the time of a meta-iteration goes, by kind of operation: shares of one thread's time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

KINDS = {
    "convolutions": ("conv",),
    "pooling and its adjoint": ("max_pool2d", "scatter_add", "gather"),
    "batch norm and sums": ("batch_norm", "sum", "mean"),
    "head": ("mm", "linear"),
    "elementwise": ("add", "sub", "mul", "div", "neg", "relu", "threshold", "clamp", "copy", "fill", "zero", "sqrt"),
}
"""The first kind one of whose words is in an operation's name is the operation's."""
OTHER, OUTSIDE = "other operations", "Python and autograd"


def profile(step: Callable[[], object]) -> dict[str, object]:
    """Run a step under torch's profiler.

    The profiler itself takes a few microseconds an operation, which count as those of Python and autograd: that share
    is too large, most of all on small images.

    Args:
        step: One meta-iteration on one thread.

    Returns:
        `seconds` in all, `seconds_by_kind` and the number of `operations`.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
    by_kind = dict.fromkeys((*KINDS, OTHER), 0.0)
    operations = 0
    for event in profiler.key_averages():
        library, _, name = event.key.partition("::")
        if library == "aten":
            by_kind[kind_of(name)] += event.self_cpu_time_total / 1e6
            operations += event.count
    by_kind[OUTSIDE] = seconds - sum(by_kind.values())
    return {"seconds": seconds, "seconds_by_kind": by_kind, "operations": operations}


def kind_of(name: str) -> str:
    """The kind of an operation of torch."""
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), OTHER)
