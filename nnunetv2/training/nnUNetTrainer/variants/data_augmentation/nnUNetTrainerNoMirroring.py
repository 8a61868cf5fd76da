"""Trainers without mirroring, or with mirroring along in-plane axes only; prediction uses the same axes."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.data_augmentation.default_pipeline import LABELS_BY_NEAREST
from nnunetv2.training.data_augmentation.pipeline import training_transforms_of
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerNoMirroring(nnUNetTrainer):
    """For structures whose left and right differ in meaning."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy_2d, initial_patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, None


class nnUNetTrainer_onlyMirror01(nnUNetTrainer):
    """Mirrors along the first two axes of 3-D patches and along the first axis of 2-D patches."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy_2d, initial_patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        axes = (0,) if len(self.configuration_manager.patch_size) == 2 else (0, 1)
        self.inference_allowed_mirroring_axes = axes
        return rotation, dummy_2d, initial_patch_size, axes


class nnUNetTrainer_onlyMirror01_1500ep(nnUNetTrainer_onlyMirror01):
    num_epochs = 1500


class nnUNetTrainer_onlyMirror01_DASegOrd0(nnUNetTrainer_onlyMirror01):
    """Nearest-neighbour interpolation of labels."""

    get_training_transforms = staticmethod(training_transforms_of(LABELS_BY_NEAREST))
