"""Several processes for one meta-batch: under `torchrun` each rank takes its share of the episodes.

The only thing exchanged is the mean of a tree, taken before the upper ascent, so that N processes compute what one
does. (DistributedDataParallel cannot be used: it does not support the second derivatives that MAML takes.)
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import distributed

from sharp_maml.base import Params


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
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


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
