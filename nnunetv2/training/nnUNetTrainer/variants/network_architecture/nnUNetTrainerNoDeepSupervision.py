"""The default training with a loss on the full-resolution output only."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerNoDeepSupervision(nnUNetTrainer):
    enable_deep_supervision = False
