"""Gamma correction is batchgeneratorsv2's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform as Upstreams

from nnunetv2.training.data_augmentation.custom_transforms.gamma import GammaTransform


@pytest.mark.parametrize("shape", [(3, 61, 50), (2, 14, 32, 30)])
@pytest.mark.parametrize(
    "settings",
    [
        {"p_invert_image": 1, "p_retain_stats": 1},
        {"p_invert_image": 0, "p_retain_stats": 1},
        {"p_invert_image": 0.5, "p_retain_stats": 0.5, "p_per_channel": 0.5},
        {"p_invert_image": 0.5, "p_retain_stats": 0, "synchronize_channels": True},
    ],
)
def test_draws_and_results_are_upstreams(shape: tuple[int, ...], settings: dict[str, Any], seeded: int) -> None:
    image = torch.randn(shape) * 3 + 100 * torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    arguments = {"gamma": BGContrast((0.7, 1.5)), "synchronize_channels": False, "p_per_channel": 1, **settings}
    for seed in range(8):
        results = []
        for kind in (Upstreams, GammaTransform):
            np.random.seed(seed)
            torch.manual_seed(seed)
            results.append((kind(**arguments)(image=image.clone())["image"], np.random.uniform(), torch.rand(1)))
        torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-6, atol=5e-5)
        assert results[1][1:] == results[0][1:]


@pytest.mark.parametrize("retain_stats", [0, 1])
@pytest.mark.parametrize("value", [0.0, -2.5, 1e6])
def test_a_constant_channel_stays(value: float, retain_stats: int) -> None:
    transform = GammaTransform(
        (0.7, 1.5), 0.5, synchronize_channels=False, p_per_channel=1, p_retain_stats=retain_stats
    )
    image = torch.full((4, 9, 8), value)
    torch.testing.assert_close(transform(image=image.clone())["image"], image)


def test_a_view_is_changed_in_place_and_nothing_around_it(seeded: int) -> None:
    whole = torch.randn(2, 11, 11)
    before, inside = whole.clone(), (slice(None), slice(2, 9), slice(1, 7))
    transform = GammaTransform((0.5, 0.5), 0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1)
    expected = transform(image=whole[inside].clone())["image"]
    transform(image=whole[inside])
    torch.testing.assert_close(whole[inside], expected)
    whole[inside] = before[inside]
    assert torch.equal(whole, before)
