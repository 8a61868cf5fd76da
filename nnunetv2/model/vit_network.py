"""Networks of nnU-Net made of a vision transformer and a head: how images enter, what is trained, dense logits out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.layers.lora import apply_lora
from nnunetv2.errors import DataError, UsageError
from nnunetv2.model.backbone import Backbone, Features
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.chosen_blocks import chosen_blocks
from nnunetv2.model.head import Head
from nnunetv2.model.head_config import HeadConfig, setting_names
from nnunetv2.model.input_adapter import InputAdapter
from nnunetv2.model.weights.backbone_weights import load_backbone_weights
from nnunetv2.model.weights.load_report import LoadedWeights
from nnunetv2.utilities import extensions

logger = logging.getLogger(__name__)


class ViTNetwork(nn.Module):
    """A vision transformer with a head, described completely by plain data so that plans can rebuild it.

    The weights are random; `load_backbone_weights` fills the backbone.

    Args:
        input_channels: channels C of the images.
        num_classes: outputs K: labels with background as class 0, or regions.
        deep_supervision: without effect; these networks have one output.
        head: `name` of the head, its `settings`, and for a head of a user its `file` and the file's `sha256`.
        backbone: family of the backbone, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        backbone_out_layers: which blocks the head reads: a name of `chosen_blocks`, or 0-based numbers; None: the
            head's default.
        tuning: what of the backbone is trained: `frozen` (nothing), `lora` (adapters) or `full`.
        lora: `r`, `lora_alpha`, `lora_dropout`, `target_modules`; for `tuning="lora"`.
        regions: outputs are regions that may overlap, not exclusive labels.
        channel_adaptation: see `InputAdapter`.
        input_norm: see `InputAdapter`.
        input_scale: images are enlarged by this whole factor before the backbone, so that it has more patches.
        use_sliding_window_inference: whether images are predicted in windows of the plans' patch size, or each as a
            whole.

    Attributes:
        input: module that adapts images to the backbone.
        encoder: the backbone; absent where the head owns it.
        head: the head.
        out_indices: numbers of the blocks that the head reads.
        use_sliding_window_inference: as given.
        autocast_dtype: what prediction on a GPU computes in, as training does.

    Raises:
        UsageError: sizes that do not fit each other, or layers that LoRA cannot adapt.
        DataError: a head that is not registered here.
    """

    autocast_dtype = torch.bfloat16
    head_prefix: ClassVar[str] = "head."
    """In front of the head's tensors in the state dict."""

    def __init__(  # noqa: PLR0913 - the keys of the plans' architecture
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool | None = None,
        *,
        head: Mapping[str, Any],
        backbone: str = "dinov3",
        backbone_size: str = "large",
        backbone_out_layers: str | Sequence[int] | None = None,
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        regions: bool = False,
        channel_adaptation: str = "repeat",
        input_norm: str = "dataset",
        input_scale: int = 1,
        use_sliding_window_inference: bool = True,
    ) -> None:
        super().__init__()
        self.use_sliding_window_inference = use_sliding_window_inference
        self.regions = regions
        self.input_scale = input_scale
        self.input = InputAdapter(input_channels, channel_adaptation, input_norm)
        head_class = find_head_class(head)
        config = head_config(head_class, head.get("settings", {}))
        vit = create_backbone(backbone, backbone_size, in_channels=self.input.out_channels)
        try:
            set_tuning(vit, tuning, lora)
            self.out_indices = chosen_blocks(vit.num_blocks, backbone_out_layers, head_class.Config)
            if head_class.owns_backbone:
                self.head = head_class(config, vit.spec, num_classes, vit, self.out_indices)
            else:
                self.encoder = vit
                self.head = head_class(config, replace(vit.spec, num_maps=len(self.out_indices)), num_classes)
        except ValueError as err:
            raise UsageError(f"The settings of the model do not fit: {err}") from err
        self.train()

    @property
    def backbone(self) -> Backbone:
        """The vision transformer."""
        return self.head.backbone if self.head.owns_backbone else self.encoder

    @property
    def size_multiple(self) -> int:
        """Height and width of what backbone and head see are multiples of this."""
        return self.head.size_multiple

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

    def features(self, image: Tensor) -> Features:
        """What the head gets of an adapted image."""
        if self.head.owns_backbone:
            return Features(image, [], [])
        return self.encoder.features(image, self.out_indices, with_rotation=self.head.reads_rotation)

    def set_training_progress(self, progress: float) -> None:
        """Updates what changes during a training; `progress` runs from 0 to 1."""
        self.head.set_training_progress(progress)

    def load_backbone_weights(self, path: Path) -> LoadedWeights:
        """Fills the backbone from a file, see `nnunetv2.model.weights.backbone_weights.load_backbone_weights`."""
        return load_backbone_weights(self.backbone, path)

    def is_classifier(self, name: str) -> bool:
        """Whether the tensor of this name in the state dict has a size that follows from the number of classes."""
        return any(name.startswith(f"{self.head_prefix}{module}.") for module in self.head.classifier)


class FlatNames:
    """Mixin for networks older than the module `head`: its settings and tensors have no name of a head in front.

    Plans hold the head's settings among those of the network, and the state dict the head's tensors at the top.
    """

    head_name: ClassVar[str]
    head_prefix: ClassVar[str] = ""

    def __init__(
        self, input_channels: int, num_classes: int, deep_supervision: bool | None = None, **settings: Any
    ) -> None:
        own = setting_names(find_head_class({"name": self.head_name}).Config)
        head = {"name": self.head_name, "settings": {name: settings.pop(name) for name in own if name in settings}}
        super().__init__(input_channels, num_classes, deep_supervision, head=head, **settings)
        self.register_state_dict_post_hook(_without_head_prefix)
        self.register_load_state_dict_pre_hook(_with_head_prefix)


def find_head_class(head: Mapping[str, Any]) -> type[Head]:
    """The class of the head that plans describe.

    Args:
        head: `name`, and for a head of a user `file` and `sha256`.

    Raises:
        DataError: it is not registered here; the message names the missing file.
    """
    name, file = head["name"], head.get("file")
    if file is not None and name not in extensions.names("head"):
        raise DataError(
            f"The model's head {name!r} is defined in a file of its author, {file}, which is not installed here; put "
            f"the file into a folder and name that in the environment variable {extensions.EXTENSIONS}"
        )
    extension = extensions.find("head", name)
    if head.get("sha256") not in (None, extension.sha256):
        logger.warning("%s is not the file that the model's head %s was trained with", extension.path, name)
    return extension.load()


def head_config(head_class: type[Head], settings: Mapping[str, Any]) -> HeadConfig:
    """The settings of a head as its dataclass.

    Raises:
        DataError: settings that this head does not have, or values that it rejects.
    """
    if unknown := sorted(settings.keys() - set(setting_names(head_class.Config))):
        raise DataError(
            f"The model's head {head_class.name} is described with settings that the head of that name does not have "
            f"here: {', '.join(unknown)}; install the version of the head that the model was trained with"
        )
    return head_class.Config(**settings)


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


def _without_head_prefix(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    start = f"{prefix}head."
    for name in [name for name in state_dict if name.startswith(prefix)]:  # all of them, so that their order stays
        state_dict[name.replace(start, prefix, 1) if name.startswith(start) else name] = state_dict.pop(name)


def _with_head_prefix(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    children = tuple(f"{prefix}{name}." for name, _ in network.named_children() if name != "head")
    for name in [name for name in state_dict if name.startswith(prefix) and not name.startswith(children)]:
        state_dict[f"{prefix}head.{name.removeprefix(prefix)}"] = state_dict.pop(name)
