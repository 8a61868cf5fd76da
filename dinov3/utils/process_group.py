"""Training as one of several processes, each with a device of its own; every function also works for a single one."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def is_distributed() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def device_of_this_process(device: torch.device) -> torch.device:
    """The GPU with the number of this process where `device` is CUDA; other devices as they are."""
    return torch.device("cuda", rank_and_world_size()[0]) if device.type == "cuda" else device


def distribute_network(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Wraps a network so that gradients and batch statistics are shared by all processes."""
    if device.type == "cuda":  # the synchronised batch norm exists on GPUs only
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def gather(value: Any) -> list[Any]:
    """The value of every process, in order of rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Returns once every process of the group has come here."""
    if is_distributed():
        dist.barrier()
