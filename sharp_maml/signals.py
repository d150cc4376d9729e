"""SIGINT and SIGTERM, which wait until a step is finished. Read next: `train.py`, whose run ends after that step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""The signals that end a run after a finished step."""


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one acts as usual.

    Outside the main thread, where Python delivers no signals, nothing is collected.

    Yields:
        The numbers of the signals that have come, which grow in the block.
    """
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, before[signal.Signals(signum)])

    try:
        for signum in STOPPING:
            before[signum] = signal.signal(signum, receive)
    except ValueError:  # not the main thread
        pass
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
