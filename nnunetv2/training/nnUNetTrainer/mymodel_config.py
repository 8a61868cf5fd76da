"""Settings of the ViT + UperNet trainer; those that it shares with others are in `vit_config.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dinov3.utils.yaml_config import load_config, require_choice, require_range
from nnunetv2.training.nnUNetTrainer.vit_config import DenseTrainingConfig, ViTModelConfig, ViTnnUNetConfig


@dataclass
class UperNetModelConfig(ViTModelConfig):
    """Backbone, UperNet head and upsampling."""

    head_type: str = "upernet"
    """Head: upernet."""
    hidden_size: int = 256
    """Channels of the head; a multiple of 8."""
    use_progressive_upsample: bool = True
    """Enlarge in four learned stages with skip connections from the backbone; false: bilinearly."""
    dropout: float = 0.1
    """Probability of dropping a channel of the head's features while training, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model.head_type", self.head_type, ("upernet",))
        require_range("model.hidden_size", self.hidden_size, 8)
        require_range("model.dropout", self.dropout, 0, 0.99)


@dataclass
class MyModelnnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    network_class: ClassVar[str] = "nnunetv2.model.model.ViTSegmentationModel"
    file_name: ClassVar[str] = "vit_config.yaml"

    model: UperNetModelConfig = field(default_factory=UperNetModelConfig)
    training: DenseTrainingConfig = field(default_factory=DenseTrainingConfig)


def load_mymodel_config(path: str | None = None, overrides: Sequence[str] = ()) -> MyModelnnUNetConfig:
    """The settings: defaults < YAML file < `key=value` words; see `load_config` for the errors."""
    return load_config(MyModelnnUNetConfig, path, overrides)
