"""Sets where a trainer augments its batches, and refuses what it could not do before anything is loaded."""

from __future__ import annotations

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def augment_on(trainer: nnUNetTrainer, device_type: str) -> None:
    """Makes a trainer, which need not be initialised, augment in the workers (`cpu`) or on its GPU (`cuda`).

    Raises:
        UsageError: the trainer makes its batches itself, or has transforms that the GPU cannot apply.
    """
    trainer.augmentation_device = device_type
    if device_type == "cpu":
        return
    from nnunetv2.training.data_augmentation.on_device.recipe import recipe_of  # imports what only a training needs

    owner = next(owner for owner in type(trainer).__mro__ if "get_dataloaders" in vars(owner))
    if owner is not nnUNetTrainer:
        raise UsageError(
            f"-augmentation_device cuda has no effect on {owner.__name__}, which makes its batches itself; leave it out"
        )
    recipe_of(trainer.get_transforms().training)
