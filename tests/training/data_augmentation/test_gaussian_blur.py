"""Blurring of patches that are shorter than the kernel."""

from __future__ import annotations

import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform as Upstreams

from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import GaussianBlurTransform


def blurred(kind: type[Upstreams], image: torch.Tensor, sigma: float) -> torch.Tensor:
    transform = kind(blur_sigma=(sigma, sigma), p_per_channel=1)
    return transform(image=image.clone())["image"]


@pytest.mark.parametrize("shape", [(2, 9, 8), (1, 4, 6, 7)])
def test_longer_patches_are_blurred_as_upstream_does(shape: tuple[int, ...], seeded: int) -> None:
    image = torch.randn(shape)
    assert torch.equal(blurred(GaussianBlurTransform, image, 1.0), blurred(Upstreams, image, 1.0))


@pytest.mark.parametrize("shape", [(1, 1, 12), (2, 3, 12), (1, 2, 9, 9), (1, 1, 1)])
def test_short_axes(shape: tuple[int, ...], seeded: int) -> None:
    image = torch.randn(shape)
    if min(shape[1:]) < 4:
        with pytest.raises(RuntimeError, match="[Pp]adding"):
            blurred(Upstreams, image, 1.0)
    result = blurred(GaussianBlurTransform, image, 1.0)
    assert result.shape == image.shape
    assert result.std(correction=0) <= image.std(correction=0)


def test_a_short_axis_does_not_change_the_others(seeded: int) -> None:
    row = torch.randn(1, 1, 12)
    # Voxels that are equal along an axis stay equal, so the other axis is blurred as if it were alone.
    expected = blurred(Upstreams, row.expand(1, 9, 12), 1.0)[:, :1]
    torch.testing.assert_close(blurred(GaussianBlurTransform, row, 1.0), expected)
