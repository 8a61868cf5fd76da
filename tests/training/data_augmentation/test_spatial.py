"""Rotation, scaling and cropping are batchgeneratorsv2's: the same draws, the same labels, the same image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform as Upstreams

from nnunetv2.training.data_augmentation import affine_sampling
from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform

NUM_DRAWS = 6
OUTSIDE = -1
DEFAULT: dict[str, Any] = {
    "patch_center_dist_from_border": 0,
    "random_crop": False,
    "p_rotation": 0.8,
    "rotation": (-0.5, 0.5),
    "p_scaling": 0.8,
    "scaling": (0.7, 1.4),
    "p_synchronize_scaling_across_axes": 1,
    "border_mode_seg": "constant",
    "padding_value_seg": OUTSIDE,
}
ELASTIC = {"p_elastic_deform": 1, "elastic_deform_magnitude": (2, 4), "elastic_deform_scale": 0.2}


def smooth(shape: tuple[int, ...]) -> torch.Tensor:
    """Noise of zero mean and unit variance that changes over some four voxels per axis."""
    values = torch.randn(shape)
    for axis in range(1, len(shape)):
        values = sum(values.roll(step, axis) for step in range(4))
    return (values - values.mean()) / values.std()


def sample(spatial: tuple[int, ...], channels: int = 1, label_maps: int = 1) -> dict[str, torch.Tensor]:
    """Image and label maps with the labels -1 (a border), 0, 1, 2, 5 in patches of some voxels."""
    levels = torch.bucketize(smooth((label_maps, *spatial)), torch.tensor([0.2, 0.8, 1.3]))
    segmentation = torch.tensor([0, 1, 2, 5], dtype=torch.int16)[levels]
    segmentation[:, :2] = -1
    return {"image": smooth((channels, *spatial)), "segmentation": segmentation}


def transformed(kind: type[Upstreams], example: dict[str, torch.Tensor], patch: tuple[int, ...], **changes: Any) -> Any:
    """Result of one draw, and the random number that is drawn next."""
    result = kind(patch, **DEFAULT | changes)(**{key: value.clone() for key, value in example.items()})
    return result["image"], result["segmentation"], (np.random.uniform(), torch.rand(1).item())


CASES = {
    "2d": ((44, 40), (32, 30), 3, 1, {}),
    "slices as channels": ((40, 44), (30, 30), 6, 6, {}),
    "3d": ((22, 30, 26), (14, 20, 18), 1, 1, {}),
    "3d, several channels, cascade": ((22, 30, 26), (14, 20, 18), 2, 2, {}),
    "anisotropic, in 3-D": ((5, 36, 34), (4, 28, 26), 1, 1, {}),
    "one slice": ((1, 30, 26), (1, 20, 18), 1, 1, {}),
    "voxels in the middle of two": ((24, 32, 26), (15, 21, 19), 1, 1, {"p_rotation": 0, "p_scaling": 1}),
    "voxels in the middle of two, nearest": ((32, 28), (21, 19), 1, 1, {"p_rotation": 0, "mode_seg": "nearest"}),
    "larger than the sample": ((12, 14, 13), (16, 16, 16), 1, 1, {}),
    "one axis turned, own factors": (
        (22, 30, 26),
        (14, 20, 18),
        1,
        1,
        {"p_rot_per_axis": 0.5, "p_synchronize_scaling_across_axes": 0},
    ),
    "random crop": ((30, 34, 30), (14, 20, 18), 1, 1, {"random_crop": True, "patch_center_dist_from_border": 8}),
    "random crop of an axis that is too short": (
        (40, 12),
        (20, 18),
        1,
        1,
        {"random_crop": True, "patch_center_dist_from_border": 8},
    ),
    "labels by the nearest voxel": ((22, 30, 26), (14, 20, 18), 1, 1, {"mode_seg": "nearest"}),
    "other values outside": (
        (14, 16, 13),
        (14, 20, 18),
        1,
        1,
        {"padding_mode_image": "constant", "padding_value_image": 3, "border_mode_seg": "zeros"},
    ),
    "other values outside, 2d": (
        (14, 16),
        (20, 18),
        2,
        1,
        {"padding_mode_image": "constant", "padding_value_image": 3, "padding_value_seg": 7},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_and_results_are_upstreams(name: str, seeded: int) -> None:
    spatial, patch, channels, label_maps, changes = CASES[name]
    example = sample(spatial, channels, label_maps)
    for seed in range(NUM_DRAWS):
        results = []
        for kind in (Upstreams, SpatialTransform):
            np.random.seed(seed)
            torch.manual_seed(seed)
            results.append(transformed(kind, example, patch, **changes))
        (image, labels, draws), (our_image, our_labels, our_draws) = results
        torch.testing.assert_close(our_image, image, rtol=0, atol=2e-6)
        assert torch.equal(our_labels, labels)
        assert our_labels.dtype == labels.dtype
        assert our_draws == draws


@pytest.mark.parametrize("changes", [ELASTIC, {"mode_image": "nearest"}, {"border_mode_seg": "reflection"}])
def test_what_has_no_shortcut_is_left_to_upstream(changes: dict[str, Any], seeded: int) -> None:
    example = sample((22, 30, 26))
    results = []
    for kind in (Upstreams, SpatialTransform):
        np.random.seed(3)
        torch.manual_seed(3)
        results.append(transformed(kind, example, (14, 20, 18), **changes))
    assert torch.equal(results[1][0], results[0][0])
    assert torch.equal(results[1][1], results[0][1])
    assert results[1][2] == results[0][2]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int32])
def test_other_types_of_labels(dtype: torch.dtype, seeded: int) -> None:
    example = sample((44, 40))
    example["segmentation"] = example["segmentation"].clamp(0).to(dtype)
    results = []
    for kind in (Upstreams, SpatialTransform):
        np.random.seed(0)
        results.append(transformed(kind, example, (32, 30), p_rotation=1, padding_value_seg=0)[1])
    assert results[1].dtype == dtype
    assert torch.equal(*results)


def test_many_labels_are_interpolated_at_once(seeded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of interpolations of the whole patch is that of the image, however many labels there are."""
    calls = []
    interpolate = affine_sampling.grid_sample
    monkeypatch.setattr(affine_sampling, "grid_sample", lambda *a, **k: calls.append(1) or interpolate(*a, **k))
    example = {"image": torch.randn(2, 44, 40), "segmentation": torch.randint(0, 40, (1, 44, 40), dtype=torch.int16)}
    np.random.seed(0)
    ours = transformed(SpatialTransform, example, (32, 30), p_rotation=1)[1]
    assert len(calls) == 1
    np.random.seed(0)
    assert torch.equal(ours, transformed(Upstreams, example, (32, 30), p_rotation=1)[1])


def test_the_input_is_not_changed(seeded: int) -> None:
    example = sample((22, 30, 26))
    before = {key: value.clone() for key, value in example.items()}
    SpatialTransform((14, 20, 18), **DEFAULT | {"p_rotation": 1})(**example)
    assert all(torch.equal(example[key], before[key]) for key in example)
