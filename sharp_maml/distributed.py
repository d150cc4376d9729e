"""Several processes or threads for one meta-batch, each with its share of the episodes.

The processes are the ranks of `torchrun`, or those that `run_in_processes` starts on one machine. The only thing that
they exchange is the mean of a tree, taken before the upper ascent, so that N processes compute what one does.
(DistributedDataParallel cannot be used: it does not support the second derivatives that MAML takes.)
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

import torch
from torch import distributed

from sharp_maml.base import Params

LAUNCHER = "SHARP_MAML_LAUNCHER"
"""Environment variable of the processes of `run_in_processes`: the descriptor of a pipe that they share.

The launcher has its other end, and has put a byte in: whoever reads it says what went wrong.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ranks(NamedTuple):
    """This process's number, 0 ... world_size - 1, and how many there are."""

    rank: int
    world_size: int


def start(device: str) -> Ranks:
    """Join the process group that `torchrun` describes in the environment; without one, be the only process.

    Args:
        device: `cpu` uses gloo; `cuda` uses nccl, and the GPU of this process's number on its machine.

    Returns:
        Rank and number of processes.

    Raises:
        ConnectionError: Another process ended before all had joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks(0, 1)
    if not distributed.is_initialized():
        if device == "cuda":  # each process of a machine its own
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if launcher := os.environ.get(LAUNCHER):
            _end_when_closed(int(launcher))
        # Imported later (torch's optimizers do), this module keeps the group in its functions' default arguments, so
        # that `stop` cannot end its threads, and one that frees a tensor while Python exits aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        with _connected():
            distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def local_ranks(n: int) -> list[dict[str, str]]:
    """What the environment of each of n processes on this machine must have, as torchrun would set it.

    The processes share the threads of the machine, unless OMP_NUM_THREADS says how many each has.

    Args:
        n: Processes, at least 1.

    Returns:
        Variables by process; a group that was not joined can be joined once.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // n)))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n), "OMP_NUM_THREADS": threads}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


def run_in_processes(n: int, command: Sequence[str]) -> int:
    """Run a command in n processes of this machine, which then share their episodes; wait for all.

    SIGINT and SIGTERM go on to them. When one fails, or this process is killed, the others are ended.

    Args:
        n: Processes, at least 1.
        command: Program and arguments.

    Returns:
        The first exit code that is not 0, or 0; of a process that a signal ended, 128 + signal.
    """
    theirs, own = os.pipe()
    try:
        os.set_blocking(theirs, False)
        os.write(own, b"x")
        return _run_in_processes(n, command, theirs)
    finally:
        os.close(theirs)
        os.close(own)


def _run_in_processes(n: int, command: Sequence[str], pipe: int) -> int:
    # In sessions of their own, so that Ctrl-C in a terminal reaches each of them once, through `pass_on`.
    processes = [
        subprocess.Popen(
            command, env={**os.environ, LAUNCHER: str(pipe), **variables}, pass_fds=[pipe], start_new_session=True
        )
        for variables in local_ranks(n)
    ]

    def pass_on(signum: int, frame: object) -> None:
        for process in processes:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    code = 0
    try:
        waiting = list(processes)
        while waiting:
            for process in list(waiting):
                try:
                    ended = process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                waiting.remove(process)
                if ended and not code:
                    code = ended if ended > 0 else 128 - ended
                    for other in waiting:
                        other.terminate()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for process in processes:
            process.kill()
    return code


def speaks() -> bool:
    """Whether this process is to say what went wrong: of those of `run_in_processes`, the first that asks.

    What the others then see is the same error, or that they lost the first.
    """
    if (pipe := os.environ.get(LAUNCHER)) is None:
        return True
    with suppress(OSError):  # read by another
        return os.read(int(pipe), 1) != b""
    return False


def end_with_parent() -> None:
    """End this process of `multiprocessing`, as SIGTERM does, when the one that started it has ended, however it did.

    Otherwise a process whose parent was killed works on for nobody, in a directory that the next run needs.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        _end_when_closed(parent.sentinel)


def _end_when_closed(pipe: int) -> None:
    """Wait in a thread until the other end of a pipe is closed, whatever lies in it; then end, as SIGTERM does."""
    closed = select.poll()
    closed.register(pipe, 0)

    def watch() -> None:
        closed.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _connected() -> Iterator[None]:
    """What torch says at length when another process is gone, in a line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"another process of this run ended, or cannot be reached: {reason}") from error


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def in_threads(n: int) -> Callable[[Callable[[Item], Result], Iterable[Item]], Iterable[Result]]:
    """A `map` that works on n items at the same time, each with its share of torch's threads.

    On small images an operation is over before a second thread pays, and between two operations there is Python; n
    episodes side by side fill both gaps. A transform such as `vmap` lives in one thread, so under one this is an error.

    Args:
        n: Threads, at least 1. They are started with the first items, and stay.

    Returns:
        The function, in place of `map`.
    """
    share = max(1, torch.get_num_threads() // n)
    pool = ThreadPoolExecutor(n, "episode", initializer=torch.set_num_threads, initargs=(share,))

    def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError("episodes cannot go to threads inside a torch.func transform: use map")
        return pool.map(function, items)

    return map_in_threads


def mean_over_ranks(params: Params) -> Params:
    """Mean of a tree over the ranks, in one exchange; the tree itself for a single process.

    Args:
        params: Tensors of one dtype and device, the same names and shapes on every rank.

    Returns:
        The mean, the same on every rank.

    Raises:
        ConnectionError: Another process ended.
    """
    if not distributed.is_initialized():
        return params
    flat = torch.cat([value.reshape(-1) for value in params.values()])
    with _connected():
        distributed.all_reduce(flat)
    flat = flat / distributed.get_world_size()
    parts = torch.split(flat, [value.numel() for value in params.values()])
    return {name: part.view_as(value) for (name, value), part in zip(params.items(), parts, strict=True)}
