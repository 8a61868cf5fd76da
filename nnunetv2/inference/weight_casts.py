"""Cast weights to half precision once per image instead of in every forward pass.

Autocast remembers its casts of weights that require gradients, until its context ends, and in no-grad mode only: in
inference mode, and of frozen weights, it casts anew each time. What is cast stays autocast's choice, so results are
bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nnunetv2.utilities.device_memory import free_bytes

_LARGEST_SHARE_OF_FREE_MEMORY = 0.25


@contextmanager
def weights_cast_once(network: nn.Module, device: torch.device) -> Iterator[None]:
    """A context in which autocast remembers all weights that `call_outside_inference_mode` makes it cast.

    Args:
        network: not compiled; compiled code depends on which weights require gradients.
        device: that of autocast, whose context must surround this one. Without autocast, nothing changes; if memory
            does not suffice for the casts, none is remembered.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    weights = [parameter for parameter in network.parameters() if parameter.dtype == torch.float32]
    if sum(weight.nbytes for weight in weights) / 2 > _LARGEST_SHARE_OF_FREE_MEMORY * free_bytes(device):
        forget_casts(device)
        yield
        return
    frozen = [weight for weight in weights if not weight.requires_grad and not weight.is_inference()]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def forget_casts(device: torch.device) -> None:
    """Let autocast of a device remember nothing until its context ends; does nothing outside of one."""
    if not torch.is_autocast_enabled(device.type):
        return  # nothing would ever undo it
    torch.set_autocast_cache_enabled(False)
    torch.clear_autocast_cache()


def call_outside_inference_mode(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Compute `network(images)` in no-grad mode."""
    with torch.inference_mode(False), torch.no_grad():
        return network(images.clone())  # a tensor made in inference mode cannot be written outside of it
