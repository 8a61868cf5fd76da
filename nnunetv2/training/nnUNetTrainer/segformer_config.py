"""Settings of the SegFormer trainer; those that it shares with others are in `vit_config.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dinov3.utils.yaml_config import load_config, require_choice, require_range
from nnunetv2.model.choices import STRATEGIES
from nnunetv2.training.nnUNetTrainer.vit_config import DenseTrainingConfig, LoRAConfig, ViTModelConfig, ViTnnUNetConfig

SegFormerLoRAConfig = LoRAConfig


@dataclass
class SegFormerModelConfig(ViTModelConfig):
    """Backbone, pyramid and decode head."""

    feature_strategy: str = "pyramid"
    """How four maps of one scale become the head's input: layers (as they are), pyramid (each depth learns a scale of
    its own, 1/4 to 1/32) or progressive (scales from coarse to fine, each with one more depth)."""
    decoder_hidden_size: int = 256
    """Channels of the head."""
    num_encoder_blocks: int = 4
    """Maps that the head takes: 4."""
    dropout: float = 0.1
    """Probability of dropping a channel before the classifier while training, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model.feature_strategy", self.feature_strategy, STRATEGIES)
        require_range("model.decoder_hidden_size", self.decoder_hidden_size, 1)
        require_range("model.num_encoder_blocks", self.num_encoder_blocks, 4, 4)
        require_range("model.dropout", self.dropout, 0, 0.99)


@dataclass
class SegFormernnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    network_class: ClassVar[str] = "nnunetv2.model.model_segformer.SegFormerSegmentationModel"
    file_name: ClassVar[str] = "segformer_config.yaml"

    model: SegFormerModelConfig = field(default_factory=SegFormerModelConfig)
    training: DenseTrainingConfig = field(default_factory=DenseTrainingConfig)


def load_segformer_config(path: str | None = None, overrides: Sequence[str] = ()) -> SegFormernnUNetConfig:
    """The settings: defaults < YAML file < `key=value` words; see `load_config` for the errors."""
    return load_config(SegFormernnUNetConfig, path, overrides)
