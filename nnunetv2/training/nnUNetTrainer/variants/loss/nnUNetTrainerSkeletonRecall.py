"""Trainer with Skeleton Recall beside Dice and cross-entropy, for thin structures."""

from __future__ import annotations

from torch import nn

from nnunetv2.training.loss.skeleton_recall import SkeletonRecall
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.single_losses import label_task, supervised


class nnUNetTrainerSkeletonRecall(nnUNetTrainer):
    """Named as in the fork of nnU-Net that published the loss; also trains regions and ignore labels."""

    needs_tubes = True

    def _build_loss(self) -> nn.Module:
        return supervised(self, SkeletonRecall(SkeletonRecall.Config(), label_task(self)))
