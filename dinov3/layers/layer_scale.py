"""Learned per-channel scale of a residual branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies each channel with its own learned factor.

    Args:
        dim: Channels.
        init_values: Initial value of all factors; small, so that a deep network starts close to the identity.
        device: Device on which the factors are created.

    Source: Touvron et al. 2021, "Going deeper with Image Transformers", equation 4, arXiv:2103.17239.
    """

    def __init__(self, dim: int, init_values: float = 1e-5, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.init_values = init_values
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values), device=device))

    def reset_parameters(self) -> None:
        """Resets all factors to their initial value."""
        nn.init.constant_(self.gamma, self.init_values)

    def forward(self, branch: Tensor) -> Tensor:
        """Takes and returns (..., dim)."""
        return branch * self.gamma
