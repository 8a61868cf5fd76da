"""Linear head: one linear classifier shared by all patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.settings.head import DecoderConfig

INITIAL_STD = 0.01  # of the weights of the classifier


class LinearHead(nn.Module):
    """Concatenates maps, drops channels, normalises and classifies each cell.

    The norm is BatchNorm2d. For distributed training, see `dinov3.layers.synced_batch_norm`.

    Args:
        in_channels: Channels of each map.
        n_output_channels: Classes K.
        use_batchnorm: Normalise the channels before the classifier.
        use_cls_token: Concatenate the class token of each map to all its cells, which doubles the channels.
        dropout: Probability in [0, 1] that a channel is dropped for a whole image while training.

    Raises:
        ValueError: If `in_channels` is empty.

    Source: Simeoni et al. 2025, "DINOv3", linear probing of dense features, arXiv:2508.10104.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        n_output_channels: int,
        use_batchnorm: bool = DecoderConfig.use_batchnorm,
        use_cls_token: bool = DecoderConfig.use_cls_token,
        dropout: float = DecoderConfig.dropout,
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("A linear head without maps was asked for; give the channels of at least one map.")
        self.in_channels = list(in_channels)
        self.channels = sum(self.in_channels) * (2 if use_cls_token else 1)
        self.n_output_channels = n_output_channels
        self.use_cls_token = use_cls_token
        self.batchnorm_layer = nn.BatchNorm2d(self.channels) if use_batchnorm else nn.Identity()
        self.conv = nn.Conv2d(self.channels, n_output_channels, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout)
        nn.init.normal_(self.conv.weight, std=INITIAL_STD)
        nn.init.zeros_(self.conv.bias)

    def forward(self, features: Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Classifies every cell of the first map.

        Args:
            features: Maps (B, D, ., .); with `use_cls_token`, pairs of a map and its class token (B, D). Maps of other
                sizes are resized (bilinear) to the first.

        Returns:
            Logits (B, K, h, w) with the size of the first map.

        Raises:
            ValueError: If the number of maps differs from `in_channels`.
        """
        return self._classify(self.dropout(self._concatenate(features)))

    def predict(
        self,
        features: Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]],
        rescale_to: Sequence[int] = (512, 512),
    ) -> Tensor:
        """Like `forward` without dropout, with logits resized (bilinear) to `rescale_to` (height, width)."""
        logits = self._classify(self._concatenate(features))
        return F.interpolate(logits, size=tuple(rescale_to), mode="bilinear", align_corners=False)

    def _classify(self, cells: Tensor) -> Tensor:
        return self.conv(self.batchnorm_layer(cells))

    def _concatenate(self, features: Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        if len(features) != len(self.in_channels):
            raise ValueError(
                f"{len(features)} maps were given to a linear head made for {len(self.in_channels)}; "
                f"read as many blocks of the backbone as the head has maps."
            )
        maps = [_with_class_token(*pair) for pair in features] if self.use_cls_token else list(features)
        size = maps[0].shape[-2:]
        resized = [F.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in maps[1:]]
        return torch.cat([maps[0], *resized], dim=1)


def _with_class_token(level: Tensor, class_token: Tensor) -> Tensor:
    return torch.cat((level, class_token[:, :, None, None].expand_as(level)), dim=1)
