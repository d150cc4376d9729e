"""Keep freed memory in the process (glibc)."""

from __future__ import annotations


def keep_freed_memory() -> bool:
    """Placeholder until tuned."""
    return False
