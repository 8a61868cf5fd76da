"""The trainer of UperNet on a vision transformer under the name that says it has one output."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_mymodel import nnUNetTrainer_mymodel


class nnUNetTrainerNoDeepSupervision_mymodel(nnUNetTrainer_mymodel):
    """The same as `nnUNetTrainer_mymodel`, which has no deep supervision either."""
