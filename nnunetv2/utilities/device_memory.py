"""Memory of an accelerator: how much is free, and how much a call takes."""

from __future__ import annotations

from collections.abc import Callable

import torch


def reports_memory(device: torch.device) -> bool:
    """Whether the functions of this module say something about a device."""
    return device.type == "cuda"


def free_bytes(device: torch.device) -> int:
    """Bytes that tensors could take, torch's unused reserve included; 0 if the device does not report them."""
    if not reports_memory(device):
        return 0
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def call_and_measure(function: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, int]:
    """Call a function; also return the bytes of its result and of what it needed only for a while.

    What it leaves behind, such as workspaces and cast weights, is not counted: the next call finds it there.
    """
    torch.cuda.reset_peak_memory_stats(device)
    result = function()
    temporary = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    return result, temporary + result.nbytes
