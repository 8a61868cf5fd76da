"""Trainers that force foreground with a probability per sample, instead of in the last samples of each batch."""

from __future__ import annotations

import torch

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_CUDA = torch.device("cuda")


class nnUNetTrainer_probabilisticOversampling(nnUNetTrainer):
    """By default, the probability is the share of samples in which the default training forces foreground."""

    probabilistic_oversampling = True
    forced_share: float | None = None  # probability, 0 to 1; None: the default training's share

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device = _CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        batch_size, share = self.configuration_manager.batch_size, self.oversample_foreground_percent
        if self.forced_share is None:
            self.oversample_foreground_percent = (batch_size - round(batch_size * (1 - share))) / batch_size
        else:
            self.oversample_foreground_percent = self.forced_share

    def _set_batch_size_and_oversample(self) -> None:
        share = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()
        self.oversample_foreground_percent = share  # a probability is the same in every process


class nnUNetTrainer_probabilisticOversampling_033(nnUNetTrainer_probabilisticOversampling):
    forced_share = 0.33


class nnUNetTrainer_probabilisticOversampling_010(nnUNetTrainer_probabilisticOversampling):
    forced_share = 0.1
