"""Several processes or threads for one meta-batch, each with its share of the episodes.

The processes are the ranks of `torchrun`. The only thing that they exchange is the mean of a tree, taken before the
upper ascent, so that N processes compute what one does. (DistributedDataParallel cannot be used: it does not support
the second derivatives that MAML takes.)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import distributed

from sharp_maml.base import Params

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
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks(0, 1)
    if not distributed.is_initialized():
        if device == "cuda":  # each process of a machine its own
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # Imported later (torch's optimizers do), this module keeps the group in its functions' default arguments, so
        # that `stop` cannot end its threads, and one that frees a tensor while Python exits aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


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
    """
    if not distributed.is_initialized():
        return params
    flat = torch.cat([value.reshape(-1) for value in params.values()])
    distributed.all_reduce(flat)
    flat = flat / distributed.get_world_size()
    parts = torch.split(flat, [value.numel() for value in params.values()])
    return {name: part.view_as(value) for (name, value), part in zip(params.items(), parts, strict=True)}
