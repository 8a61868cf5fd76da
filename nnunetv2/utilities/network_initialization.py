"""Weight initialisation of U-Nets."""

from __future__ import annotations

from torch import nn

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class InitWeights_He:
    """For `network.apply`: He-normal weights and zero biases for convolutions; other modules stay unchanged.

    Args:
        neg_slope: slope of the leaky ReLU below zero.

    Source: He et al. 2015, arXiv:1502.01852.
    """

    def __init__(self, neg_slope: float = 1e-2) -> None:
        self.neg_slope = neg_slope

    def __call__(self, module: nn.Module) -> None:
        if not isinstance(module, _CONVOLUTIONS):
            return
        nn.init.kaiming_normal_(module.weight, a=self.neg_slope)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
