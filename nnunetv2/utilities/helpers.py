"""Small torch helpers shared by several packages."""

from __future__ import annotations

import contextlib
from types import TracebackType

import torch


def softmax_helper_dim0(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the first axis, as for logits (K, ...) of one image."""
    return torch.softmax(x, 0)


def softmax_helper_dim1(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the second axis, as for logits (B, K, ...) of a batch."""
    return torch.softmax(x, 1)


def empty_cache(device: torch.device) -> None:
    """Release unused memory of an accelerator; does nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class dummy_context(contextlib.AbstractContextManager):
    """A context manager that does nothing, for devices without autocast."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        return None
