"""Alias of the trainer of UperNet on a vision transformer."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_mymodel import nnUNetTrainer_mymodel


class nnUNetTrainerNoDeepSupervision_mymodel(nnUNetTrainer_mymodel):
    """Identical to `nnUNetTrainer_mymodel`, which has no deep supervision."""
