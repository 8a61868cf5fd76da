"""Mask2Former head: pixel decoder and mask transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models.heads.mask2former_transformer_decoder import MultiScaleMaskedTransformerDecoder
from dinov3.eval.segmentation.models.heads.pixel_decoder import MSDeformAttnPixelDecoder
from dinov3.eval.segmentation.settings.head import DecoderConfig


class Mask2FormerHead(nn.Module):
    """Predicts classes and masks of a fixed number of queries from a feature pyramid.

    Args:
        input_shape: For each of the maps "1" (1/4 of the image) to "4" (1/32), a sequence that starts with its
            channels; the original's further entries height, width and stride are ignored.
        hidden_dim: Channels of both decoders, a multiple of 32.
        num_classes: K, without "no object".
        loss_weight: Ignored; kept for compatibility with the original.
        ignore_value: Ignored; kept for compatibility with the original.
        num_heads: Heads of all attention layers; must divide `hidden_dim`.
        dim_feedforward: Hidden width of all feed-forward networks.
        num_queries: Q, at least the number of masks per image.
        num_decoder_layers: Layers of the mask transformer.
        num_encoder_layers: Layers of the pixel decoder.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", arXiv:2112.01527.
    """

    def __init__(
        self,
        input_shape: Mapping[str, Sequence[int]],
        hidden_dim: int = DecoderConfig.hidden_dim,
        num_classes: int = DecoderConfig.num_classes,
        loss_weight: float = 1.0,
        ignore_value: int = -1,
        *,
        num_heads: int = DecoderConfig.num_heads,
        dim_feedforward: int = DecoderConfig.dim_feedforward,
        num_queries: int = DecoderConfig.num_queries,
        num_decoder_layers: int = DecoderConfig.num_decoder_layers,
        num_encoder_layers: int = DecoderConfig.num_encoder_layers,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = MSDeformAttnPixelDecoder(
            {name: shape[0] for name, shape in input_shape.items()},
            hidden_dim=hidden_dim,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
            num_layers=num_encoder_layers,
        )
        self.predictor = MultiScaleMaskedTransformerDecoder(
            num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
            num_layers=num_decoder_layers,
        )

    def forward(
        self, features: Mapping[str, Tensor], depth: int | None = None
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Takes maps "1" to "4"; returns the dictionary of `MultiScaleMaskedTransformerDecoder.forward`.

        With `depth`, every so many images are the slices of a volume, which share their queries.
        """
        mask_features, levels = self.pixel_decoder(features)
        return self.predictor(levels, mask_features, depth)

    def predict(
        self, features: Mapping[str, Tensor], rescale_to: Sequence[int] = (512, 512)
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Like `forward`, with `pred_masks` resized (bilinear) to `rescale_to` (height, width)."""
        outputs = self(features)
        masks = F.interpolate(outputs["pred_masks"], size=tuple(rescale_to), mode="bilinear", align_corners=False)
        return {**outputs, "pred_masks": masks}
