"""Device settings of a training: compilation, threads."""

from __future__ import annotations

import logging
import os
import sys

import torch

logger = logging.getLogger(__name__)

_AFFIRMATIVE = ("true", "1", "t")


def should_compile(device: torch.device) -> bool:
    """True if networks are compiled: only on CUDA outside Windows, unless `nnUNet_compile` disables it."""
    wish = os.environ.get("nnUNet_compile")
    possible = device.type == "cuda" and sys.platform != "win32"
    if not possible:
        if wish is not None and wish.lower() in _AFFIRMATIVE:
            logger.warning("nnUNet_compile is ignored: torch.compile is used only on CUDA outside Windows")
        return False
    return wish is None or wish.lower() in _AFFIRMATIVE


def set_threads(device_type: str) -> None:
    """Sets torch's number of threads for a training command.

    With a GPU, one thread suffices and the cores are left to the augmentation workers. On the CPU, torch's default
    stays:
    `OMP_NUM_THREADS` if set, else the cores available to this process.
    """
    if device_type == "cuda":
        torch.set_num_threads(1)
