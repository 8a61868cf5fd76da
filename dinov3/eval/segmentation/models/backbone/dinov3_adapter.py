"""ViT-Adapter without injectors: a feature pyramid on an unmodified vision transformer.

Shapes: B batch, D embed dim, H W image size, N = HW/64 + HW/256 + HW/1024 tokens of the adapter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models.backbone.extractor import ExtractorConfig, InteractionBlock
from dinov3.eval.segmentation.models.backbone.frozen_backbone import hold_in_eval_mode, intermediate_layers, is_trained
from dinov3.eval.segmentation.models.backbone.spatial_prior import SpatialPriorModule
from dinov3.eval.segmentation.models.utils.image_size import check_image_size
from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn, cell_centres
from dinov3.eval.segmentation.settings.head import SIZE_MULTIPLE, DecoderConfig

NUM_SCALES = 4
NUM_EXTRA_EXTRACTORS = 2  # after the last interaction


class DINOv3_Adapter(nn.Module):  # noqa: N801 - the name users import
    """Maps at 1/4, 1/8, 1/16 and 1/32 of the image, computed from four layers of a vision transformer and a small CNN.

    The transformer runs once and is not modified by the adapter. While none of its parameters requires a gradient, it
    stays in eval mode regardless of `train()` and runs without recording gradients (unless the image requires one).
    With LoRA or full fine-tuning, gradients flow through it and it follows `train()`.

    Any patch size works: features are read at relative positions, so their grid need not be H/16 x W/16. If the patch
    size does not divide the image, the image is resized to the next multiple for the transformer.

    Args:
        backbone: Has `embed_dim`, `patch_size` and `get_intermediate_layers(image, n=indices, reshape=True,
            norm=True)`, which returns one (B, D, h, w) map per index.
        interaction_indexes: The four transformer blocks to read, 0-based, ascending.
        pretrain_size: Ignored; kept for compatibility with the original.
        conv_inplane: Channels of the CNN at 1/4.
        n_points: Sampling points per head of an extractor.
        deform_num_heads: Heads of an extractor.
        drop_path_rate: Probability in [0, 1) that a sample skips the feed-forward network of an extractor in training.
        init_values: Ignored; kept for compatibility with the original.
        with_cffn: Extractors have a feed-forward network.
        cffn_ratio: Hidden width of that network as a fraction of D.
        deform_ratio: Width of the values of an extractor as a fraction of D.
        add_vit_feature: Add the transformer's maps to the result.
        use_extra_extractor: Add two more extractors on the last layer.
        with_cp: Recompute the extractors in the backward pass instead of keeping their activations.
        freeze_backbone: Freeze all backbone parameters now. False leaves their flags unchanged.
        in_channels: Input channels C of the backbone.

    Raises:
        ValueError: If the number of blocks is not four.

    Source: Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", arXiv:2205.08534; Simeoni et al. 2025,
    "DINOv3", section 6.3.2, arXiv:2508.10104.
    """

    def __init__(  # noqa: PLR0913 - names and defaults of the original
        self,
        backbone: nn.Module,
        interaction_indexes: Sequence[int] = (9, 19, 29, 39),
        pretrain_size: int = 512,
        conv_inplane: int = 64,
        n_points: int = 4,
        deform_num_heads: int = 16,
        drop_path_rate: float = DecoderConfig.drop_path_rate,
        init_values: float = 0.0,
        with_cffn: bool = True,
        cffn_ratio: float = 0.25,
        deform_ratio: float = 0.5,
        add_vit_feature: bool = True,
        use_extra_extractor: bool = True,
        with_cp: bool = DecoderConfig.gradient_checkpointing,
        *,
        freeze_backbone: bool = True,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(interaction_indexes) != NUM_SCALES:
            raise ValueError(
                f"{len(interaction_indexes)} backbone layers {list(interaction_indexes)} were given to the adapter; "
                f"give {NUM_SCALES}."
            )
        self.interaction_indexes = list(interaction_indexes)
        self.add_vit_feature = add_vit_feature
        self.patch_size: int = backbone.patch_size
        dim: int = backbone.embed_dim
        config = ExtractorConfig(
            dim, deform_num_heads, n_points, with_cffn, cffn_ratio, drop_path_rate, deform_ratio, with_cp
        )
        num_extra = [0] * (NUM_SCALES - 1) + [NUM_EXTRA_EXTRACTORS if use_extra_extractor else 0]
        self.level_embed = nn.Parameter(torch.empty(NUM_SCALES - 1, dim))
        self.spm = SpatialPriorModule(conv_inplane, dim, in_channels=in_channels)
        self.interactions = nn.ModuleList(InteractionBlock(config, extra) for extra in num_extra)
        self.up = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.norm3 = nn.BatchNorm2d(dim)
        self.norm4 = nn.BatchNorm2d(dim)
        self._reset_parameters()
        self.backbone = backbone
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.train(self.training)

    @torch.no_grad()
    def _reset_parameters(self) -> None:
        nn.init.normal_(self.level_embed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # its own rule overrides that of its linear layers
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()

    @property
    def size_multiple(self) -> int:
        """Required divisor of height and width of an image."""
        return SIZE_MULTIPLE

    def backbone_is_trained(self) -> bool:
        """True if any parameter of the backbone requires a gradient."""
        return is_trained(self.backbone)

    def train(self, mode: bool = True) -> DINOv3_Adapter:
        """Sets the mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        hold_in_eval_mode(self.backbone)
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes the pyramid.

        Args:
            image: (B, C, H, W), H and W multiples of 32.

        Returns:
            "1", "2", "3", "4": (B, D, H/4, W/4) to (B, D, H/32, W/32).

        Raises:
            ValueError: If H or W is not a multiple of 32; the message names the next size that is.
        """
        check_image_size(*image.shape[-2:], SIZE_MULTIPLE)
        features = self._backbone_features(image)
        finest, *coarser = self.spm(image)
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in coarser)
        query = torch.cat(
            [level.flatten(2).transpose(1, 2) + embed for level, embed in zip(coarser, self.level_embed, strict=True)],
            dim=1,
        )  # (B, N, D)
        reference_points = cell_centres(sizes, image.device)[None, :, None]  # (1, N, 1, 2)
        for interaction, feature in zip(self.interactions, features, strict=True):
            tokens = feature.flatten(2).transpose(1, 2)
            query = interaction(query, reference_points, tokens, tuple(feature.shape[-2:]), sizes)

        cells = query.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        maps = [level.unflatten(-1, size) for level, size in zip(cells, sizes, strict=True)]
        # The tokens start at 1/8 of the image; the map at 1/4 is upsampled from there.
        maps.insert(0, self.up(maps[0]) + finest)
        if self.add_vit_feature:
            maps = [
                level + F.interpolate(feature, size=level.shape[-2:], mode="bilinear", align_corners=False)
                for level, feature in zip(maps, features, strict=True)
            ]
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        return {str(scale): norm(level) for scale, (norm, level) in enumerate(zip(norms, maps, strict=True), start=1)}

    def _backbone_features(self, image: Tensor) -> Sequence[Tensor]:
        size = [math.ceil(side / self.patch_size) * self.patch_size for side in image.shape[-2:]]
        if size != list(image.shape[-2:]):
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        return intermediate_layers(self.backbone, image, self.interaction_indexes, norm=True)
