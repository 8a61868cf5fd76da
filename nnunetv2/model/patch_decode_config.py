"""Settings and widths of the decoder that Primus and its multi-scale variant share; loads without torch."""

from __future__ import annotations

from dataclasses import dataclass

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head_config import DenseHeadConfig

CHANNELS = ("halved", "geometric")
_NARROWEST = 2  # the layer norm of a single channel is constant


@dataclass
class PatchDecodeConfig(DenseHeadConfig):
    """Backbone and a decoder of transposed convolutions."""

    embed_dim: int | None = None
    """Channels per backbone map after projection; null: the backbone's width, without projection."""
    patch_embed_size: int | None = None
    """Upsampling factor of the decoder, a power of two; null: the backbone's patch size, or the next power of two,
    after which logits are resized."""
    channels: str = "halved"
    """Widths of the decoder: halved at each stage, or geometric: equal ratios from the first width to twice the number
    of classes, as in upstream's Primus."""

    def __post_init__(self) -> None:
        if self.embed_dim is not None:
            require_range("model.embed_dim", self.embed_dim, 1)
        size = self.patch_embed_size
        if size is not None:
            require_range("model.patch_embed_size", size, 2)
            if size != 2 ** num_doublings(size):
                raise UsageError(
                    f"model.patch_embed_size={size} must be a power of two, or null for the backbone's patch size; the "
                    f"next one is {2 ** num_doublings(size)}"
                )
        require_choice("model.channels", self.channels, CHANNELS)

    def check_backbone(self, shape: BackboneShape, place: str) -> None:
        if self.channels == "halved":
            self.halved_widths(shape.width, shape.patch_size)

    def logit_stride(self, shape: BackboneShape) -> float | None:
        return shape.patch_size / 2 ** self.stages(shape.patch_size)

    def stages(self, patch_size: int) -> int:
        """Returns the number of upsampling stages for a patch size of the backbone."""
        return num_doublings(self.patch_embed_size or patch_size)

    def entry_width(self, backbone_width: int) -> int:
        """Returns the decoder's input channels: the sum over all maps."""
        return self.num_blocks * (self.embed_dim or backbone_width)

    def halved_widths(self, backbone_width: int, patch_size: int) -> list[int]:
        """Widths before the first stage and after each, for `channels: halved`.

        Raises:
            UsageError: too few channels for that many halvings.
        """
        stages, width = self.stages(patch_size), self.entry_width(backbone_width)
        if width < _NARROWEST * 2**stages:
            raise UsageError(
                f"model.embed_dim={self.embed_dim} leaves the decoder {width} channels, too few to be halved {stages} "
                f"times; give at least {_NARROWEST * 2**stages // self.num_blocks}, or model.channels=geometric"
            )
        return [width // 2**stage for stage in range(stages + 1)]

    def geometric_widths(self, backbone_width: int, patch_size: int, num_classes: int) -> list[int]:
        """Widths before the first stage and after each, for `channels: geometric`: multiples of 8, finally K."""
        stages, width = self.stages(patch_size), self.entry_width(backbone_width)
        ratio = (width / (2 * num_classes)) ** (1 / stages)
        # The small addend is upstream's: a width halfway between two multiples of 8 is rounded up.
        inner = [max(8, 8 * round((width / ratio**stage + 1e-6) / 8)) for stage in range(1, stages)]
        return [width, *inner, num_classes]


def num_doublings(size: int) -> int:
    """Returns how many times 1 must be doubled to be at least `size`."""
    return (size - 1).bit_length()
