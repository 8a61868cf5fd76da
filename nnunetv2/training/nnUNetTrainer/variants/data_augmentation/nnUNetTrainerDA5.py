"""Trainers with the augmentation DA5, which is stronger than the default."""

from __future__ import annotations

from nnunetv2.training.data_augmentation.da5_pipeline import DA5, SCALING
from nnunetv2.training.data_augmentation.patch_geometry import AugmentationGeometry, augmentation_geometry
from nnunetv2.training.data_augmentation.pipeline import training_transforms_of
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerDA5(nnUNetTrainer):
    get_training_transforms = staticmethod(training_transforms_of(DA5))

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> AugmentationGeometry:
        geometry = augmentation_geometry(self.configuration_manager.patch_size, SCALING)
        self.inference_allowed_mirroring_axes = geometry.mirror_axes
        return geometry


class nnUNetTrainerDA5ord0(nnUNetTrainerDA5):
    """Nearest-neighbour interpolation of images and labels."""

    get_training_transforms = staticmethod(
        training_transforms_of(DA5.interpolating(mode_image="nearest", mode_seg="nearest"))
    )


class nnUNetTrainerDA5Segord0(nnUNetTrainerDA5):
    """Nearest-neighbour interpolation of labels."""

    get_training_transforms = staticmethod(training_transforms_of(DA5.interpolating(mode_seg="nearest")))


class nnUNetTrainerDA5_10epochs(nnUNetTrainerDA5):
    num_epochs = 10
