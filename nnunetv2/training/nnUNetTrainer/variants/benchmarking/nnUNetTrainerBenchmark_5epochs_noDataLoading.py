"""Benchmark: five epochs on one batch of noise, to measure an epoch without data loading."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch

from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs import (
    nnUNetTrainerBenchmark_5epochs,
)


class nnUNetTrainerBenchmark_5epochs_noDataLoading(nnUNetTrainerBenchmark_5epochs):
    def get_dataloaders(self) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
        """Returns two iterators that repeat the batch `dummy_batch`, which is already on the device."""
        patch_size, scales = self.configuration_manager.patch_size, self._get_deep_supervision_scales()
        data = torch.rand((self.batch_size, self.num_input_channels, *patch_size), device=self.device)
        if scales is None:
            target = self._noisy_target(patch_size)
        else:
            target = [
                self._noisy_target([round(side * part) for side, part in zip(patch_size, scale, strict=True)])
                for scale in scales
            ]
        self.dummy_batch = {"data": data, "target": target}
        return repeat(self.dummy_batch), repeat(self.dummy_batch)

    def _noisy_target(self, size: list[int]) -> torch.Tensor:
        labels = self.label_manager
        if labels.has_regions:
            channels = labels.num_segmentation_heads + labels.has_ignore_label
            return torch.rand((self.batch_size, channels, *size), device=self.device) < 0.5
        return torch.randint(max(labels.all_labels) + 1, (self.batch_size, 1, *size), device=self.device)
