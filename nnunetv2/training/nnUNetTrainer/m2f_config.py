"""Settings of the DINOv3 + Mask2Former trainer; those that it shares with others are in `vit_config.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from dinov3.eval.segmentation.settings.training import M2FTrainConfig
from dinov3.utils.config_sources import DEFAULT, Source
from dinov3.utils.yaml_config import load_config, require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_families import FAMILIES
from nnunetv2.training.nnUNetTrainer.vit_config import LoRAConfig, ViTModelConfig, ViTnnUNetConfig

M2FLoRAConfig = LoRAConfig

NETWORK_CLASSES = {
    "m2f": "nnunetv2.model.model_m2f.M2FSegmentationModel",
    "eomt": "nnunetv2.model.model_eomt.EoMTSegmentationModel",
}
# Settings of `model` that the head of each type does not have.
_FOREIGN = {
    "m2f": ("num_joint_blocks",),
    "eomt": (
        "backbone_out_layers",
        "hidden_dim",
        "num_heads",
        "dim_feedforward",
        "num_encoder_layers",
        "num_decoder_layers",
        "drop_path_rate",
        "gradient_checkpointing",
    ),
}


@dataclass
class M2FModelConfig(ViTModelConfig):
    """Backbone, pixel decoder and mask transformer."""

    type: str = "m2f"
    """Head: m2f (adapter, pixel decoder and mask transformer), or eomt (queries in the last blocks of the backbone;
    about four times faster; of what follows it has num_queries and num_joint_blocks alone)."""
    num_joint_blocks: int | None = None
    """Blocks of the backbone that see the queries, for eomt; null: 3 of 12, 4 of 24 or 32, 5 of 40."""
    hidden_dim: int = 256
    """Channels of the pixel decoder and the queries; a multiple of 32 and of num_heads."""
    num_heads: int = 8
    """Attention heads of the head."""
    dim_feedforward: int = 1024
    """Hidden width of the head's feed-forward networks."""
    num_queries: int = 100
    """Masks proposed per image; at least the number of classes."""
    num_encoder_layers: int = 6
    """Layers of the pixel decoder."""
    num_decoder_layers: int = 9
    """Layers of the mask transformer."""
    drop_path_rate: float = 0.3
    """Probability that an image skips a feed-forward network of the adapter while training, in [0, 1)."""
    gradient_checkpointing: bool = True
    """Recompute the adapter in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model.type", self.type, tuple(NETWORK_CLASSES))
        for field_ in fields(self):
            if field_.name in _FOREIGN[self.type]:
                setattr(self, field_.name, field_.default)
        for name in ("num_heads", "dim_feedforward", "num_queries", "num_encoder_layers", "num_decoder_layers"):
            require_range(f"model.{name}", getattr(self, name), 1)
        require_range("model.drop_path_rate", self.drop_path_rate, 0, 0.99)
        depth = FAMILIES[self.backbone][self.backbone_size].shape.depth
        if self.num_joint_blocks is not None and not 1 <= self.num_joint_blocks <= depth:
            raise UsageError(
                f"model.num_joint_blocks={self.num_joint_blocks} must be between 1 and {depth}, the blocks of "
                f"{self.backbone} {self.backbone_size}"
            )
        unit = math.lcm(32, self.num_heads)
        if self.hidden_dim < unit or self.hidden_dim % unit:
            raise UsageError(
                f"model.hidden_dim={self.hidden_dim} must be a multiple of 32 and of model.num_heads={self.num_heads}; "
                f"the next one is {math.ceil(max(self.hidden_dim, 1) / unit) * unit}"
            )


@dataclass
class M2FnnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    file_name: ClassVar[str] = "m2f_config.yaml"

    model: M2FModelConfig = field(default_factory=M2FModelConfig)
    m2f_train: M2FTrainConfig = field(default_factory=M2FTrainConfig)

    @property
    def network_class(self) -> str:
        return NETWORK_CLASSES[self.model.type]

    @classmethod
    def check_given(cls, values: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
        """Refuses, beside what the base class refuses, settings of the other type of head.

        As there, a word may overrule the file: `model.type=eomt` goes before a file that was written for m2f.
        """
        super().check_given(values, sources)
        model, of_type = values["model"], sources.get("model.type", DEFAULT)
        for field_ in fields(M2FModelConfig):
            name, source = field_.name, sources.get(f"model.{field_.name}", DEFAULT)
            is_foreign = name in _FOREIGN[model["type"]] and model[name] != field_.default
            if is_foreign and source.rank >= of_type.rank:
                other = next(kind for kind in _FOREIGN if kind != model["type"])
                raise UsageError(
                    f"model.{name}={model[name]} ({source.place}) is a setting of model.type={other} alone, and "
                    f"model.type={model['type']} ({of_type.place}); leave one of them out"
                )

    def without_effect(self) -> dict[str, str]:
        reason = f"without effect, as model.type={self.model.type}"
        return super().without_effect() | {f"model.{name}": reason for name in _FOREIGN[self.model.type]}

    def architecture(self, *, regions: bool) -> dict[str, Any]:
        section = super().architecture(regions=regions)
        for name in _FOREIGN[self.model.type]:
            del section["arch_kwargs"][name]
        return section


def load_m2f_config(path: str | None = None, overrides: Sequence[str] = ()) -> M2FnnUNetConfig:
    """The settings: defaults < YAML file < `key=value` words; see `load_config` for the errors."""
    return load_config(M2FnnUNetConfig, path, overrides)
