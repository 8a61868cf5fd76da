"""Trains DINOv3 + Mask2Former in nnU-Net's pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnunetv2.training.nnUNetTrainer.m2f_config import M2FnnUNetConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit

_CUDA = torch.device("cuda")


class nnUNetTrainer_m2f(nnUNetTrainer_vit):
    """nnU-Net's training with another network, loss and optimiser.

    Args:
        plans: content of a plans file.
        configuration: name of one of its configurations.
        fold: number of the split, or "all".
        dataset_json: content of the dataset's dataset.json.
        device: where to train.
        m2f_config_path: YAML file of settings (`m2f_config.py`); None: the defaults.
        m2f_overrides: `key=value` words that take precedence over the file.

    Raises:
        UsageError: wrong settings, or a configuration that is the second stage of a cascade.
    """

    config_class = M2FnnUNetConfig

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = _CUDA,
        m2f_config_path: str | None = None,
        m2f_overrides: Sequence[str] = (),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device, m2f_config_path, m2f_overrides)

    @property
    def m2f_config(self) -> M2FnnUNetConfig:
        return self.config
