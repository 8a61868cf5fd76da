"""Any head with supervision of the last prediction only."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit


class nnUNetTrainerNoDeepSupervision_vit(nnUNetTrainer_vit):
    """Omits the losses of earlier layers of query heads; dense heads have one output anyway."""

    supervise_all_layers = False
