"""Training as one of several processes, each with a device of its own; every function also works for a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinov3.utils.errors import UsageError


def is_distributed() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def device_of_this_process(device: torch.device) -> torch.device:
    """The GPU with the number of this process on its machine where `device` is CUDA; other devices as they are."""
    if device.type != "cuda":
        return device
    rank = rank_and_world_size()[0]
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) if is_distributed() else 0)


@contextmanager
def process_group_from_environment(device: torch.device) -> Iterator[None]:
    """Makes this process one of the group that `torchrun` describes in the environment; alone it stays alone.

    The group lasts as long as the block. It communicates by NCCL on CUDA devices and by gloo elsewhere. When the block
    fails, the group is left as it is: waiting for processes that will not answer would hide the failure, whereas the
    exit of this process makes `torchrun` end the others.

    Raises:
        UsageError: The variables do not describe a group, the other processes do not come, or this machine has fewer
            GPUs than processes.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or is_distributed():
        yield
        return
    backend = "gloo"
    if device.type == "cuda":
        backend, gpu = "nccl", int(os.environ.get("LOCAL_RANK", "0"))
        if gpu >= torch.cuda.device_count():
            raise UsageError(
                f"Process {gpu + 1} of this machine has no GPU, there are {torch.cuda.device_count()}; start torchrun "
                f"with --nproc_per_node={torch.cuda.device_count()} or with device=cpu"
            )
        torch.cuda.set_device(gpu)
    try:
        dist.init_process_group(backend)
    except (ValueError, RuntimeError, OSError) as err:  # the errors of torch's stores and backends are RuntimeErrors
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise UsageError(
            f"The environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but the processes cannot be joined: {reason}; "
            "start with torchrun --nproc_per_node=N -m ..., or unset WORLD_SIZE for one process"
        ) from err
    yield
    dist.destroy_process_group()


def distribute_network(
    network: nn.Module, device: torch.device, *, find_unused_parameters: bool = False
) -> DistributedDataParallel:
    """Wraps a network so that all processes average their gradients.

    Args:
        network: On `device`; `dinov3.layers.synced_batch_norm` makes its batch statistics common, too.
        device: Of this process.
        find_unused_parameters: Whether a step may leave trained parameters without a gradient.
    """
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
    )


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
