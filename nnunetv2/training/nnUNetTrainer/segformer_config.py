"""Settings of the SegFormer trainer; shared settings are in `vit_config.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dinov3.utils.yaml_config import load_config
from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.nnUNetTrainer.vit_config import DenseTrainingConfig, LoRAConfig, ViTModelConfig, ViTnnUNetConfig

SegFormerLoRAConfig = LoRAConfig


@dataclass
class SegFormerModelConfig(head_config_class("segformer"), ViTModelConfig):
    """Backbone, pyramid and decode head."""

    head_name: ClassVar[str] = "segformer"

    __post_init__ = ViTModelConfig.__post_init__


@dataclass
class SegFormernnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    file_name: ClassVar[str] = "segformer_config.yaml"

    model: SegFormerModelConfig = field(default_factory=SegFormerModelConfig)
    training: DenseTrainingConfig = field(default_factory=DenseTrainingConfig)


def load_segformer_config(path: str | None = None, overrides: Sequence[str] = ()) -> SegFormernnUNetConfig:
    """Loads the settings: defaults < YAML file < `key=value` words; see `load_config` for errors."""
    return load_config(SegFormernnUNetConfig, path, overrides)
