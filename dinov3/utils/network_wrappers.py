"""Unwraps networks from distributed training and compilation."""

from __future__ import annotations

from torch import nn


def unwrap(network: nn.Module) -> nn.Module:
    """Returns the network itself, without `DistributedDataParallel` and `torch.compile`."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module
    return getattr(network, "_orig_mod", network)
