"""Augmentation of slices with their neighbours as channels: the slices of a sample change alike."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from nnunetv2.training.data_augmentation import da5_pipeline, default_pipeline
from nnunetv2.training.data_augmentation.context_slices import SlicesAlike, SlicesTogether, of_context_slices
from nnunetv2.training.data_augmentation.pipeline import Augmentation, training_transforms_of

CHANNELS, SLICES, SIZE = 2, 3, (24, 20)


def pipeline(augmentation: Augmentation) -> BasicTransform:
    return training_transforms_of(augmentation)(SIZE, (-1.0, 1.0), None, (0, 1), False)


def certain(transform: BasicTransform) -> BasicTransform:
    """Applies every random transform."""
    for each in getattr(transform, "transforms", []):
        if hasattr(each, "apply_probability"):
            each.apply_probability = 1.0
    return transform


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)


def sample(slices: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(CHANNELS, 1, *SIZE, generator=generator).expand(-1, slices, -1, -1)
    return {"image": image.flatten(0, 1).clone(), "segmentation": torch.zeros(1, *SIZE, dtype=torch.int16)}


def is_noise(transform: BasicTransform) -> bool:
    return "Noise" in type(getattr(transform, "transform", transform)).__name__


@pytest.mark.parametrize("augmentation", [default_pipeline.DEFAULT, da5_pipeline.DA5])
@pytest.mark.parametrize("number", range(8))
def test_equal_slices_stay_equal(augmentation: Augmentation, number: int) -> None:
    """All transforms but noise, which is drawn for each voxel."""
    plain = certain(pipeline(augmentation))
    plain.transforms = [each for each in plain.transforms if not is_noise(each)]
    before = copy.deepcopy([type(each) for each in plain.transforms])
    seed(number)
    changed = of_context_slices(plain, SLICES)(**sample(SLICES))["image"].unflatten(0, (CHANNELS, SLICES))
    torch.testing.assert_close(changed, changed[:, 1:2].expand_as(changed), rtol=0, atol=1e-5)
    assert not torch.allclose(changed[0, 0], changed[1, 0])  # the two channels have changes of their own
    assert [type(each) for each in plain.transforms] == before


def test_the_middle_of_equal_slices_changes_as_an_image_does() -> None:
    plain = certain(pipeline(default_pipeline.DEFAULT))
    plain.transforms = [each for each in plain.transforms if not is_noise(each)]
    seed(3)
    expected = plain(**sample(1))["image"]
    seed(3)
    found = of_context_slices(plain, SLICES)(**sample(SLICES))["image"][1::SLICES]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)  # statistics of three slices round differently


def test_different_slices_get_one_contrast() -> None:
    """A ramp over the slices stays one, which it would not if each slice had changes of its own."""
    image = torch.arange(SLICES, dtype=torch.float32)[None, :, None, None] + torch.rand(CHANNELS, 1, *SIZE)
    given = {"image": image.flatten(0, 1).clone(), "segmentation": torch.zeros(1, *SIZE, dtype=torch.int16)}
    brightness = [
        each
        for each in pipeline(default_pipeline.DEFAULT).transforms
        if "Brightness" in type(getattr(each, "transform", each)).__name__
    ]
    seed(0)
    changed = of_context_slices(certain(ComposeTransforms(brightness)), SLICES)(**given)["image"]
    factors = changed.unflatten(0, (CHANNELS, SLICES)) / image
    assert factors.flatten(1).std(dim=1).max() < 1e-6
    assert abs(factors[0].mean() - factors[1].mean()) > 1e-3


def test_masks_set_the_same_voxels_of_all_slices() -> None:
    (masking,) = default_pipeline.training_transforms(
        SIZE, (0.0, 0.0), None, None, False, use_mask_for_norm=(False, True)
    ).transforms[-2:-1]
    given = sample(SLICES)
    given["segmentation"][0, :5] = -1
    changed = of_context_slices(masking, SLICES)(**given)["image"].unflatten(0, (CHANNELS, SLICES))
    assert isinstance(of_context_slices(masking, SLICES), SlicesAlike)
    assert (changed[1, :, :5] == 0).all()
    assert (changed[1, :, 5:] > 0).all()
    assert (changed[0] > 0).all()


def test_noise_differs_between_slices() -> None:
    noisy = of_context_slices(default_pipeline.noise(), SLICES)
    assert isinstance(noisy, SlicesTogether)
    seed(1)
    changed = noisy(**sample(SLICES))["image"].unflatten(0, (CHANNELS, SLICES))
    assert (changed[:, 0] - changed[:, 1]).abs().mean() > 1e-3
