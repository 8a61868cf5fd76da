"""Networks of a vision transformer and a head: input adaptation, tuning of the backbone, output of dense logits."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinov3.layers.lora import apply_lora
from nnunetv2.errors import DataError, UsageError
from nnunetv2.model.backbone import Backbone, Features
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.chosen_blocks import chosen_blocks
from nnunetv2.model.depth_fusion import DepthFusion, fold, with_neighbours
from nnunetv2.model.detail_branch import DetailBranch
from nnunetv2.model.head import Head
from nnunetv2.model.head_config import HeadConfig, find_head, setting_names
from nnunetv2.model.input_adapter import RGB, InputAdapter
from nnunetv2.model.weights.backbone_weights import load_backbone_weights
from nnunetv2.model.weights.load_report import LoadedWeights

logger = logging.getLogger(__name__)

IMAGE = 4  # axes of a batch of images; volumes have one more
_SLICES_ON_CPU = 8
_TOKENS_ON_GPU = 2**16


class ViTNetwork(nn.Module):
    """A vision transformer with a head, defined entirely by plain data so that plans can rebuild it.

    The weights are random; `load_backbone_weights` fills the backbone.

    Args:
        input_channels: channels C of the images.
        num_classes: outputs K: labels with background as class 0, or regions.
        deep_supervision: ignored; these networks have one output.
        head: `name` and `settings` of the head; for a user's head, also its `file` and the file's `sha256`.
        backbone: family of the backbone, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        backbone_out_layers: which blocks the head reads: a name of `chosen_blocks`, or 0-based numbers; None: the
            head's default.
        tuning: which part of the backbone is trained: `frozen` (nothing), `lora` (adapters) or `full`.
        lora: `r`, `lora_alpha`, `lora_dropout`, `target_modules`; for `tuning="lora"`.
        regions: outputs are regions that may overlap, not exclusive labels.
        channel_adaptation: see `InputAdapter`.
        input_norm: see `InputAdapter`.
        input_scale: integer factor by which images are upsampled before the backbone, for more patches.
        detail_branch: add the logits of a `DetailBranch` to those of the head.
        use_sliding_window_inference: predict in windows of the plans' patch size; false: predict each image as a whole.
        context_slices: slices of a case, an odd number, that are channels of an image: the k slices of each channel
            one after the other, with the one to segment in the middle. Three slices of one channel are the colours;
            otherwise a trained 1x1 convolution, which starts by passing on the middle slice, makes C channels of them.
        label_channels: so many of the channels, the last ones, are labels of a cascade's first stage, see
            `InputAdapter`.
        slice_input: what the backbone sees of a slice of a volume: `single`, the slice itself, or `neighbours`, the
            slice with the one before and the one after it as colours; only for C = 1.
        fusion: mixes the maps of a volume's slices along the depth: `none`, `conv` or `attention`, see `DepthFusion`.
        fusion_dim: width of the adapters.
        fusion_layers: adapters of a map, one after the other.
        slices_per_chunk: slices that the backbone encodes at a time; None: see `_chunk`.

    Attributes:
        input: module that adapts images to the backbone.
        context: the convolution over context slices; None without one.
        context_slices: as given.
        encoder: the backbone; absent if the head owns it.
        head: the head.
        detail: the detail branch; None without one.
        fusion: the adapters between slices; None without any.
        out_indices: numbers of the blocks that the head reads.
        use_sliding_window_inference: as given.
        autocast_dtype: dtype of autocast in prediction on a GPU, the same as in training.

    Raises:
        UsageError: incompatible sizes, or layers that LoRA cannot adapt.
        DataError: the head is not registered.
    """

    autocast_dtype = torch.bfloat16
    head_prefix: ClassVar[str] = "head."
    """Prefix of the head's tensors in the state dict."""

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
        detail_branch: bool = False,
        use_sliding_window_inference: bool = True,
        context_slices: int = 1,
        label_channels: int = 0,
        slice_input: str = "single",
        fusion: str = "none",
        fusion_dim: int = 64,
        fusion_layers: int = 2,
        slices_per_chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.use_sliding_window_inference = use_sliding_window_inference
        self.regions = regions
        self.input_scale = input_scale
        self.sees_neighbours = slice_input == "neighbours"
        self.slices_per_chunk = slices_per_chunk
        if self.sees_neighbours and input_channels != 1:
            raise UsageError(
                f"model.slice_input=neighbours is for one channel, not for {input_channels}; set it to single"
            )
        are_colours = self.sees_neighbours or (input_channels, context_slices) == (1, RGB)
        self.context_slices = context_slices
        self.context = None
        if context_slices > 1 and not are_colours:
            self.context = middle_slices(input_channels, context_slices)
        in_channels = RGB if are_colours else input_channels
        self.input = InputAdapter(in_channels, channel_adaptation, input_norm, label_channels)
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
        self.fusion = None
        if fusion != "none":
            self.fusion = DepthFusion(fusion, [vit.embed_dim] * self.head.num_fused_maps, fusion_dim, fusion_layers)
        self.detail = DetailBranch(self.input.out_channels, num_classes) if detail_branch else None
        self.train()

    @property
    def backbone(self) -> Backbone:
        """The vision transformer."""
        return self.head.backbone if self.head.owns_backbone else self.encoder

    @property
    def size_multiple(self) -> int:
        """Height and width of the input of backbone and head are multiples of this."""
        return self.head.size_multiple

    @property
    def image_multiple(self) -> int:
        """Images are padded below and on the right until height and width are multiples of this."""
        # The smallest size that `size_multiple` divides after upsampling by `input_scale`.
        return self.size_multiple // math.gcd(self.size_multiple, self.input_scale)

    def slices(self, x: Tensor) -> tuple[Tensor, int | None]:
        """Splits volumes into slices, with their neighbours as channels where the backbone is to see them.

        Args:
            x: volumes (B, C, D, H, W), or images (B, C, H, W), which are slices without neighbours.

        Returns:
            (B * D, C', H, W), and D; None for images.
        """
        if x.ndim == IMAGE:
            return (x.repeat(1, RGB, 1, 1) if self.sees_neighbours else x), None
        return fold(with_neighbours(x) if self.sees_neighbours else x), x.shape[2]

    def padded(self, x: Tensor) -> Tensor:
        """Adapts the channels of images (B, C * k, H, W) and pads them: (B, C', H', W')."""
        x = x if self.context is None else self.context(x)
        return pad_to_multiple(self.input(x), self.image_multiple)

    def enlarged(self, image: Tensor) -> Tensor:
        """Upsamples padded images by `input_scale`, for backbone and head."""
        if self.input_scale == 1:
            return image
        return F.interpolate(image, scale_factor=self.input_scale, mode="bilinear", align_corners=False)

    def adapted(self, x: Tensor) -> Tensor:
        """Adapts images (B, C, H, W) for backbone and head: (B, C', s * H', s * W'), padded, then upsampled s times."""
        return self.enlarged(self.padded(x))

    def features(self, image: Tensor, depth: int | None = None) -> Features:
        """Computes the head's input from adapted images.

        Args:
            image: (B, C', H, W).
            depth: so many images in a row are the slices of one volume; None: they are images.
        """
        if self.head.owns_backbone:
            fuse = None if self.fusion is None else partial(self._fused, depth=depth or 1)
            return Features(image, [], [], depth=depth, fuse=fuse)
        features = self._encoded(image) if depth is None else self._encoded_in_chunks(image)
        maps = features.maps if self.fusion is None else self.fusion(features.maps, depth or 1)
        return replace(features, maps=maps, depth=depth)

    def _fused(self, number: int, one: Tensor, depth: int) -> Tensor:
        return self.fusion.fused(number, one, depth)

    def _encoded(self, image: Tensor) -> Features:
        return self.encoder.features(image, self.out_indices, with_rotation=self.head.reads_rotation)

    def _encoded_in_chunks(self, image: Tensor) -> Features:
        """As `_encoded`, for some slices at a time: the maps of all are kept, and the activations of one chunk."""
        has_gradients = torch.is_grad_enabled() and (self.encoder.is_trainable or image.requires_grad)
        if has_gradients and self.slices_per_chunk is None:
            return self._encoded(image)
        encode = partial(checkpoint, self._encoded, use_reentrant=False) if has_gradients else self._encoded
        parts = [encode(chunk) for chunk in image.split(self._chunk(image))]
        maps, prefix_tokens = (
            [torch.cat(of_block) for of_block in zip(*of_chunks, strict=True)]
            for of_chunks in ([part.maps for part in parts], [part.prefix_tokens for part in parts])
        )
        return Features(image, maps, prefix_tokens, parts[0].rotation)

    def _chunk(self, image: Tensor) -> int:
        """Slices to encode at a time: as set, otherwise as many as keep a GPU busy, and a few on the CPU."""
        if self.slices_per_chunk is not None:
            return self.slices_per_chunk
        if image.device.type == "cpu":
            return _SLICES_ON_CPU
        tokens = image.shape[-2] * image.shape[-1] // self.encoder.patch_size**2
        return max(1, _TOKENS_ON_GPU // tokens)

    def set_training_progress(self, progress: float) -> None:
        """Updates progress-dependent behaviour; `progress` runs from 0 to 1."""
        self.head.set_training_progress(progress)

    def load_backbone_weights(self, path: Path) -> LoadedWeights:
        """Fills the backbone from a file, see `nnunetv2.model.weights.backbone_weights.load_backbone_weights`."""
        return load_backbone_weights(self.backbone, path)

    def is_classifier(self, name: str) -> bool:
        """True if the size of this tensor of the state dict depends on the number of classes."""
        of_detail = [f"detail.{module}." for module in DetailBranch.classifier]
        return name.startswith((*(f"{self.head_prefix}{module}." for module in self.head.classifier), *of_detail))


class FlatNames:
    """Mixin for networks older than the submodule `head`: settings and tensors have no head prefix.

    Plans list the head's settings among those of the network, and the state dict has the head's tensors at the top
    level.
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


def middle_slices(channels: int, num_slices: int) -> nn.Conv2d:
    """Makes the 1x1 convolution (B, C * k, H, W) -> (B, C, H, W) that starts by passing on the middle slices."""
    mix = nn.Conv2d(channels * num_slices, channels, kernel_size=1)
    nn.init.zeros_(mix.bias)
    nn.init.zeros_(mix.weight)
    for channel in range(channels):
        nn.init.ones_(mix.weight[channel, channel * num_slices + num_slices // 2])
    return mix


def find_head_class(head: Mapping[str, Any]) -> type[Head]:
    """Finds the class of the head that plans describe.

    Args:
        head: `name`; for a user's head, also `file` and `sha256`.

    Raises:
        DataError: the head is not registered; the message names the missing file.
    """
    extension = find_head(head)
    if head.get("sha256") not in (None, extension.sha256):
        logger.warning("%s is not the file that the model's head %s was trained with", extension.path, extension.name)
    return extension.load()


def head_config(head_class: type[Head], settings: Mapping[str, Any]) -> HeadConfig:
    """Converts the settings of a head to its dataclass.

    Raises:
        DataError: unknown settings, or values that the head rejects.
    """
    if unknown := sorted(settings.keys() - set(setting_names(head_class.Config))):
        raise DataError(
            f"The model's head {head_class.name} is described with settings that the head of that name does not have "
            f"here: {', '.join(unknown)}; install the version of the head that the model was trained with"
        )
    return head_class.Config(**settings)


def set_tuning(vit: Backbone, tuning: str, lora: Mapping[str, Any] | None) -> None:
    """Selects which part of a backbone is trained.

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
    """Rounds (H, W) up to multiples."""
    return [(side + multiple - 1) // multiple * multiple for side in size]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads (B, C, H, W) with zeros at the bottom and right until H and W are multiples."""
    # Not written as a modulus of the negative size: torch.compile fails on that with dynamic shapes.
    missing = [(multiple - side % multiple) % multiple for side in x.shape[-2:]]
    return F.pad(x, (0, missing[1], 0, missing[0]))


def _without_head_prefix(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    start = f"{prefix}head."
    for name in [name for name in state_dict if name.startswith(prefix)]:  # re-inserts all, which keeps the order
        state_dict[name.replace(start, prefix, 1) if name.startswith(start) else name] = state_dict.pop(name)


def _with_head_prefix(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    children = tuple(f"{prefix}{name}." for name, _ in network.named_children() if name != "head")
    for name in [name for name in state_dict if name.startswith(prefix) and not name.startswith(children)]:
        state_dict[f"{prefix}head.{name.removeprefix(prefix)}"] = state_dict.pop(name)
