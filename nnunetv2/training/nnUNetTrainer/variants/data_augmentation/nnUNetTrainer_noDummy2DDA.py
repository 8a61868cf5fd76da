"""The default training with 3-D rotation for all 3-D patches, including anisotropic ones."""

from __future__ import annotations

from nnunetv2.training.data_augmentation.patch_geometry import AugmentationGeometry, augmentation_geometry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_noDummy2DDA(nnUNetTrainer):
    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> AugmentationGeometry:
        geometry = augmentation_geometry(self.configuration_manager.patch_size, allow_dummy_2d=False)
        self.inference_allowed_mirroring_axes = geometry.mirror_axes
        return geometry
