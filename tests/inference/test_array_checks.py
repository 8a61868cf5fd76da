"""Arrays in place of image files: what is wrong with them is said in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError, NNUNetError, UsageError
from tests.inference.tiny_models import read_image, tiny_predictor

IMAGE = np.zeros((1, 4, 5, 6), dtype=np.float32)
LABELS = np.zeros((1, 4, 5, 6), dtype=np.uint8)
PROPERTIES = {"spacing": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("image", "properties", "error", "message"),
    [
        (
            IMAGE[0],
            PROPERTIES,
            DataError,
            r"shape \(4, 5, 6\); it must be \(C, Z, Y, X\), for 2-D images \(C, 1, Y, X\)",
        ),
        (IMAGE[:, :0], PROPERTIES, DataError, r"shape \(1, 0, 5, 6\)"),
        (np.repeat(IMAGE, 2, axis=0), PROPERTIES, DataError, "2 channels; this model needs 1"),
        (IMAGE.astype(complex), PROPERTIES, DataError, "dtype complex128; it must have integer or floating"),
        (IMAGE.astype(object), PROPERTIES, DataError, "dtype object"),
        ("image.nii.gz", PROPERTIES, DataError, "dtype <U12"),
        (torch.zeros(1, 4, 5, 6, requires_grad=True).to_sparse(), PROPERTIES, UsageError, "type Tensor; give a numpy"),
        (IMAGE, None, UsageError, "dictionary with the key 'spacing'; the reader that plans.json names returns it"),
        (IMAGE, {"pixdim": (1, 1, 1)}, UsageError, "key 'spacing'"),
        (IMAGE, {"spacing": (1.0, 1.0)}, UsageError, r"\(1.0, 1.0\); it must be three positive numbers"),
        (IMAGE, {"spacing": (1.0, 0.0, 1.0)}, UsageError, "three positive numbers"),
        (IMAGE, {"spacing": (1.0, np.nan, 1.0)}, UsageError, "three positive numbers"),
        (IMAGE, {"spacing": "fine"}, UsageError, "spacing of the image is fine"),
    ],
)
def test_wrong_images_are_refused(image: Any, properties: Any, error: type[NNUNetError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        tiny_predictor().predict_single_npy_array(image, properties)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LABELS[0], DataError, r"shape \(4, 5, 6\); it must be \(1, 4, 5, 6\)"),
        (LABELS + 0.5, DataError, "whole numbers"),
        (LABELS * np.nan, DataError, "whole numbers"),
        (LABELS + 7, DataError, r"by 3d_lowres: 120 voxels have values other than its labels \(0, 1, .*, such as 7; "),
        (LABELS - 1.0, DataError, "such as -1; predict the images with 3d_lowres first, and give its output"),
        (None, UsageError, "segmentation by 3d_lowres"),
    ],
)
def test_wrong_previous_segmentations_are_refused(labels: Any, error: type[NNUNetError], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_predictor("3d_cascade_fullres").predict_single_npy_array(IMAGE, PROPERTIES, labels)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="there are 2 images, 1 properties"):
        tiny_predictor().predict_from_list_of_npy_arrays([IMAGE, IMAGE], None, [PROPERTIES], None)


@pytest.mark.slow
def test_properties_that_the_writer_needs_are_named(tmp_path: Any) -> None:
    with pytest.raises(
        UsageError, match="cannot write the segmentation: the properties of the image have no 'sitk_stuff'"
    ):
        tiny_predictor().predict_single_npy_array(IMAGE + 1, PROPERTIES, None, str(tmp_path / "case"))


@pytest.mark.slow
def test_whatever_numpy_takes_is_an_image() -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)
    expected = predictor.predict_single_npy_array(image, properties)
    for same in (torch.from_numpy(image), image.astype(np.float64)):
        np.testing.assert_array_equal(predictor.predict_single_npy_array(same, properties), expected)
