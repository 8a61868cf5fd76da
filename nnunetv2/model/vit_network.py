"""What all networks on a vision transformer share: how images enter, what of the backbone is trained, its weights."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.layers.lora import apply_lora
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_weights import load_backbone_weights
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.input_adapter import InputAdapter
from nnunetv2.model.load_report import LoadedWeights


class ViTNetwork(nn.Module, abc.ABC):
    """A vision transformer with a head, described completely by plain data so that plans can rebuild it.

    The weights are random; `load_backbone_weights` fills the backbone. Subclasses make their head in `build_head`.

    Args:
        input_channels: channels C of the images.
        num_classes: outputs K: labels with background as class 0, or regions.
        deep_supervision: without effect; these networks have one output.
        backbone: family of the backbone, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        tuning: what of the backbone is trained: `frozen` (nothing), `lora` (adapters) or `full`.
        lora: `r`, `lora_alpha`, `lora_dropout`, `target_modules`; for `tuning="lora"`.
        regions: outputs are regions that may overlap, not exclusive labels.
        channel_adaptation: see `InputAdapter`.
        input_norm: see `InputAdapter`.
        input_scale: images are enlarged by this whole factor before the backbone, so that it has more patches.
        use_sliding_window_inference: whether images are predicted in windows of the plans' patch size, or each as a
            whole.
        head: arguments of `build_head`.

    Attributes:
        use_sliding_window_inference: as given.
        autocast_dtype: what prediction on a GPU computes in, as training does.

    Raises:
        UsageError: sizes that do not fit each other, or layers that LoRA cannot adapt.
    """

    autocast_dtype = torch.bfloat16

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool | None = None,
        *,
        backbone: str = "dinov3",
        backbone_size: str = "large",
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        regions: bool = False,
        channel_adaptation: str = "repeat",
        input_norm: str = "dataset",
        input_scale: int = 1,
        use_sliding_window_inference: bool = True,
        **head: Any,
    ) -> None:
        super().__init__()
        self.use_sliding_window_inference = use_sliding_window_inference
        self.regions = regions
        self.input_scale = input_scale
        self.input = InputAdapter(input_channels, channel_adaptation, input_norm)
        vit = create_backbone(backbone, backbone_size, in_channels=self.input.out_channels)
        try:
            set_tuning(vit, tuning, lora)
            self.build_head(vit, num_classes, **head)
        except ValueError as err:
            raise UsageError(f"The settings of the model do not fit: {err}") from err
        self.train()

    @abc.abstractmethod
    def build_head(self, vit: Backbone, num_classes: int, **settings: Any) -> None:
        """Makes the modules around the backbone, which becomes part of them or of the network."""

    @property
    @abc.abstractmethod
    def size_multiple(self) -> int:
        """Height and width of what backbone and head see are multiples of this."""

    @property
    def image_multiple(self) -> int:
        """Images are padded below and on the right until height and width are multiples of this."""
        return self.size_multiple // math.gcd(self.size_multiple, self.input_scale)

    def adapted(self, x: Tensor) -> Tensor:
        """What backbone and head see of images (B, C, H, W): (B, C', s * H', s * W'), padded, then enlarged s times."""
        x = pad_to_multiple(self.input(x), self.image_multiple)
        if self.input_scale == 1:
            return x
        return F.interpolate(x, scale_factor=self.input_scale, mode="bilinear", align_corners=False)

    @property
    @abc.abstractmethod
    def backbone(self) -> Backbone:
        """The vision transformer."""

    def load_backbone_weights(self, path: Path) -> LoadedWeights:
        """Fills the backbone from a file, see `nnunetv2.model.backbone_weights.load_backbone_weights`."""
        return load_backbone_weights(self.backbone, path)


def set_tuning(vit: Backbone, tuning: str, lora: Mapping[str, Any] | None) -> None:
    """Chooses what of a backbone is trained.

    Args:
        vit: changed in place.
        tuning: `frozen`, `lora` or `full`.
        lora: arguments of `apply_lora`, for `lora`.

    Raises:
        ValueError: the choice is unknown, or LoRA cannot adapt the layers.
    """
    if tuning == "full":
        return
    vit.freeze()
    if tuning == "lora":
        apply_lora(vit, **(lora or {}))
    elif tuning != "frozen":
        raise ValueError(f"model.tuning={tuning!r} is not known; choose frozen, lora or full")


def padded_size(size: Sequence[int], multiple: int) -> list[int]:
    """The next multiples of (H, W)."""
    return [(side + multiple - 1) // multiple * multiple for side in size]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Appends zeros below and on the right of (B, C, H, W) until H and W are multiples."""
    # The modulus of a negative size would be shorter, and torch.compile fails on it where sizes vary.
    missing = [(multiple - side % multiple) % multiple for side in x.shape[-2:]]
    return F.pad(x, (0, missing[1], 0, missing[0]))
