"""Trains SegFormer on a vision transformer in nnU-Net's pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.segformer_config import SegFormernnUNetConfig

_CUDA = torch.device("cuda")


class nnUNetTrainer_segformer(nnUNetTrainer_vit):
    """nnU-Net's training and loss with another network and optimiser.

    Args:
        plans: content of a plans file.
        configuration: name of one of its configurations.
        fold: number of the split, or "all".
        dataset_json: content of the dataset's dataset.json.
        device: where to train.
        segformer_config_path: YAML file of settings (`segformer_config.py`); None: the defaults.
        segformer_overrides: `key=value` words that take precedence over the file.

    Raises:
        UsageError: wrong settings, or a configuration that is the second stage of a cascade.
    """

    config_class = SegFormernnUNetConfig

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = _CUDA,
        segformer_config_path: str | None = None,
        segformer_overrides: Sequence[str] = (),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device, segformer_config_path, segformer_overrides)
