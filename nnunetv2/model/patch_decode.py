"""The decoder of Primus: transposed convolutions from patch tokens to pixels.

Shapes: B batch, D embed dim, p patch size, K classes, n stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nnunetv2.model.channel_norm import ChannelNorm
from nnunetv2.model.head import BackboneSpec, DenseHead, Features
from nnunetv2.model.patch_decode_config import PatchDecodeConfig

_NEGATIVE_SLOPE = 0.01  # assumed by the initialisation of nnU-Net and Primus, whatever the activation


class PatchDecode(nn.Module):
    """Upsampling stages: transposed convolution (factor 2), layer norm over the channels, GELU.

    Args:
        widths: channels of the input, then of each stage's output.
        num_classes: K of the final 1x1 convolution; None: the last stage is a bare transposed convolution that outputs
            the logits.
    """

    def __init__(self, widths: Sequence[int], num_classes: int | None) -> None:
        super().__init__()
        stages: list[nn.Module] = [
            nn.Sequential(_doubling(before, after), ChannelNorm(after), nn.GELU())
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        if num_classes is None:
            stages[-1] = _doubling(*widths[-2:])
        else:
            stages.append(nn.Conv2d(widths[-1], num_classes, kernel_size=1))
        self.decode = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, K, 2^n h, 2^n w)."""
        return self.decode(x)


class PatchDecodeHead(DenseHead):
    """Applies `PatchDecode` to the concatenated maps of the selected blocks."""

    part_labels: ClassVar[dict[str, str]] = {"proj": "projection", "up_projection": "decoder"}

    def __init__(self, config: PatchDecodeConfig, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        before, after = config.num_blocks * spec.embed_dim, config.entry_width(spec.embed_dim)
        self.proj = nn.Identity() if before == after else nn.Conv2d(before, after, kernel_size=1)
        size = (spec.embed_dim, spec.patch_size)
        if config.channels == "halved":
            self.up_projection = PatchDecode(config.halved_widths(*size), num_classes)
            self._classifier = f"up_projection.decode.{config.stages(spec.patch_size)}"
        else:
            self.up_projection = PatchDecode(config.geometric_widths(*size, num_classes), None)
            self._classifier = "up_projection.decode"
        self.apply(_initialise)

    @property
    def classifier(self) -> tuple[str, ...]:
        """The last layer; the whole decoder if its widths depend on the number of classes."""
        return (self._classifier,)

    def forward(self, features: Features) -> Tensor:
        return self.up_projection(self.proj(torch.cat(features.maps, dim=1)))


def _doubling(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)


def _initialise(module: nn.Module) -> None:
    """Initialises kernels with Kaiming's normal distribution, biases with 0.

    Torch computes the fan-in of a transposed convolution from its output channels; published Primus does the same.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, a=_NEGATIVE_SLOPE)
        nn.init.zeros_(module.bias)
