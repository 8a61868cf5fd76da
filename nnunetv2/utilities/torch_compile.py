"""What the environment variable `nnUNet_compile` asks of torch.compile."""

from __future__ import annotations

import os

import torch
from torch import nn

_AFFIRMATIVE = ("true", "1", "t")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def is_wanted() -> bool | None:
    """True if the variable says yes or names a mode of torch.compile; None if it is not set."""
    wish = os.environ.get("nnUNet_compile")
    return None if wish is None else wish.lower() in (*_AFFIRMATIVE, *MODES)


def compiled(network: nn.Module) -> nn.Module:
    """Compiles in the mode that the variable names.

    With `reduce-overhead`, forward and backward pass of a network are replayed on CUDA as one graph each, which
    launches no kernel from the host; inputs keep their size then.
    """
    wish = os.environ.get("nnUNet_compile", "").lower()
    return torch.compile(network, mode=wish if wish in MODES else None)
