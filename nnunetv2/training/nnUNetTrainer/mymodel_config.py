"""Settings of the ViT + UperNet trainer; shared settings are in `vit_config.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dinov3.utils.yaml_config import load_config
from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.nnUNetTrainer.vit_config import DenseTrainingConfig, ViTModelConfig, ViTnnUNetConfig


@dataclass
class UperNetModelConfig(head_config_class("upernet"), ViTModelConfig):
    """Backbone, UperNet head and upsampling."""

    head_name: ClassVar[str] = "upernet"

    __post_init__ = ViTModelConfig.__post_init__


@dataclass
class MyModelnnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    file_name: ClassVar[str] = "vit_config.yaml"

    model: UperNetModelConfig = field(default_factory=UperNetModelConfig)
    training: DenseTrainingConfig = field(default_factory=DenseTrainingConfig)


def load_mymodel_config(path: str | None = None, overrides: Sequence[str] = ()) -> MyModelnnUNetConfig:
    """Loads the settings: defaults < YAML file < `key=value` words; see `load_config` for errors."""
    return load_config(MyModelnnUNetConfig, path, overrides)
