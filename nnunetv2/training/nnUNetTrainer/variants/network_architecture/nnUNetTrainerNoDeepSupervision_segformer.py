"""The trainer of SegFormer on a vision transformer under the name that says it has one output."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer


class nnUNetTrainerNoDeepSupervision_segformer(nnUNetTrainer_segformer):
    """The same as `nnUNetTrainer_segformer`, which has no deep supervision either."""
