"""Any head whose last prediction alone is supervised."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit


class nnUNetTrainerNoDeepSupervision_vit(nnUNetTrainer_vit):
    """Leaves out the losses after earlier layers of heads with queries; heads that classify pixels have one output."""

    supervise_all_layers = False
