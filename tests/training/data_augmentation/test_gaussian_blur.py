"""The blur is batchgeneratorsv2's, and also accepts patches that are shorter than the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform as Upstreams
from batchgeneratorsv2.transforms.noise.gaussian_blur import _build_kernel

from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import GaussianBlurTransform, kernel_length


def blurred(kind: type[Upstreams], image: torch.Tensor, sigma: float) -> torch.Tensor:
    transform = kind(blur_sigma=(sigma, sigma), p_per_channel=1)
    return transform(image=image.clone())["image"]


@pytest.mark.parametrize("shape", [(3, 19, 18), (2, 14, 16, 17)])
@pytest.mark.parametrize(
    "settings",
    [
        {"blur_sigma": (0.5, 1.0), "p_per_channel": 0.5},
        {"blur_sigma": (0.02, 2.0), "synchronize_channels": True},
        {"blur_sigma": (0.3, 1.5), "synchronize_axes": True},
        {"blur_sigma": 0.58, "synchronize_axes": True, "synchronize_channels": True},
    ],
)
def test_draws_and_results_are_upstreams(shape: tuple[int, ...], settings: dict[str, Any], seeded: int) -> None:
    image = torch.randn(shape)
    for seed in range(8):
        results = []
        for kind in (Upstreams, GaussianBlurTransform):
            np.random.seed(seed)
            torch.manual_seed(seed)
            results.append((kind(**settings)(image=image.clone())["image"], np.random.uniform(), torch.rand(1)))
        torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=2e-6)
        assert results[1][1:] == results[0][1:]


@pytest.mark.parametrize("sigma", np.arange(0.02, 3.0, 0.07).round(3))
def test_length_of_the_kernel_is_upstreams(sigma: float) -> None:
    assert kernel_length(sigma) == len(_build_kernel(sigma, truncate=6))


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
