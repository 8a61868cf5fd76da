"""Intensity normalisation by hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

STATISTICS = {"mean": 10.0, "std": 4.0, "percentile_00_5": 2.0, "percentile_99_5": 30.0}


def run(scheme, values, *, mask=None, **options):
    image = np.array(values, dtype=np.float32)
    before = image.copy()
    result = scheme(intensityproperties=STATISTICS, **options).run(image, None if mask is None else np.array(mask))
    np.testing.assert_array_equal(image, before)
    assert result.dtype == options.get("target_dtype", np.float32)
    return result.tolist()


def test_ct_clips_to_the_percentiles_first():
    assert run(schemes.CTNormalization, [-1000, 2, 10, 30, 3000]) == [-2, -2, 0, 5, 5]


def test_zscore_has_zero_mean_and_unit_deviation():
    assert run(schemes.ZScoreNormalization, [1, 3, 1, 3]) == [-1, 1, -1, 1]


def test_zscore_inside_a_mask_leaves_the_outside_alone():
    result = run(schemes.ZScoreNormalization, [0, 1, 3, 0], mask=[-1, 0, 2, -1], use_mask_for_norm=True)
    assert result == [0, -1, 1, 0]
    with pytest.raises(UsageError, match="negative outside the mask"):
        run(schemes.ZScoreNormalization, [0, 1], use_mask_for_norm=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scheme", [schemes.ZScoreNormalization, schemes.RescaleTo01Normalization])
def test_an_image_of_one_value_becomes_zero(scheme, dtype):
    assert run(scheme, [5, 5, 5], target_dtype=dtype) == [0, 0, 0]


def test_rescaling_and_colours():
    assert run(schemes.RescaleTo01Normalization, [-2, 0, 2]) == [0, 0.5, 1]
    assert run(schemes.RGBTo01Normalization, [0, 51, 255]) == pytest.approx([0, 0.2, 1])
    assert run(schemes.NoNormalization, [-2, 0, 2]) == [-2, 0, 2]


@pytest.mark.parametrize("values", [[-1, 5], [0, 256]])
def test_colours_out_of_range_are_refused(values):
    with pytest.raises(DataError, match="from 0 to 255, but it has values from"):
        run(schemes.RGBTo01Normalization, values)


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="use_mask_for_norm is 1"):
        schemes.NoNormalization(use_mask_for_norm=1, intensityproperties={})
    with pytest.raises(UsageError, match="intensityproperties is None"):
        schemes.NoNormalization()
    with pytest.raises(UsageError, match="needs mean, percentile_00_5"):
        schemes.CTNormalization(intensityproperties={"std": 1, "percentile_99_5": 2}).run(np.zeros(1))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("CT", "CTNormalization"),
        ("ct", "CTNormalization"),
        ("noNorm", "NoNormalization"),
        ("zscore", "ZScoreNormalization"),
        ("Rescale_to_0_1", "RescaleTo01Normalization"),
        ("rgb_to_0_1", "RGBTo01Normalization"),
        ("T1", "ZScoreNormalization"),
        ("CT ", "ZScoreNormalization"),
    ],
)
def test_channel_names_choose_the_scheme(name, scheme):
    assert get_normalization_scheme(name).__name__ == scheme
