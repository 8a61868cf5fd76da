"""Gather a tensor from all processes of a distributed training, with gradients."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import distributed

logger = logging.getLogger(__name__)


def print_if_rank0(*args: Any) -> None:
    """Log the arguments in the process of rank 0 only."""
    if distributed.get_rank() == 0:
        logger.info(" ".join(str(arg) for arg in args))


class AllGatherGrad(torch.autograd.Function):
    """Stack one tensor per process: `AllGatherGrad.apply(x)` has shape (world size, *x.shape) in every process.

    Every process computes the same loss from all parts, so the gradient of a part is the sum over the processes.
    """

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: distributed.ProcessGroup | None = None) -> torch.Tensor:
        ctx.group = group
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(parts, tensor.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        (stacked,) = grad_output
        total = stacked.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, op=distributed.ReduceOp.SUM, group=ctx.group)
        return total[distributed.get_rank(ctx.group)], None
