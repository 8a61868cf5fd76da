"""How a device is used in training: number format, compilation, threads."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from nnunetv2.errors import UsageError

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16")
_AFFIRMATIVE = ("true", "1", "t")


def resolve_precision(precision: str | None, device: torch.device) -> str:
    """The number format to train with; None means nnU-Net's rule, fp16 on CUDA and fp32 elsewhere.

    Raises:
        UsageError: an unknown name, or a format that the device cannot train in.
    """
    if precision is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; accepted are {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(f"precision fp16 needs a CUDA device and this one is {device.type}; use fp32 or bf16")
    if precision == "bf16" and device.type == "mps":
        raise UsageError("precision bf16 is not available on mps; use fp32")
    return precision


def precision_context(precision: str | None, device: torch.device) -> AbstractContextManager:
    """Context for forward pass and loss: autocast for the half formats, nothing for fp32."""
    precision = resolve_precision(precision, device)
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if precision == "fp16" else torch.bfloat16)


def should_compile(device: torch.device) -> bool:
    """Whether networks are compiled: only on CUDA outside Windows, and not if `nnUNet_compile` says no."""
    wish = os.environ.get("nnUNet_compile")
    possible = device.type == "cuda" and sys.platform != "win32"
    if not possible:
        if wish is not None and wish.lower() in _AFFIRMATIVE:
            logger.warning("nnUNet_compile is ignored: torch.compile is used only on CUDA outside Windows")
        return False
    return wish is None or wish.lower() in _AFFIRMATIVE


def set_threads(device_type: str) -> None:
    """Sets torch's threads for a training command.

    With a GPU the arithmetic is elsewhere, so one thread is left and the cores go to the augmentation workers. On the
    CPU torch's own choice stays: `OMP_NUM_THREADS` where it is set, else the cores that this process may use.
    """
    if device_type == "cuda":
        torch.set_num_threads(1)
