"""How a device is used in training: compilation, threads."""

from __future__ import annotations

import logging
import os
import sys

import torch

logger = logging.getLogger(__name__)

_AFFIRMATIVE = ("true", "1", "t")


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
