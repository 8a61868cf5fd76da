"""Process groups with one device per process; every function also works for a single process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinov3.utils.errors import ConnectionLostError, UsageError, UserError

_NUM_FAILURES = "num_failed_processes"


def is_distributed() -> bool:
    """True if this process has joined a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_world_size() -> tuple[int, int]:
    """Returns rank and number of processes; (0, 1) without a group."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def device_of_this_process(device: torch.device) -> torch.device:
    """Returns this process's GPU (by local rank) if `device` is CUDA; other devices unchanged."""
    if device.type != "cuda":
        return device
    rank = rank_and_world_size()[0]
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) if is_distributed() else 0)


def world_size_in_environment() -> int:
    """Returns the number of processes started by `torchrun` or `launch`; 1 without them.

    Raises:
        UsageError: `WORLD_SIZE` is not a number.
    """
    value = os.environ.get("WORLD_SIZE", "1")
    if not value.isdecimal():
        raise UsageError(
            f"The environment has WORLD_SIZE={value}, but the processes cannot be joined: it is no number; "
            "start with torchrun --nproc_per_node=N -m ..., or unset WORLD_SIZE for one process"
        )
    return int(value)


@contextmanager
def process_group_from_environment(
    device: torch.device, *, backend: str | None = None, timeout: timedelta | None = None
) -> Iterator[None]:
    """Joins the group that `torchrun` or `launch` describes in the environment; does nothing for a single process.

    The group exists inside the block. If the block fails, the group is not destroyed: waiting for unresponsive
    processes would hide the failure, whereas the exit of this process makes `torchrun` stop the others. If several
    processes raise an error, the first reports it; the others exit with the same exit code.

    Args:
        device: device of the computation; on CUDA, each process uses the GPU of its local rank.
        backend: communication backend; None: NCCL on CUDA, gloo elsewhere.
        timeout: how long the processes wait for each other; None: torch's default.

    Raises:
        UsageError: the environment variables are invalid, other processes do not join, or this machine has fewer GPUs
            than processes.
        ConnectionLostError: another process ended during the block.
    """
    if world_size_in_environment() == 1 or is_distributed():
        yield
        return
    gpu = _own_gpu() if device.type == "cuda" else None
    store = _join(backend or ("gloo" if gpu is None else "nccl"), gpu, timeout)
    try:
        yield
    except Exception as err:
        if not isinstance(err, UserError) and not _is_lost_connection(err):
            raise
        if not _is_first_to_fail(store):
            raise SystemExit(getattr(err, "exit_code", 1)) from err
        if isinstance(err, UserError):
            raise
        reason = f" ({str(err).splitlines()[0]})" if isinstance(err, dist.DistError) else ""
        raise ConnectionLostError(f"lost the connection to another process, which has ended{reason}") from err
    dist.destroy_process_group()


def _own_gpu() -> int:
    """Makes this process's GPU the current one and returns its index."""
    gpu, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", gpu + 1))
    if num_processes > there:  # every process checks this, so that none waits for one that has exited
        raise UsageError(
            f"This machine has {num_processes} processes and {there} GPUs; start torchrun with "
            f"--nproc_per_node={there}, or compute on the cpu"
        )
    torch.cuda.set_device(gpu)
    return gpu


def _join(backend: str, gpu: int | None, timeout: timedelta | None) -> dist.Store:
    """Waits for the other processes to join; returns the store that they share."""
    device = torch.device("cuda", gpu) if backend == "nccl" else None
    try:
        store, rank, world_size = next(dist.rendezvous("env://"))
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=timeout, device_id=device
        )
    except (ValueError, RuntimeError, OSError) as err:  # torch's stores and backends raise RuntimeError
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise UsageError(
            f"The environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but the processes cannot be joined: {reason}; "
            "start with torchrun --nproc_per_node=N -m ..., or unset WORLD_SIZE for one process"
        ) from err
    return store


def _is_lost_connection(err: BaseException) -> bool:
    """True if an error only reports that another process does not respond, not why."""
    return isinstance(err, dist.DistError) or (isinstance(err, RuntimeError) and "gloo/" in str(err))


def _is_first_to_fail(store: dist.Store) -> bool:
    try:
        return store.add(_NUM_FAILURES, 1) == 1
    except RuntimeError:  # the process that hosts the store died, so it cannot have reported anything
        return True


def distribute_network(
    network: nn.Module, device: torch.device, *, find_unused_parameters: bool = False
) -> DistributedDataParallel:
    """Wraps a network so that all processes average their gradients.

    Args:
        network: on `device`; `dinov3.layers.synced_batch_norm` shares its batch statistics as well.
        device: device of this process.
        find_unused_parameters: a step may leave trained parameters without a gradient, such as disabled outputs at
            lower resolutions, or backbone blocks after the last one that is read.
    """
    for parameter in network.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(_with_plain_strides)
    return DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        gradient_as_bucket_view=True,  # gradients need no second copy
    )


def _with_plain_strides(gradient: torch.Tensor) -> torch.Tensor:
    """Returns the gradient with the strides of a new tensor.

    Convolutions return arbitrary strides for axes of length one, about which DistributedDataParallel would warn,
    because it compares all strides.
    """
    return gradient.flatten().view(gradient.shape)


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in order of rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Blocks until every process of the group gets here."""
    if is_distributed():
        dist.barrier()
