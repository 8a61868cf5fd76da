"""Mask2Former with supervision of the last prediction only."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f


class nnUNetTrainerNoDeepSupervision_m2f(nnUNetTrainer_m2f):
    """Omits the losses of the earlier mask transformer layers, Mask2Former's deep supervision."""

    supervise_all_layers = False
