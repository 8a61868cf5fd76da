"""What the pipelines promise whatever they draw; that seeded draws are upstream's is tested with the loader."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.default_pipeline import training_transforms, validation_transforms

NUM_DRAWS = 20


def _sample(shape: tuple[int, ...] = (12, 14), channels: int = 2) -> dict[str, torch.Tensor]:
    image = torch.rand(channels, *shape) + 1
    segmentation = torch.randint(-1, 3, (1, *shape), dtype=torch.int16)
    return {"image": image, "segmentation": segmentation}


def _training(**changes):
    arguments = {"patch_size": (8, 10), "rotation_for_DA": (-1.0, 1.0), "deep_supervision_scales": None}
    arguments |= {"mirror_axes": (0, 1), "do_dummy_2d_data_aug": False}
    return training_transforms(**arguments | changes)


def test_training_patches_have_the_final_size(seeded):
    transforms = _training()
    for _ in range(NUM_DRAWS):
        result = transforms(**_sample())
        assert result["image"].shape == (2, 8, 10)
        assert result["segmentation"].shape == (1, 8, 10)


def test_no_outside_label_is_left(seeded):
    for transforms in (_training(), validation_transforms(None)):
        for _ in range(NUM_DRAWS):
            assert transforms(**_sample())["segmentation"].min() >= 0


def test_masked_channels_are_zero_outside_and_only_those(seeded):
    transforms = _training(use_mask_for_norm=[False, True], mirror_axes=None)
    sample = _sample()
    sample["segmentation"][:] = -1
    image = transforms(**sample)["image"]
    assert torch.count_nonzero(image[1]) == 0
    assert torch.count_nonzero(image[0]) > 0


def test_dummy_2d_does_not_mix_slices(seeded):
    transforms = _training(patch_size=(4, 8, 10), do_dummy_2d_data_aug=True, mirror_axes=())
    for _ in range(NUM_DRAWS):
        sample = _sample((4, 14, 14))
        for index in range(4):
            sample["segmentation"][0, index] = index
        result = transforms(**sample)["segmentation"][0]
        for index in range(4):
            assert set(result[index].unique().tolist()) <= {0, index}  # 0 where rotation shows the outside


def test_without_mirror_axes_nothing_is_mirrored(seeded):
    transforms = _training(rotation_for_DA=0.0, mirror_axes=None)
    ramp = torch.arange(12)[:, None].expand(12, 14).to(torch.int16)
    for _ in range(NUM_DRAWS):
        rows = transforms(image=torch.rand(1, 12, 14), segmentation=ramp[None].clone())["segmentation"][0, :, 5]
        assert rows[-1] > rows[0]


def test_targets_have_the_supervised_sizes():
    scales = [[1.0, 1.0], [0.5, 0.5], [0.25, 0.5]]
    targets = _training(deep_supervision_scales=scales)(**_sample())["segmentation"]
    assert [tuple(target.shape[1:]) for target in targets] == [(8, 10), (4, 5), (2, 5)]


@pytest.mark.parametrize("ignore_label", [None, 2])
def test_regions_are_bool_channels_with_the_ignored_voxels_last(ignore_label):
    sample = _sample()
    labels = sample["segmentation"][0].clone()
    regions = validation_transforms(None, regions=[(1, 2), (2,)], ignore_label=ignore_label)(**sample)["segmentation"]
    expected = [labels >= 1, labels == 2] + [labels == 2] * (ignore_label is not None)
    assert regions.dtype == torch.bool
    assert torch.equal(regions, torch.stack(expected))


@pytest.mark.parametrize("make", [lambda **kwargs: _training(patch_size=(12, 14), **kwargs), None])
def test_previous_stage_becomes_image_channels(seeded, make):
    make = make or (lambda **kwargs: validation_transforms(None, **kwargs))
    sample = _sample(channels=1)
    sample["segmentation"] = sample["segmentation"].repeat(2, 1, 1)
    result = make(is_cascaded=True, foreground_labels=[1, 2])(**sample)
    assert result["image"].shape[0] == 3
    assert set(result["image"][1:].unique().tolist()) <= {0.0, 1.0}
    assert result["segmentation"].shape[0] == 1


@pytest.mark.parametrize("labels", [None, []])
def test_a_cascade_without_labels_is_refused(labels):
    with pytest.raises(UsageError, match="a cascade needs foreground_labels"):
        _training(is_cascaded=True, foreground_labels=labels)


def test_the_callers_lists_are_not_changed(seeded):
    labels, regions, scales = [1, 2], [(1, 2), (2,)], [[1.0, 1.0]]
    transforms = _training(
        is_cascaded=True, foreground_labels=labels, regions=regions, ignore_label=3, deep_supervision_scales=scales
    )
    sample = _sample()
    sample["segmentation"] = sample["segmentation"].repeat(2, 1, 1)
    transforms(**sample)
    assert (labels, regions, scales) == ([1, 2], [(1, 2), (2,)], [[1.0, 1.0]])
