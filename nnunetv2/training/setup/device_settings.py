"""Device settings of a training: compilation, threads."""

from __future__ import annotations

import logging
import sys

import torch

from nnunetv2.utilities import torch_compile

logger = logging.getLogger(__name__)


def should_compile(device: torch.device) -> bool:
    """True if networks are compiled: by default on CUDA, on the CPU if `nnUNet_compile` asks for it; not on Windows."""
    wish = torch_compile.is_wanted()
    is_wanted = device.type == "cuda" if wish is None else wish
    if is_wanted and (device.type not in ("cuda", "cpu") or sys.platform == "win32"):
        if wish is not None:
            logger.warning("nnUNet_compile is ignored: torch.compile is used only on CUDA and CPU outside Windows")
        return False
    return is_wanted


def set_threads(device_type: str) -> None:
    """Sets torch's number of threads for a training command.

    With a GPU, one thread suffices and the cores are left to the augmentation workers. On the CPU, torch's default
    stays:
    `OMP_NUM_THREADS` if set, else the cores available to this process.
    """
    if device_type == "cuda":
        torch.set_num_threads(1)
