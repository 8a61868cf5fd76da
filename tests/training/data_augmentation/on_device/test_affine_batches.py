"""Sampling for several samples together gives what sampling each alone on the CPU gives, labels in every voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetv2.training.data_augmentation import affine_sampling
from nnunetv2.training.data_augmentation.affine_sampling import AffinePatch
from nnunetv2.training.data_augmentation.on_device import affine_batches
from nnunetv2.training.data_augmentation.on_device.affine_batches import AffinePatches
from tests.training.data_augmentation.test_spatial import sample

OUTSIDE = -1
# Spatial shape of the samples, of the patches, channels, label maps.
CASES = {
    "2d": ((44, 40), (32, 30), 3, 1),
    "slices as channels": ((40, 44), (30, 30), 6, 12),
    "3d": ((22, 30, 26), (14, 20, 18), 2, 1),
    "few slices": ((4, 30, 26), (2, 20, 18), 1, 2),
    "larger than the sample": ((12, 14, 13), (16, 16, 16), 1, 1),
}


def patches_of(shape: tuple[int, ...], num: int, generator: np.random.Generator) -> list[AffinePatch]:
    """Patches with any matrix; the first is only scaled, so that its voxels lie in the middle of others."""
    num_axes = len(shape)
    halved = AffinePatch(0.5 * np.eye(num_axes), [0.0] * num_axes, shape)
    others = (
        AffinePatch(
            np.eye(num_axes) + generator.normal(0, 0.3, (num_axes,) * 2), generator.normal(0, 2, num_axes), shape
        )
        for _ in range(num - 1)
    )
    return [halved, *others]


def together(patches: list[AffinePatch]) -> AffinePatches:
    matrices = torch.stack([torch.from_numpy(patch.matrix).float() for patch in patches])
    shifts = torch.tensor([list(map(float, patch.shift)) for patch in patches])
    return AffinePatches(matrices, shifts, patches[0].shape)


@pytest.mark.parametrize("voxels_at_once", [2**21, 700])
@pytest.mark.parametrize("by_nearest", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_cpu(
    name: str, by_nearest: bool, voxels_at_once: int, seeded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine_batches, "_VOXELS_AT_ONCE", voxels_at_once)
    spatial, shape, _, label_maps = CASES[name]
    patches = patches_of(shape, 5, np.random.default_rng(seeded))
    labels = torch.stack([sample(spatial, 1, label_maps)["segmentation"] for _ in patches])
    alone = affine_sampling.sample_nearest_labels if by_nearest else affine_sampling.sample_labels
    expected = torch.stack([alone(one, patch, OUTSIDE) for one, patch in zip(labels, patches, strict=True)])
    result = affine_batches.sample_labels(labels, together(patches), OUTSIDE, by_nearest=by_nearest)
    assert torch.equal(result, expected)
    assert result.dtype == labels.dtype
    assert len(expected.unique()) == 5


@pytest.mark.parametrize("outside", [0, 3])
@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_the_cpu(name: str, outside: float, seeded: int) -> None:
    spatial, shape, channels, _ = CASES[name]
    patches = patches_of(shape, 4, np.random.default_rng(seeded))
    images = torch.stack([sample(spatial, channels)["image"] for _ in patches])
    expected = [
        affine_sampling.sample_image(image, patch, outside) for image, patch in zip(images, patches, strict=True)
    ]
    result = affine_batches.sample_images(images, together(patches), outside)
    torch.testing.assert_close(result, torch.stack(expected), rtol=0, atol=3e-5)


def test_ties_are_won_by_the_nearest_label_and_else_by_the_smallest() -> None:
    # A voxel in the middle of 3 and 1: the one at the even position is nearest. Then in the middle of four, where 2
    # and 5 have two voxels each.
    labels = torch.tensor([[[[3, 1]]], [[[1, 3]]]], dtype=torch.int16)
    middle = AffinePatch(np.eye(2), [0.0, 0.0], (1, 1))
    result = affine_batches.sample_labels(labels, together([middle] * 2), OUTSIDE, by_nearest=False)
    assert result.flatten().tolist() == [3, 1]
    labels = torch.tensor([[[[7, 5, 0], [2, 5, 2], [0, 0, 0]]]], dtype=torch.int16)
    quarter = AffinePatch(np.eye(2), [-0.5, -0.25], (1, 1))  # 7 and 2 left, 5 and 5 right, with 3/4 of the weight
    assert affine_batches.sample_labels(labels, together([quarter]), OUTSIDE, by_nearest=False).item() == 5
    labels = torch.tensor([[[[7, 5, 0], [2, 3, 2], [0, 0, 0]]]], dtype=torch.int16)
    corner = AffinePatch(np.eye(2), [-0.5, -0.5], (1, 1))  # four labels with a quarter each
    assert affine_batches.sample_labels(labels, together([corner]), OUTSIDE, by_nearest=False).item() == 7
