"""Alias of the trainer of SegFormer on a vision transformer."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer


class nnUNetTrainerNoDeepSupervision_segformer(nnUNetTrainer_segformer):
    """Identical to `nnUNetTrainer_segformer`, which has no deep supervision."""
