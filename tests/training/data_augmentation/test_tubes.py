"""Tubes in the pipelines: made of the augmented labels at full resolution, whatever the pipeline looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunetv2.training.data_augmentation.custom_transforms.tubes import TubeTransform, followed_by_tubes
from nnunetv2.training.data_augmentation.default_pipeline import training_transforms, validation_transforms
from nnunetv2.training.data_augmentation.resize_crop_flip import resize_crop_flip_transforms
from nnunetv2.training.loss.tubes import with_tubes
from nnunetv2.training.protocol.augmentation import augmentation_description
from tests.training.loss.thin_structures import task_of, two_classes

LABELS = task_of(3)
SCALES = [[1.0, 1.0], [0.5, 0.5]]
GEOMETRY = {"patch_size": (7, 13), "rotation_for_DA": (-1.0, 1.0), "mirror_axes": (0, 1), "do_dummy_2d_data_aug": False}


def sample() -> dict[str, torch.Tensor]:
    return {"image": torch.rand(1, 7, 13), "segmentation": two_classes()}


def test_targets_are_resized_after_the_tubes(seeded):
    labels = torch.zeros(1, 24, 24, dtype=torch.int16)
    labels[0, 4:19, 4:19] = 1
    convert = followed_by_tubes(validation_transforms(SCALES), LABELS)
    first, second = convert(image=torch.rand(1, 24, 24), segmentation=labels)["segmentation"]
    assert torch.equal(first, with_tubes(labels, LABELS))
    assert second.shape == (2, 12, 12)
    assert not torch.equal(second, with_tubes(second[:1], LABELS))


def test_tubes_are_those_of_the_augmented_labels(seeded):
    augment = followed_by_tubes(training_transforms(**GEOMETRY, deep_supervision_scales=None), LABELS)
    for _ in range(10):
        target = augment(**sample())["segmentation"]
        assert torch.equal(target, with_tubes(target[:1], LABELS))


def test_regions_have_a_tube_each(seeded):
    task = task_of(2, regions=True, ignore=3)
    convert = validation_transforms(None, regions=[(1, 2), 2], ignore_label=3)
    target = followed_by_tubes(convert, task)(**sample())["segmentation"]
    assert target.shape == (5, 7, 13)
    assert torch.equal(target, with_tubes(target[:3], task))


@pytest.mark.parametrize("scales", [None, SCALES])
def test_random_numbers_and_the_description_of_the_augmentation_stay(scales):
    for make in (training_transforms, resize_crop_flip_transforms):
        plain = make(**GEOMETRY, deep_supervision_scales=scales)
        extended = followed_by_tubes(plain, LABELS)
        results = []
        for transforms in (plain, extended):
            torch.manual_seed(0)
            np.random.seed(0)
            results.append(transforms(**sample()))
        assert torch.equal(results[0]["image"], results[1]["image"])
        if make is training_transforms:
            assert augmentation_description(extended) == augmentation_description(plain)


def test_a_single_transform_is_extended():
    extended = followed_by_tubes(TubeTransform(LABELS), task_of(2))
    assert isinstance(extended, ComposeTransforms)
    assert len(extended.transforms) == 2
