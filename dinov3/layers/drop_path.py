"""Stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a residual branch for whole samples and scales the others to preserve the expectation.

    No-op in eval mode.

    Args:
        rate: Probability in [0, 1) that the branch of a sample is dropped.

    Raises:
        ValueError: If the rate is outside [0, 1).

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"A drop path rate of {rate} was given; give one of at least 0 and below 1.")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Takes and returns (B, ...)."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        kept = torch.empty_like(branch[(slice(None), *[slice(1)] * (branch.ndim - 1))]).bernoulli_(keep)
        return branch * kept / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
