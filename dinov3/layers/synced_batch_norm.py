"""Batch normalisation over the images of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dinov3.utils.processes.process_group import is_distributed


class SyncedBatchNorm(_BatchNorm):
    """`BatchNorm1d`, `2d` and `3d` with statistics over the batches of all processes in train mode.

    The result equals that of a single process with all images. torch's `SyncBatchNorm` requires CUDA; this one consists
    of differentiable operations and also works with gloo on the CPU. Parameters, buffers and names are those of
    `BatchNorm2d`, and so is the result in eval mode or without a process group.

    Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1, arXiv:1502.03167.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Takes and returns (B, C, ...); B may differ between the processes.

        Raises:
            ValueError: If there are no channels or, in train mode, fewer than two values per channel.
        """
        self._check_input_dim(input)
        if not (self.training and is_distributed()):
            return super().forward(input)
        shape = (1, -1, *[1] * (input.ndim - 2))
        axes = [axis for axis in range(input.ndim) if axis != 1]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        own_count = values.new_full((1,), input.numel() / input.shape[1])
        *sums, count = _SumOverProcesses.apply(torch.cat((values.sum(axes), own_count))).split([input.shape[1], 1])
        if count < 2:
            raise ValueError(
                f"Batch normalisation in train mode needs two values per channel, not {tuple(input.shape)}."
            )
        centred = values - (mean := sums[0] / count).view(shape)
        squares = _SumOverProcesses.apply(centred.square().sum(axes))
        self._update_running_statistics(mean.detach(), squares.detach(), count.detach())
        scale = torch.rsqrt(squares / count + self.eps)
        if self.affine:
            scale = scale * self.weight
        output = centred * scale.view(shape)
        if self.affine:
            output = output + self.bias.view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, squares: Tensor, count: Tensor) -> None:
        if self.running_mean is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        variance = squares / (count - 1)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(
                f"Batch normalisation takes (B, C, ...); a tensor of shape {tuple(input.shape)} was given."
            )


class _SumOverProcesses(torch.autograd.Function):
    """Sums a tensor over all processes. Every output depends on every addend, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, addend: Tensor) -> Tensor:
        total = addend.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replaces all batch norms of a network in place by synchronised ones.

    Args:
        network: Modified in place; parameters and buffers stay the same tensors under the same names.
        device: On CUDA, torch's `SyncBatchNorm` is used, elsewhere `SyncedBatchNorm`.

    Returns:
        The network, or the new layer if the network itself is a batch norm.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, _BatchNorm):
        return _synced(network)
    for name, child in network.named_children():
        setattr(network, name, synchronise_batch_norm(child, device))
    return network


def _synced(norm: _BatchNorm) -> SyncedBatchNorm:
    synced = SyncedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, parameter in norm.named_parameters():
        setattr(synced, name, parameter)
    for name, buffer in norm.named_buffers():
        setattr(synced, name, buffer)
    return synced.train(norm.training)
