"""Targets at several resolutions, and labels removed from them, are batchgeneratorsv2's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform as Downsampling
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform as Removal

from nnunetv2.training.data_augmentation.custom_transforms.targets import (
    DownsampleSegForDSTransform,
    RemoveLabelTransform,
)


@pytest.mark.parametrize("dtype", [torch.int16, torch.bool])
@pytest.mark.parametrize(
    "scales",
    [
        [1, 0.5, 0.25],
        [[1.0, 1.0, 1.0], [1.0, 0.5, 0.5], [0.5, 0.25, 0.25]],
        [[0.3, 0.77, 1 / 3], [0.1, 0.9, 1.5], [0.01 + 1 / 20, 1 / 18, 1.0]],
        [[1, 1, 1]],
    ],
)
def test_targets_are_upstreams(scales: list[Any], dtype: torch.dtype, seeded: int) -> None:
    segmentation = torch.randint(-1, 4, (2, 20, 18, 17)).to(dtype)
    ours, upstreams = (
        kind(scales)(segmentation=segmentation)["segmentation"] for kind in (DownsampleSegForDSTransform, Downsampling)
    )
    assert [target.dtype for target in ours] == [dtype] * len(scales)
    for target, expected in zip(ours, upstreams, strict=True):
        assert torch.equal(target, expected)
        assert target.is_contiguous()


@pytest.mark.parametrize("size", [7, 48, 97, 160, 255, 512])
def test_voxels_are_those_of_nearest_exact(size: int) -> None:
    row = torch.arange(size, dtype=torch.int16)[None]
    for new_size in range(1, size + 1):
        expected = torch.nn.functional.interpolate(row[None].float(), [new_size], mode="nearest-exact")[0].short()
        assert torch.equal(
            DownsampleSegForDSTransform([new_size / size])(segmentation=row)["segmentation"][0], expected
        )


@pytest.mark.parametrize("channels", [None, 1, [0, 2]])
@pytest.mark.parametrize(("label", "replacement"), [(-1, 0), (2, 7), (0, -1)])
def test_labels_are_replaced_in_place(channels: Any, label: int, replacement: int, seeded: int) -> None:
    segmentation = torch.randint(-1, 4, (3, 9, 8), dtype=torch.int16)
    expected = Removal(label, replacement, channels)(segmentation=segmentation.clone())["segmentation"]
    whole = torch.zeros(3, 11, 11, dtype=torch.int16)
    whole[:, 1:10, 2:10] = segmentation
    result = RemoveLabelTransform(label, replacement, channels)(segmentation=whole[:, 1:10, 2:10])["segmentation"]
    assert torch.equal(result, expected)
    assert torch.equal(whole[:, 1:10, 2:10], expected)
