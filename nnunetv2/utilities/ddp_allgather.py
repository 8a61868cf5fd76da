"""Gather a tensor from all processes of a distributed training in such a way that gradients flow back."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import distributed

logger = logging.getLogger(__name__)


def print_if_rank0(*args: Any) -> None:
    """Logs its arguments in the process of rank 0 alone."""
    if distributed.get_rank() == 0:
        logger.info(" ".join(str(arg) for arg in args))


class AllGatherGrad(torch.autograd.Function):
    """Stacks one tensor per process: `AllGatherGrad.apply(x)` has shape (world size, *x.shape) in every process.

    The loss is the same in all processes and each sees all parts, so the gradient of a part is the sum over processes.
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
