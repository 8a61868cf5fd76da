"""Sine position encoding against hand-computed values and transformers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models.utils import position_encoding
from dinov3.eval.segmentation.models.utils.position_encoding import sine_position_encoding

CPU = torch.device("cpu")


def test_encoding_has_rows_then_columns_with_alternating_sines_and_cosines():
    encoding = sine_position_encoding(2, 2, 8, CPU)
    half = [0, -1, 0.0314, 0.9995]
    assert_close(encoding[0, :, 0, 0], torch.tensor(half + half), atol=1e-4, rtol=0)
    assert_close(encoding[0, :, 0, 1], torch.tensor([*half, 0, 1, 0.0628, 0.9980]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 24)])
def test_encoding_equals_transformers(size):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

    theirs = Mask2FormerSinePositionEmbedding(num_position_features=16, normalize=True)
    expected = theirs(torch.Size((1, 32, *size)), CPU, torch.float32)
    assert_close(sine_position_encoding(*size, 32, CPU), expected, atol=2e-6, rtol=0)


def test_only_the_rows_and_columns_of_an_encoding_are_remembered():
    first = sine_position_encoding(3, 5, 8, CPU)
    second = sine_position_encoding(3, 5, 8, CPU)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert position_encoding._axis_encoding(3, 4, CPU) is position_encoding._axis_encoding(3, 4, CPU)


def test_encoding_refuses_channels_that_are_no_multiple_of_four():
    with pytest.raises(ValueError, match="6 channels was asked for; give a multiple of 4"):
        sine_position_encoding(2, 2, 6, CPU)
