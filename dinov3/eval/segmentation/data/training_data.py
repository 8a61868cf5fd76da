"""The images that a configuration trains on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dinov3.eval.segmentation.data.batches import training_batches
from dinov3.eval.segmentation.data.dataset import dataset_of
from dinov3.eval.segmentation.data.mask_targets import SemanticToM2FTargets
from dinov3.eval.segmentation.transforms import make_segmentation_train_transforms
from dinov3.utils.process_group import rank_and_world_size

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig


def batches_of(
    config: SegmentationConfig,
    iteration: int,
    targets: SemanticToM2FTargets | None,
    *,
    size_multiple: int = 1,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """The training batches of this process from `iteration` on; see `training_batches`.

    Args:
        size_multiple: What the model needs the sides of its inputs to be multiples of.

    Raises:
        UsageError: There is no training set.
        DataError: A file cannot be used.
    """
    dataset = dataset_of(config, "train")
    train = config.transforms.train
    transform = make_segmentation_train_transforms(
        img_size=train.img_size,
        random_img_size_ratio_range=train.random_img_size_ratio_range,
        crop_size=train.crop_size,
        flip_prob=train.flip_prob,
        reduce_zero_label=config.eval.reduce_zero_label,
        mean=config.transforms.mean,
        std=config.transforms.std,
        photometric_distortion=train.photometric_distortion,
        size_multiple=size_multiple,
    )
    rank, world_size = rank_and_world_size()
    return training_batches(
        dataset,
        transform,
        batch_size=config.bs,
        seed=config.seed,
        start_iteration=iteration,
        total_iter=config.scheduler.total_iter,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        targets=targets,
        pin_memory=pin_memory,
    )
