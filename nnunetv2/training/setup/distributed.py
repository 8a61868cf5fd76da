"""Distributed training: the share of each process in the global batch, and the wrapped network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dinov3.layers.synced_batch_norm import synchronise_batch_norm
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.processes.process_group import distribute_network, rank_and_world_size
from nnunetv2.errors import UsageError


def share_of_batch(global_batch_size: int, oversample: float, rank: int, world_size: int) -> tuple[int, float]:
    """Computes batch size and foreground oversampling of one process.

    The loader forces foreground in the last samples of a batch: sample `i` of `n` where `i >= round(n * (1 -
    oversample))`. The samples of the global batch are assigned in order; if it does not divide evenly, the first
    processes get one more. Each process oversamples such that together they force the same samples as a single process
    would. A single process keeps both numbers.

    Args:
        global_batch_size: samples over all processes.
        oversample: share of the samples that must contain foreground, 0 to 1.
        rank: rank of this process, counted from 0.

    Raises:
        UsageError: there are fewer samples than processes.
    """
    if world_size == 1:
        return global_batch_size, oversample
    if global_batch_size < world_size:
        raise UsageError(
            f"The batch size {global_batch_size} cannot be shared by {world_size} processes; "
            f"use -num_gpus {global_batch_size} or fewer (with torchrun: --nproc_per_node), or plans with a larger "
            f"batch_size"
        )
    base, remainder = divmod(global_batch_size, world_size)
    own = base + (rank < remainder)
    first = rank * base + min(rank, remainder)
    last = first + own
    if last / global_batch_size < 1 - oversample:
        return own, 0.0
    if first / global_batch_size > 1 - oversample:
        return own, 1.0
    first_forced = round(global_batch_size * (1 - oversample))
    return own, (last - max(first, min(first_forced, last))) / own


def global_batch_size(own: int, planned: int) -> int:
    """Returns the samples per training step over all processes, which share the planned batch.

    Args:
        own: samples per step of this process.
        planned: batch size of the plans.
    """
    return int(own if rank_and_world_size()[1] == 1 else planned)


def distribute(
    network: nn.Module, device: torch.device, *, deep_supervision: bool, settings: dict[str, Any] | None
) -> nn.Module:
    """Wraps a network so that all processes share weights, gradients and batch statistics.

    Args:
        deep_supervision, settings: see `has_idle_parameters`.
    """
    synchronised = synchronise_batch_norm(network, device)
    idle = has_idle_parameters(network, deep_supervision, settings)
    return distribute_network(synchronised, device, find_unused_parameters=idle)


def has_idle_parameters(network: nn.Module, deep_supervision: bool, settings: dict[str, Any] | None) -> bool:
    """True if a step may leave trained parameters without a gradient, which DDP must know.

    U-Nets keep the output layers of lower resolutions without deep supervision. A fully trained backbone has parameters
    that only pretraining uses, and blocks after the last one that the head reads.

    Args:
        settings: settings of a ViT trainer, with the section `model`; None for others.
    """
    backbone = getattr(unwrap(network), "backbone", None)
    if backbone is None:
        return not deep_supervision
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        return False
    model = (settings or {}).get("model", {})
    if model.get("tuning") != "lora":
        return True
    num_blocks, read = backbone.num_blocks, unwrap(network).out_indices
    return max(read, default=num_blocks - 1) < num_blocks - 1  # a head that owns the backbone runs all blocks
