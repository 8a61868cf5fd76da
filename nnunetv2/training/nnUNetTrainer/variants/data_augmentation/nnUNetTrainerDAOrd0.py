"""The default augmentation with nearest-neighbour interpolation of labels."""

from __future__ import annotations

from nnunetv2.training.data_augmentation.default_pipeline import LABELS_BY_NEAREST
from nnunetv2.training.data_augmentation.pipeline import training_transforms_of
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring


class nnUNetTrainer_DASegOrd0(nnUNetTrainer):
    get_training_transforms = staticmethod(training_transforms_of(LABELS_BY_NEAREST))


class nnUNetTrainer_DASegOrd0_NoMirroring(nnUNetTrainerNoMirroring, nnUNetTrainer_DASegOrd0):
    """No mirroring, in training and in prediction."""
