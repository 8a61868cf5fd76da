"""Adds the tubes of Skeleton Recall to the targets of a pipeline."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

from nnunetv2.training.loss.loss_config import LabelTask
from nnunetv2.training.loss.tubes import with_tubes


class TubeTransform(SegOnlyTransform):
    """Appends channels of tubes to the augmented target of a sample, see `nnunetv2.training.loss.tubes`."""

    def __init__(self, task: LabelTask) -> None:
        super().__init__()
        self.task = task

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        return with_tubes(segmentation, self.task)


def followed_by_tubes(transforms: BasicTransform, task: LabelTask) -> BasicTransform:
    """Extends a pipeline by a `TubeTransform`, as late as possible.

    It comes before the targets are resized for deep supervision: the skeleton of a small copy would be another one.
    """
    if not isinstance(transforms, ComposeTransforms):
        return ComposeTransforms([transforms, TubeTransform(task)])
    steps = list(transforms.transforms)
    for index, step in enumerate(steps):
        if isinstance(step, DownsampleSegForDSTransform):
            return ComposeTransforms([*steps[:index], TubeTransform(task), *steps[index:]])
        if isinstance(step, ComposeTransforms) and _resizes_targets(step):
            return ComposeTransforms([*steps[:index], followed_by_tubes(step, task), *steps[index + 1 :]])
    return ComposeTransforms([*steps, TubeTransform(task)])


def _resizes_targets(step: BasicTransform) -> bool:
    if isinstance(step, ComposeTransforms):
        return any(map(_resizes_targets, step.transforms))
    return isinstance(step, DownsampleSegForDSTransform)
