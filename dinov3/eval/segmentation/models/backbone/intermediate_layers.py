"""The feature extractor of linear heads: unmodified maps of selected blocks of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dinov3.eval.segmentation.models.backbone.frozen_backbone import hold_in_eval_mode, intermediate_layers
from dinov3.eval.segmentation.models.utils.image_size import check_image_size


class ModelWithIntermediateLayers(nn.Module):
    """Maps of several blocks.

    While none of its parameters requires a gradient, the transformer stays in eval mode regardless of `train()` and
    runs without recording gradients (unless the image requires one).

    Args:
        feature_model: Has `embed_dim`, `patch_size` and `get_intermediate_layers`.
        n: 0-based indices of the blocks, ascending.
        return_class_token: Also return the class token of each block.
        norm: Apply the transformer's final norm to each block.
        freeze_backbone: Freeze all parameters now. False leaves their flags unchanged.
    """

    def __init__(
        self,
        feature_model: nn.Module,
        n: Sequence[int],
        *,
        return_class_token: bool = False,
        norm: bool = True,
        freeze_backbone: bool = True,
    ) -> None:
        super().__init__()
        self.feature_model = feature_model
        self.n = list(n)
        self.return_class_token = return_class_token
        self.norm = norm
        if freeze_backbone:
            feature_model.requires_grad_(False)
        self.train(self.training)

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        return self.feature_model

    @property
    def size_multiple(self) -> int:
        """Required divisor of height and width of an image: the patch size."""
        return self.feature_model.patch_size

    def train(self, mode: bool = True) -> ModelWithIntermediateLayers:
        """Sets the mode; a frozen transformer stays in eval mode."""
        super().train(mode)
        hold_in_eval_mode(self.feature_model)
        return self

    def forward(self, image: Tensor) -> Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]]:
        """Reads the blocks.

        Args:
            image: (B, C, H, W), H and W multiples of the patch size p.

        Returns:
            One (B, D, H/p, W/p) per block, or pairs of it and the class token (B, D).

        Raises:
            ValueError: If H or W is not a multiple of p; the message names the next size that is.
        """
        check_image_size(*image.shape[-2:], self.size_multiple)
        options = {"norm": self.norm}
        if self.return_class_token:  # transformers without class token need not support the option
            options["return_class_token"] = True
        return intermediate_layers(self.feature_model, image, self.n, **options)
