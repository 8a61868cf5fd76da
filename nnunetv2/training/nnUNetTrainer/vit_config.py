"""Settings shared by all trainers of vision transformers: backbone, LoRA, augmentation, inference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from dinov3.eval.segmentation.settings import training as training_settings
from dinov3.utils.config_sources import DEFAULT, Source
from dinov3.utils.yaml_config import load_with_sources, nearest, require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_families import FAMILIES, BackboneSize
from nnunetv2.model.head_config import (
    ANY_NUMBER,
    HeadConfig,
    architecture_of_head,
    block_choices,
    fits_number,
    head_config_class,
    setting_names,
)
from nnunetv2.model.input_choices import CHANNEL_ADAPTATIONS, INPUT_NORMS
from nnunetv2.training.loss.loss_config import LossConfig, TermsConfig, loss_config_class
from nnunetv2.training.nnUNetTrainer.vit_training_config import DenseTrainingConfig, ViTTrainingConfig
from nnunetv2.training.nnUNetTrainer.volume_settings import VolumeSettings
from nnunetv2.utilities import extensions
from nnunetv2.utilities.extensions import require_registered

__all__ = ["DenseTrainingConfig", "LoRAConfig", "ViTModelConfig", "ViTTrainingConfig", "ViTnnUNetConfig"]

_NUMBERS = {1: "one block", 2: "two blocks", 3: "three blocks", 4: "four blocks", ANY_NUMBER: "blocks"}
_LARGEST_ENLARGED = 1024  # pixels of a side of an enlarged patch by default
_PATCH_UNIT = 32  # pixels; the multiple that every head takes without padding
TUNINGS = ("frozen", "lora", "full")
# Not needed to rebuild a trained network, or added where they are used, see `VolumeSettings`.
_NOT_IN_NETWORK = ("pretrained", "checkpoint", *(field_.name for field_ in fields(VolumeSettings)))


@dataclass
class ViTModelConfig:
    """The vision transformer, the source of its weights, and the adaptation of its input.

    A subclass adds the settings of the head `head_name`.
    """

    head_name: ClassVar[str]

    backbone: str = "dinov3"
    """Family of the vision transformer: dinov3, dinov3_native, dinov2, retfound, visionfm, or a registered one."""
    backbone_size: str = "large"
    """Size within the family; for dinov3: tiny, small, small_plus, base, large, huge_plus, 7b. tiny is a miniature
    without released weights. An unknown size is rejected; the message lists the valid ones."""
    pretrained: bool = True
    """Start from the released weights (downloaded once from timm's hub); false: from random weights."""
    checkpoint: str | None = None
    """File of backbone weights (names of timm, Meta or Hugging Face) to start from instead."""
    tuning: str | None = None
    """Which part of the backbone is trained: frozen (nothing), lora or full; null: determined by lora.enabled."""
    channel_adaptation: str = "repeat"
    """How images with other than three channels are adapted: repeat, conv1x1 or inflate."""
    input_norm: str = "dataset"
    """Normalisation. dataset: that of nnU-Net's plans. For intensities in [0, 1]: imagenet (ImageNet's constants), or
    visionfm_fundus, _oct, _ffa, _external, _slitlamp, _ubm, _us or _mri (VisionFM's constants of that modality)."""
    input_scale: int = 1
    """Integer factor by which images are upsampled before the backbone, for small images with too few patches and for
    structures thinner than the resolution of the head. Time and memory grow with its square; a training.patch_size
    divided by it keeps them."""
    detail_branch: bool = False
    """Add three convolutions on the image itself (0.1 M parameters, always trained) to the output of the head, for
    structures thinner than its resolution."""
    context_slices: int = VolumeSettings.context_slices
    """Slices of a case that the network of a 2-D patch sees at once, with the one to segment in the middle: 1, 3, 5 or
    7. Three slices of one channel are its colours; otherwise a trained convolution mixes them."""
    slice_input: str = VolumeSettings.slice_input
    """What the backbone sees of a slice of a 3-D patch. single: the slice; neighbours: the slice with the one before
    and the one after it as colours, for images of one channel; auto: neighbours for one channel, single for more."""
    fusion: str = VolumeSettings.fusion
    """Adapters that mix the features of the slices of a 3-D patch. conv: with the neighbouring slices; attention: with
    all slices; none; auto: conv."""
    fusion_dim: int = VolumeSettings.fusion_dim
    """Channels of these adapters."""
    fusion_layers: int = VolumeSettings.fusion_layers
    """Adapters of each feature map, one after the other; with conv, each reaches one slice further."""
    slices_per_chunk: int | None = VolumeSettings.slices_per_chunk
    """Slices of a 3-D patch that the backbone encodes at a time, which limits memory. null: as many as keep a GPU busy,
    8 on the CPU, and all of them if the backbone is trained; with a number, it encodes them again in the backward
    pass."""
    backbone_out_layers: str | list[int] = "FOUR_EVEN_INTERVALS"
    """Blocks whose features the head reads: FOUR_EVEN_INTERVALS, FOUR_LAST, LAST if the head accepts one, or block
    numbers from 0: [5,11,17,23]."""

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint = os.path.expanduser(self.checkpoint)
        require_registered("model.backbone", "backbone", self.backbone)
        if self.backbone_size not in FAMILIES[self.backbone]:
            sizes = tuple(FAMILIES[self.backbone])
            raise UsageError(
                f"model.backbone_size={self.backbone_size!r}: {self.backbone} has {', '.join(sizes)}"
                f"{nearest(self.backbone_size, sizes)}"
            )
        require_choice("model.channel_adaptation", self.channel_adaptation, CHANNEL_ADAPTATIONS)
        require_choice("model.input_norm", self.input_norm, INPUT_NORMS)
        require_range("model.input_scale", self.input_scale, 1, 16)
        if self.tuning is not None:
            require_choice("model.tuning", self.tuning, TUNINGS)
        self.volume_settings()
        self._check_out_layers()
        self.head_config().check_backbone(self.backbone_row.shape, f"{self.backbone} {self.backbone_size}")

    def head_config(self) -> HeadConfig:
        """Returns the settings of the head, validated by its own class."""
        config = head_config_class(self.head_name)
        return config(**{name: getattr(self, name) for name in setting_names(config)})

    def volume_settings(self) -> VolumeSettings:
        """Returns the settings for 3-D patches, validated."""
        return VolumeSettings(**{field_.name: getattr(self, field_.name) for field_ in fields(VolumeSettings)})

    def common_settings(self) -> dict[str, Any]:
        """Returns the settings from which plans rebuild the network, except those of the head."""
        common = (field_.name for field_ in fields(ViTModelConfig) if field_.name not in _NOT_IN_NETWORK)
        settings = {name: getattr(self, name) for name in common}
        if head_config_class(self.head_name).num_blocks == 0:
            del settings["backbone_out_layers"]
        if not self.detail_branch:  # as in plans of versions without it, whose models other folds continue
            del settings["detail_branch"]
        return settings

    @property
    def backbone_row(self) -> BackboneSize:
        """The backbone's entry in the table of its family."""
        return FAMILIES[self.backbone][self.backbone_size]

    def _check_out_layers(self) -> None:
        head, layers = head_config_class(self.head_name), self.backbone_out_layers
        choices, last = block_choices(head), self.backbone_row.shape.depth - 1
        if isinstance(layers, str):
            fits, hint = layers in choices, nearest(layers, choices)
        else:
            in_order = sorted({block for block in layers if 0 <= block <= last})
            fits, hint = layers == in_order and fits_number(head, layers), ""
        if not fits:
            number = _NUMBERS.get(head.num_blocks, f"{head.num_blocks} blocks")
            raise UsageError(
                f"model.backbone_out_layers={layers!r} is not known; choose one of {', '.join(choices)}, or {number} "
                f"in ascending order, of 0 to {last} in {self.backbone} {self.backbone_size}{hint}"
            )


def patch_size_for_scale(patch_size: Sequence[int], scale: int) -> list[int]:
    """Limits a patch so that its enlarged image is no larger than 1024 pixels, or than the patch itself.

    Self-attention makes the window, not the scale, what has to be limited: 4 x 256 pixels cost what 1024 cost.

    Args:
        patch_size: height and width in pixels, in 3-D after the number of slices, which are not enlarged.
        scale: `model.input_scale`.

    Returns:
        The sizes; sides that are shortened are multiples of 32.
    """
    *depth, height, width = patch_size
    limits = [max(_LARGEST_ENLARGED, side) // scale // _PATCH_UNIT * _PATCH_UNIT for side in (height, width)]
    return [*depth, *(min(side, max(_PATCH_UNIT, limit)) for side, limit in zip((height, width), limits, strict=True))]


@dataclass
class LoRAConfig(training_settings.LoRAConfig):
    """Low-rank adapters in the backbone; enabled unless `model.tuning` overrides it."""

    enabled: bool = True
    """Train adapters and freeze the backbone's own weights; `model.tuning`, if set, takes precedence."""


@dataclass
class ViTnnUNetConfig:
    """All settings of one training; each trainer has a subclass with its own section `model`."""

    file_name: ClassVar[str]
    """Name of the settings file in the folder of a fold."""

    model: ViTModelConfig = field(default_factory=ViTModelConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    training: ViTTrainingConfig = field(default_factory=ViTTrainingConfig)
    loss: TermsConfig = field(default_factory=TermsConfig)
    use_nnunet_augmentation: bool = True
    """true: nnU-Net's augmentation, for a fair comparison of architectures; false: resize, crop and flip, as in the
    dinov3 package."""
    use_sliding_window_inference: bool = True
    """true: nnU-Net's sliding window; false: predict each image or slice as a whole."""

    def __post_init__(self) -> None:
        if self.model.tuning is None:
            self.model.tuning = "lora" if self.lora.enabled else "frozen"
        self.lora.enabled = self.model.tuning == "lora"
        loss_config_class(self.training.loss, head_config_class(self.model.head_name).kind)
        self.loss.resolve_terms(self.training.loss)

    @classmethod
    def resolved(cls, path: str | os.PathLike | None, overrides: Sequence[str]) -> type[ViTnnUNetConfig]:
        """Returns the settings class for a file and overrides; here always this class."""
        return cls

    @classmethod
    def load(
        cls, path: str | os.PathLike | None = None, overrides: Sequence[str] = ()
    ) -> tuple[ViTnnUNetConfig, dict[str, Source]]:
        """Loads the settings and the source of each: defaults < YAML file < `key=value` words.

        Raises:
            UsageError: see `dinov3.utils.yaml_config.load_config`.
        """
        return load_with_sources(cls.resolved(path, overrides), path, overrides)

    @property
    def loss_settings(self) -> LossConfig:
        """Returns the settings of the loss; of what its section does not have, the defaults."""
        config = loss_config_class(self.training.loss, head_config_class(self.model.head_name).kind)
        section = getattr(self, config.section, None)
        if isinstance(section, config):
            return section
        own = {field_.name for field_ in fields(config)}
        return config(**{name: value for name, value in vars(section or self.loss).items() if name in own})

    def load_classes(self) -> None:
        """Imports head, backbone and loss, so that mistakes in a user's file are reported before anything is built.

        Raises:
            UsageError: names the file.
        """
        chosen = {"head": self.model.head_name, "backbone": self.model.backbone, "loss": self.training.loss}
        for kind, name in chosen.items():
            if name is not None:
                extensions.find(kind, name).load()

    @classmethod
    def check_given(cls, values: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
        """Rejects settings that contradict each other; see `dinov3.utils.yaml_config.load_with_sources`.

        A word may override the file: `model.tuning=frozen` takes precedence over `lora.enabled: true` in it.
        Contradictions within the file or within the words are rejected, and so is a word `lora.enabled` against the
        file's `model.tuning`.

        Raises:
            UsageError: two settings contradict each other; the message names both and their sources.
        """
        tuning, has_lora = values["model"]["tuning"], values["lora"]["enabled"]
        of_tuning, of_lora = (sources.get(key, DEFAULT) for key in ("model.tuning", "lora.enabled"))
        if tuning is not None and of_lora.rank >= max(of_tuning.rank, 1) and has_lora != (tuning == "lora"):
            raise UsageError(
                f"lora.enabled={str(has_lora).lower()} ({of_lora.place}) contradicts model.tuning={tuning} "
                f"({of_tuning.place}); set model.tuning alone, to one of {', '.join(TUNINGS)}"
            )

    def without_effect(self) -> dict[str, str]:
        """Returns settings that another setting makes ineffective, by dotted name, with the reason."""
        tuning = self.model.tuning
        of_lora = [f"lora.{name}" for name in ("r", "lora_alpha", "lora_dropout", "target_modules")]
        needs = {
            "lora": [*of_lora, "training.lora_lr_multiplier"],
            "full": ["training.backbone_lr_multiplier", "training.layer_decay"],
        }
        reason = f"without effect, as model.tuning={tuning}"
        unused = {key: reason for needed, keys in needs.items() for key in keys if tuning != needed}
        if self.training.num_epochs is not None:
            unused["training.total_iter"] = "without effect, as training.num_epochs is set"
        if self.loss.soft_cldice == 0:
            unused["loss.soft_cldice_iterations"] = "without effect, as loss.soft_cldice=0"
        return unused

    def patch_size(self, planned: Sequence[int], trained: Sequence[int] | None) -> list[int] | None:
        """Returns the patch size to train with; None: that of the plans.

        Args:
            planned: that of the plans.
            trained: that of the folds in the model folder; None: it holds no checkpoint.
        """
        given = self.training.patch_size
        if given is not None and len(given) != len(planned):
            raise UsageError(
                f"training.patch_size={given} has {len(given)} axes, and the patch of the plans, {list(planned)}, has "
                f"{len(planned)}; give a size for each"
            )
        if given is not None or self.model.input_scale == 1:
            return given
        return list(trained or patch_size_for_scale(planned, self.model.input_scale))

    def architecture(
        self,
        *,
        regions: bool,
        trained: Mapping[str, Any] | None = None,
        num_axes: int = 2,
        num_channels: int = 1,
        label_channels: int = 0,
    ) -> dict[str, Any]:
        """Returns the plans' architecture section: plain data from which the network is rebuilt.

        Args:
            regions: the dataset's labels are regions, which may overlap.
            trained: the section that the model folder was trained with; None: it holds no checkpoint.
            num_axes: axes of the patch.
            num_channels: channels of the images.
            label_channels: so many of them, the last ones, are labels of a cascade's first stage.
        """
        model, of_trained = self.model, (trained or {}).get("arch_kwargs", {})
        shape = model.backbone_row.shape
        network_class, head = architecture_of_head(model.head_name, model.head_config(), shape, of_trained)
        kwargs = self.model.common_settings() | head
        if self.lora.enabled:
            kwargs["lora"] = {name: value for name, value in asdict(self.lora).items() if name != "enabled"}
        kwargs |= model.volume_settings().arguments(num_axes=num_axes, num_channels=num_channels)
        if label_channels:
            kwargs["label_channels"] = label_channels
        kwargs["regions"] = regions
        if not self.use_sliding_window_inference:
            kwargs["use_sliding_window_inference"] = False
        return {"network_class_name": network_class, "arch_kwargs": kwargs, "_kw_requires_import": []}
