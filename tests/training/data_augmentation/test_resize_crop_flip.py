"""Resize, crop and flip: against the transforms of the DINOv3 tree, and what holds whatever is drawn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dinov3.eval.segmentation.transforms import make_segmentation_train_transforms
from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.resize_crop_flip import (
    ResizedCropTransform,
    resize_crop_flip_geometry,
    resize_crop_flip_transforms,
)

NUM_DRAWS = 60
PATCH = (32, 32)
SAMPLE = (64, 64)  # what the loader cuts out for this patch
MIDDLE = 32


def transforms_of(**changes: Any):
    arguments = {"patch_size": PATCH, "rotation_for_DA": (0.0, 0.0), "deep_supervision_scales": None}
    arguments |= {"mirror_axes": (1,), "do_dummy_2d_data_aug": False}
    return resize_crop_flip_transforms(**arguments | changes)


def sample_of(labels: torch.Tensor, channels: int = 1) -> dict[str, torch.Tensor]:
    return {
        "image": labels.float().expand(channels, *labels.shape).clone(),
        "segmentation": labels[None].to(torch.int16),
    }


def columns() -> torch.Tensor:
    """A label map in which each label is the number of its column, counted from 1."""
    return torch.arange(1, SAMPLE[1] + 1).expand(SAMPLE)


@pytest.mark.parametrize(("ratio", "size"), [(0.5, 64), (0.8, 40), (1.0, 32), (1.6, 20), (2.0, 16)])
def test_a_case_that_just_fills_the_crop_becomes_what_the_dinov3_tree_makes_of_it(seeded, ratio, size):
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    label = torch.randint(0, 5, (size, size))
    reference = make_segmentation_train_transforms(
        random_img_size_ratio_range=(ratio, ratio),
        crop_size=PATCH,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        photometric_distortion=False,
    )
    expected_image, expected_label = reference(image, label, torch.Generator())
    top = (SAMPLE[0] - size) // 2
    padded = torch.zeros(3, *SAMPLE), torch.full((1, *SAMPLE), -1, dtype=torch.int16)
    for values, case in zip(padded, (image, label), strict=True):
        values[:, top : top + size, top : top + size] = case
    result = ResizedCropTransform(PATCH, (ratio, ratio))(image=padded[0], segmentation=padded[1])
    torch.testing.assert_close(result["image"], expected_image, atol=1.01, rtol=0)  # uint8, rounded twice
    assert torch.equal(result["segmentation"][0].long(), expected_label)
    assert result["segmentation"].dtype == torch.int16


def test_image_and_labels_stay_aligned_and_only_left_and_right_are_swapped(seeded):
    transforms = transforms_of()
    num_flipped = 0
    for _ in range(NUM_DRAWS):
        result = transforms(**sample_of(columns(), channels=2))
        image, labels = result["image"], result["segmentation"][0]
        assert image.shape == (2, *PATCH)
        assert labels.shape == PATCH
        inner = slice(2, -2)  # antialiasing sees fewer pixels at the border
        torch.testing.assert_close(image[..., inner], labels.float().expand(2, -1, -1)[..., inner], atol=0.51, rtol=0)
        num_flipped += bool(labels[0, 0] > labels[0, -1])
        turned = transforms(**sample_of(columns().T))["segmentation"][0]
        assert turned[0, 0] < turned[-1, 0]
    assert 15 <= num_flipped <= 45


def test_ratios_are_drawn_between_half_and_twice_the_size(seeded):
    transforms = transforms_of(mirror_axes=None)
    parts = [transforms(**sample_of(columns()))["segmentation"][0, 0] for _ in range(10 * NUM_DRAWS)]
    ratios = np.array([31 / int(part[-1] - part[0]) for part in parts])
    assert 0.48 < ratios.min() < 0.53
    assert 1.9 < ratios.max() < 2.2
    assert np.mean(ratios) == pytest.approx(1.25, abs=0.06)


@pytest.mark.parametrize(("ratio", "starts"), [(2.0, range(16, 33)), (1.0, [16]), (0.8, range(8, 17)), (0.5, [0])])
def test_parts_move_within_the_middle_or_around_it(seeded, ratio, starts):
    """The middle is 16 to 47. Labels of background do not end the case."""
    crop = ResizedCropTransform(PATCH, (ratio, ratio))
    labels = (columns() > 44).to(torch.int16)
    parts = [crop.get_parameters(**sample_of(labels))["part"] for _ in range(5 * NUM_DRAWS)]
    for axis in (0, 1):
        assert {part[axis].start for part in parts} == set(starts)
        assert {part[axis].stop - part[axis].start for part in parts} == {32 / ratio}


def test_a_part_has_the_shape_of_the_patch_along_each_axis(seeded):
    """Patches of 24 x 40 of samples of 48 x 80; every pixel of the sample has another number."""
    labels = torch.arange(48 * 80).reshape(48, 80)
    whole, quarter = (
        ResizedCropTransform((24, 40), (ratio, ratio))(**sample_of(labels))["segmentation"][0] for ratio in (0.5, 1.0)
    )
    assert whole.shape == quarter.shape == (24, 40)
    assert torch.equal(quarter, labels[12:36, 20:60].to(torch.int16))
    assert torch.equal(whole, labels[1::2, 1::2].to(torch.int16))


def test_what_the_loader_centred_the_sample_on_is_kept(seeded):
    labels = torch.zeros(SAMPLE, dtype=torch.int16)
    labels[MIDDLE - 1 : MIDDLE + 2, MIDDLE - 1 : MIDDLE + 2] = 1
    labels[: MIDDLE - 8], labels[:, MIDDLE + 9 :] = -1, -1  # a corner of the case
    transforms = transforms_of()
    for _ in range(NUM_DRAWS):
        assert (transforms(**sample_of(labels))["segmentation"] == 1).any()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("end", [0, 1])
def test_nothing_beyond_the_border_of_a_large_case_is_shown(seeded, axis, end):
    labels = torch.ones(SAMPLE, dtype=torch.int16)
    beyond = slice(None, 20) if end == 0 else slice(-20, None)
    labels[(slice(None),) * axis + (beyond,)] = -1
    crop = ResizedCropTransform(PATCH, (32 / 44, 2.0))  # 44 pixels of the axis are left
    for _ in range(NUM_DRAWS):
        assert (crop(**sample_of(labels))["segmentation"] == 1).all()


def test_a_small_case_is_shown_whole_and_the_rest_becomes_background(seeded):
    labels = torch.full(SAMPLE, -1, dtype=torch.int16)
    labels[30:40, 22:44] = 2
    result = ResizedCropTransform(PATCH, (1.0, 1.0))(**sample_of(labels))["segmentation"]
    assert (result == 2).sum() == 10 * 22
    result = transforms_of()(**sample_of(labels))["segmentation"]
    assert set(result.unique().tolist()) == {0, 2}


def test_a_sample_without_any_labelled_pixel_is_transformed(seeded):
    result = transforms_of()(**sample_of(torch.full(SAMPLE, -1)))
    assert result["segmentation"].abs().max() == 0


def test_masked_channels_are_zero_outside_and_only_those(seeded):
    labels = torch.full(SAMPLE, -1, dtype=torch.int16)
    labels[:, :MIDDLE] = 1
    for _ in range(NUM_DRAWS):
        sample = sample_of(labels)
        sample["image"] = torch.ones(2, *SAMPLE)
        result = transforms_of(use_mask_for_norm=[False, True])(**sample)
        assert torch.equal(result["image"][1] != 0, result["segmentation"][0] == 1)
        torch.testing.assert_close(result["image"][0], torch.ones(PATCH))


def test_regions_and_the_ignored_pixels_are_channels(seeded):
    labels = torch.randint(0, 4, SAMPLE)
    transforms = transforms_of(regions=[(1, 2), (2,)], ignore_label=3)
    plain = transforms_of()
    for _ in range(NUM_DRAWS // 6):
        state = np.random.get_state(), torch.get_rng_state()
        target = transforms(**sample_of(labels))["segmentation"]
        np.random.set_state(state[0])
        torch.set_rng_state(state[1])
        drawn = plain(**sample_of(labels))["segmentation"][0]
        assert target.dtype == torch.bool
        assert torch.equal(target, torch.stack([(drawn == 1) | (drawn == 2), drawn == 2, drawn == 3]))


def test_targets_have_the_supervised_sizes(seeded):
    targets = transforms_of(deep_supervision_scales=[[1.0, 1.0], [0.5, 0.25]])(**sample_of(columns()))["segmentation"]
    assert [tuple(target.shape) for target in targets] == [(1, 32, 32), (1, 16, 8)]


def test_seeds_of_numpy_and_torch_repeat_the_draws_in_another_process():
    transforms = transforms_of()
    results = []
    for made in (transforms, pickle.loads(pickle.dumps(transforms))):
        np.random.seed(3)
        torch.manual_seed(3)
        results.append([made(**sample_of(columns()))["segmentation"] for _ in range(5)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(results[0][0], results[0][1])


def test_the_loader_cuts_out_twice_the_patch_and_one_axis_is_mirrored():
    geometry = resize_crop_flip_geometry((33, 48))
    assert geometry.initial_patch_size.tolist() == [66, 96]
    assert geometry.mirror_axes == (1,)
    assert geometry.rotation == (0.0, 0.0)
    assert geometry.do_dummy_2d is False


@pytest.mark.parametrize("call", [resize_crop_flip_geometry, lambda patch_size: transforms_of(patch_size=patch_size)])
def test_three_axes_are_refused(call):
    with pytest.raises(UsageError, match=r"two axes, the plans say \[8, 32, 32\]; train a 2d configuration"):
        call((8, 32, 32))


def test_cascades_are_refused():
    with pytest.raises(UsageError, match="previous stage of a cascade; set use_nnunet_augmentation=true"):
        transforms_of(is_cascaded=True, foreground_labels=[1])
