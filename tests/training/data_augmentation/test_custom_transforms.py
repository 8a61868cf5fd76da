"""The batchgenerators-style transforms give upstream's results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2.training.data_augmentation.custom_transforms.cascade_transforms import (
    ApplyRandomBinaryOperatorTransform,
    binary_closing,
    binary_erosion,
    binary_opening,
)
from nnunetv2.training.data_augmentation.custom_transforms.deep_supervision_donwsampling import (
    DownsampleSegForDSTransform2,
)
from nnunetv2.training.data_augmentation.custom_transforms.region_based_training import (
    ConvertSegmentationToRegionsTransform,
)
from nnunetv2.training.data_augmentation.custom_transforms.transforms_for_dummy_2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from tests.recorded import make_custom_transforms

RECORDED = json.loads((Path(make_custom_transforms.__file__).parent / "custom_transforms.json").read_text())


@pytest.fixture(scope="module")
def computed():
    return make_custom_transforms.compute()


@pytest.mark.parametrize("name", RECORDED)
def test_result_equals_upstream(computed, name):
    assert len(computed[name]) == len(RECORDED[name])
    for ours, recorded in zip(computed[name], RECORDED[name], strict=True):
        assert ours[:2] == recorded[:2]  # shape and type
        np.testing.assert_allclose(ours[2:], recorded[2:], atol=2e-3)


def test_erosion_does_not_eat_at_the_border():
    assert binary_erosion(np.ones((4, 4), bool), np.ones((3, 3), bool)).all()


def test_closing_fills_and_opening_removes():
    hole, speck = np.ones((7, 7), bool), np.zeros((7, 7), bool)
    hole[3, 3], speck[3, 3] = False, True
    cross = ndimage.generate_binary_structure(2, 1)
    assert binary_closing(hole, cross).all()
    assert not binary_opening(speck, cross).any()


def test_morphology_keeps_the_labels_exclusive(seeded):
    data = np.zeros((1, 2, 8, 8, 8), np.float32)
    data[0, 0, :4], data[0, 1, 4:] = 1, 1
    channels = [0, 1]
    for _ in range(5):
        ApplyRandomBinaryOperatorTransform(channels, p_per_sample=1, strel_size=(1, 3))(data=data)
        assert data.sum(1).max() <= 1
    assert channels == [0, 1]


def test_regions_of_a_batch_without_segmentation():
    assert ConvertSegmentationToRegionsTransform([(1,)])(data=1) == {"data": 1}


def test_folding_twice_is_refused():
    batch = Convert3DTo2DTransform(("data",))(data=np.zeros((1, 2, 3, 4, 5)))
    batch["data"] = batch["data"][:, None]
    with pytest.raises(ValueError, match="'data' is folded already"):
        Convert3DTo2DTransform(("data",))(**batch)


def test_folding_an_image_is_refused():
    with pytest.raises(ValueError, match=r"only volumes .* 'data' has shape \(1, 2, 3, 4\)"):
        Convert3DTo2DTransform(("data",))(data=np.zeros((1, 2, 3, 4)))


def test_unfolding_what_was_not_folded_is_refused():
    with pytest.raises(ValueError, match="'seg' cannot be unfolded"):
        Convert2DTo3DTransform(("seg",))(seg=np.zeros((1, 2, 3, 4)))


def test_a_scale_for_each_axis_is_needed():
    with pytest.raises(ValueError, match="factor for each of the 3 axes"):
        DownsampleSegForDSTransform2([(0.5, 0.5)])(seg=np.zeros((1, 1, 4, 4, 4)))
