"""Mask2Former whose last prediction alone is supervised."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f


class nnUNetTrainerNoDeepSupervision_m2f(nnUNetTrainer_m2f):
    """Leaves out the losses after the earlier layers of the mask transformer, Mask2Former's deep supervision."""

    supervise_all_layers = False
