"""What a cell's process runs in place of training: importable, because that process was not forked from the tests'."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from reproductions.tables.cells import EPISODES, run_named


def work(lines: str, arguments: Sequence[str]) -> None:
    """Run lines of Python, which know their `place`, `data`, `results`, `row` and `seed`; end at a signal as a cell."""
    data, results, _, row, tier, seed, device = arguments
    place = Path(results) / tier / row / f"seed{seed}"

    def stop(*_: object) -> None:
        (place / "saved").write_text("")
        sys.exit(143)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    (place / "started").write_text("")
    exec(
        lines,
        {"place": place, "data": Path(data), "results": Path(results), "row": row, "seed": seed, "device": device},
    )


def preempted(arguments: Sequence[str]) -> None:
    """A cell that submitit's signal reaches twice: after two steps of its training, and in its evaluation."""
    _, results, _, row, tier, seed, _ = arguments
    place = Path(results) / tier / row / f"seed{seed}"
    for name, file, text in (("trained", "metrics.jsonl", '"step": 2'), ("judged", EPISODES, "evaluation")):
        if not (place / name).exists():
            threading.Thread(target=_signal_when, args=(place / file, text, place / name), daemon=True).start()
            break
    run_named(arguments)


def _signal_when(path: Path, text: str, told: Path) -> None:
    while not path.exists() or text not in path.read_text():
        time.sleep(0.01)
    told.write_text("")
    os.kill(os.getpid(), signal.SIGUSR2)
