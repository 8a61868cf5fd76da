"""The images that a configuration trains on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dinov3.eval.segmentation.dataset import SegmentationDataset, make_dataset
from dinov3.eval.segmentation.mask_targets import SemanticToM2FTargets
from dinov3.eval.segmentation.samplers import training_batches
from dinov3.eval.segmentation.transforms import make_segmentation_train_transforms
from dinov3.utils.errors import UsageError
from dinov3.utils.process_group import rank_and_world_size

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig


def batches_of(
    config: SegmentationConfig, iteration: int, targets: SemanticToM2FTargets | None, *, pin_memory: bool = False
) -> Iterator[dict[str, Any]]:
    """The training batches of this process from `iteration` on; see `training_batches`.

    Raises:
        UsageError: There is no training set.
        DataError: A file cannot be used.
    """
    dataset = dataset_of(config, config.datasets.train, "datasets.train")
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


def dataset_of(config: SegmentationConfig, descriptor: str, setting: str) -> SegmentationDataset:
    """A dataset of the configuration.

    Raises:
        UsageError: None is named, or its folder does not exist.
        DataError: The folder has no images, or they do not fit the label maps.
    """
    if not descriptor:
        raise UsageError(f"Training needs {setting}, and it is empty; set it, for example to ADE20K:split=TRAIN")
    return make_dataset(
        descriptor,
        config.datasets.root,
        num_classes=config.decoder_head.num_classes,
        reduce_zero_label=config.eval.reduce_zero_label,
    )
