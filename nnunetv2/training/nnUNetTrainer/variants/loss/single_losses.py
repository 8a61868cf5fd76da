"""Helpers of trainers with another loss: checks of the labels, and deep supervision."""

from __future__ import annotations

from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.training.loss.default_loss import over_resolutions
from nnunetv2.training.loss.loss_config import LabelTask
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_NO_LABEL = -100  # PyTorch's default, never a label


def supervised(trainer: nnUNetTrainer, loss: nn.Module) -> nn.Module:
    """Applies the loss of one output to all supervised outputs of the trainer."""
    return over_resolutions(
        loss, trainer._get_deep_supervision_scales(), is_ddp=trainer.is_ddp, is_compiled=trainer._do_i_compile()
    )


def label_task(trainer: nnUNetTrainer) -> LabelTask:
    """Describes the labels of the trainer's dataset to a loss."""
    batch_dice = trainer.configuration_manager.batch_dice
    return LabelTask.of(trainer.label_manager, batch_dice=batch_dice, is_ddp=trainer.is_ddp)


def require_label_map(trainer: nnUNetTrainer) -> None:
    """Raises `UsageError` if the dataset has regions."""
    if trainer.label_manager.has_regions:
        raise UsageError(
            f"{type(trainer).__name__} trains label maps, and the labels of this dataset are regions, which may "
            f"overlap; train it with nnUNetTrainer or nnUNetTrainerDiceLoss"
        )


def ignore_index(trainer: nnUNetTrainer) -> int:
    """Returns the label that cross-entropy ignores. Raises `UsageError` if the dataset has regions."""
    require_label_map(trainer)
    labels = trainer.label_manager
    return labels.ignore_label if labels.has_ignore_label else _NO_LABEL
