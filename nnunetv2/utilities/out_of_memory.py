"""Recognise errors of every kind that mean: memory is used up."""

from __future__ import annotations

import re

import torch

# What torch raises as a plain RuntimeError: the allocators of CPU and MPS, and the libraries of CUDA.
_MESSAGES = re.compile(r"out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error was raised because memory of a device, or main memory, is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_MESSAGES.search(str(error)))
