"""Settings of the segmentation head, and their choices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import require_choice, require_multiple, require_range


class BackboneLayersSet(Enum):
    """Named selections of blocks. FOUR_EVEN_INTERVALS is [2, 5, 8, 11] of 12, [4, 11, 17, 23] of 24, and so on."""

    LAST = "LAST"
    FOUR_LAST = "FOUR_LAST"
    FOUR_EVEN_INTERVALS = "FOUR_EVEN_INTERVALS"


DECODERS = ("linear", "m2f")
OUT_LAYERS = tuple(BackboneLayersSet.__members__)
SIZE_MULTIPLE = 32  # pixels: the coarsest map of the m2f head's adapter has 1/32 of the image's size


@dataclass
class DecoderConfig:
    """The segmentation head."""

    type: str = "m2f"
    """m2f (adapter and Mask2Former) or linear (one linear classifier for all patches)."""
    backbone_out_layers: str | list[int] | None = None
    """Blocks to read: LAST, FOUR_LAST, FOUR_EVEN_INTERVALS or a list; null: LAST for linear, FOUR_EVEN_INTERVALS for
    m2f."""
    use_batchnorm: bool = True
    """Linear head: batch norm before the classifier."""
    use_cls_token: bool = False
    """Linear head: concatenate the class token to every patch."""
    use_backbone_norm: bool = True
    """Linear head: apply the backbone's final norm to all blocks that are read."""
    num_classes: int = 150
    """Number of classes, 2 to 255; without the ignored label."""
    hidden_dim: int = 2048
    """m2f head: channels; a multiple of 32 and of num_heads. 256 has a seventeenth of the parameters."""
    dropout: float = 0.1
    """Linear head: probability of dropping an input channel while training, in [0, 1)."""
    num_heads: int = 16
    """m2f head: attention heads."""
    dim_feedforward: int = 4096
    """m2f head: hidden width of the feed-forward networks."""
    num_queries: int = 100
    """m2f head: masks proposed per image."""
    num_encoder_layers: int = 6
    """m2f head: layers of the pixel decoder."""
    num_decoder_layers: int = 9
    """m2f head: layers of the mask transformer."""
    drop_path_rate: float = 0.3
    """m2f head: probability that an image skips a feed-forward network of the adapter while training, in [0, 1)."""
    gradient_checkpointing: bool = True
    """m2f head: recompute the adapter in the backward pass; saves memory, takes more time."""

    def __post_init__(self) -> None:
        require_choice("decoder_head.type", self.type, DECODERS)
        require_range("decoder_head.num_classes", self.num_classes, 2, 255)
        for name in ("dropout", "drop_path_rate"):
            require_range(f"decoder_head.{name}", getattr(self, name), 0, 0.99)
        for name in ("num_heads", "dim_feedforward", "num_queries", "num_encoder_layers", "num_decoder_layers"):
            require_range(f"decoder_head.{name}", getattr(self, name), 1)
        if self.backbone_out_layers is None:
            self.backbone_out_layers = "LAST" if self.type == "linear" else "FOUR_EVEN_INTERVALS"
        if isinstance(self.backbone_out_layers, BackboneLayersSet):
            self.backbone_out_layers = self.backbone_out_layers.name
        self._check_out_layers()
        if self.type == "m2f":
            require_range("decoder_head.hidden_dim", self.hidden_dim, 1)
            require_multiple(
                "decoder_head.hidden_dim",
                [self.hidden_dim],
                math.lcm(32, self.num_heads),
                "of 32 and of decoder_head.num_heads",
            )

    def arguments(self) -> dict[str, Any]:
        """Returns these settings as arguments of `build_segmentation_decoder`."""
        values = dict(vars(self))
        return {"decoder_type": values.pop("type"), "with_cp": values.pop("gradient_checkpointing"), **values}

    def _check_out_layers(self) -> None:
        layers, name = self.backbone_out_layers, "decoder_head.backbone_out_layers"
        if isinstance(layers, str):
            require_choice(name, layers, OUT_LAYERS)
            is_four = layers != "LAST"
        else:
            if not layers or layers != sorted({layer for layer in layers if layer >= 0}):
                raise UsageError(f"{name}={layers} must be ascending numbers of blocks from 0, for example [2,5,8,11]")
            is_four = len(layers) == 4
        if self.type == "m2f" and not is_four:
            raise UsageError(
                f"{name}={layers} does not suit decoder_head.type=m2f, which reads four blocks; leave it out, or give "
                f"FOUR_EVEN_INTERVALS, FOUR_LAST or four numbers of blocks"
            )
