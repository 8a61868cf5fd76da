"""The linear head of DINOv2 and DINOv3: one classifier shared by all patch tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dinov3.eval.segmentation.models.heads import linear_head
from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import ANY_NUMBER, DenseHeadConfig


@register_head("linear")
class Linear(DenseHead):
    """Linear classifier: batch norm and a 1x1 convolution on the maps of one or more blocks.

    Measures the backbone's features alone, because nothing mixes neighbouring patches. Contours are as coarse as the
    patches, so it suits large objects and serves as baseline for every other head.

    Shapes: B batch, K classes, h x w patches.

    Source: Oquab et al. 2023, "DINOv2", section 7.4, arXiv:2304.07193; Simeoni et al. 2025, "DINOv3", section 6.1.2,
    arXiv:2508.10104.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone and linear classifier."""

        num_blocks: ClassVar[int] = ANY_NUMBER
        blocks: ClassVar[str] = "LAST"
        training_only: ClassVar[tuple[str, ...]] = ("dropout",)
        # Meta trains it with AdamW at 1e-3. The multipliers keep adapters at 3e-4 and a backbone at 3e-5, as for
        # other heads: a rate that suits one convolution is too high for a pretrained transformer.
        training: ClassVar[Mapping[str, Any]] = {
            "lr": 1e-3,
            "weight_decay": 1e-3,
            "lora_lr_multiplier": 0.3,
            "backbone_lr_multiplier": 0.03,
        }

        use_cls_token: bool = False
        """Concatenate the class token of the block to each patch, which doubles the channels."""
        use_batchnorm: bool = True
        """Batch norm before the classifier."""
        dropout: float = 0.1
        """Probability of dropping a channel of the features while training, in [0, 1)."""

        def __post_init__(self) -> None:
            require_range("model.dropout", self.dropout, 0, 0.99)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return shape.patch_size

    classifier: ClassVar[tuple[str, ...]] = ("linear.conv",)
    part_labels: ClassVar[dict[str, str]] = {"linear": "linear classifier"}

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        if config.use_cls_token and not spec.num_prefix_tokens:
            raise ValueError("model.use_cls_token=true needs a backbone with a class token; set it to false")
        self.linear = linear_head.LinearHead(
            [spec.embed_dim] * spec.num_maps,
            num_classes,
            use_batchnorm=config.use_batchnorm,
            use_cls_token=config.use_cls_token,
            dropout=config.dropout,
        )
        self.normalises_over_batch = config.use_batchnorm

    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, h, w)."""
        maps = features.maps
        if self.training and self.normalises_over_batch and maps[0].shape[0] * maps[0].shape[-2:].numel() == 1:
            raise UsageError(
                "The linear head's batch norm cannot be trained on one patch of one image; give images of more patches "
                "or a batch_size of at least 2 per process (training.batch_size=2 for one), or set "
                "model.use_batchnorm=false"
            )
        return self.linear(list(zip(maps, features.class_tokens, strict=True)) if self.linear.use_cls_token else maps)
