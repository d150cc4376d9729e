"""The allocator of glibc, set so that it keeps freed memory: one call, much faster passes over large images on a CPU.

By default glibc maps every block above 32 MiB anew and unmaps it when it is freed, so that each activation of a network
is a few ten thousand page faults, in which the kernel clears memory that is overwritten at once. Training, evaluation
and the benchmarks call `keep_freed_memory` when they start, never an import: it changes the whole process.
"""

from __future__ import annotations

import ctypes
import os

_OFF = "SHARP_MAML_MALLOPT"

# The numbers of malloc.h, and values that are as large as an int allows
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to take large blocks from its heap, to give none back, and to grow the heap by 64 MiB at a time.

    All threads share that heap, since one of a thread's own cannot hold a large block. Freed memory stays with the
    process, at most as much as was used at its peak. The environment variable SHARP_MAML_MALLOPT=0 switches this off,
    for instance where another allocator is preloaded.

    Returns:
        Whether it was done: False off glibc, and where it is switched off.

    Source: mallopt(3).
    """
    if os.environ.get(_OFF) == "0":
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # musl also has a `mallopt`, which does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows has no handle of the process itself
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _GROW_BY}
    done = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(done)
