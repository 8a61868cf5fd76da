"""Memory of an accelerator: how much is free, and how much a call takes."""

from __future__ import annotations

import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that tensors could take on a CUDA device, torch's unused reserve included; 0 on devices of other kinds."""
    if device.type != "cuda":
        return 0
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve
