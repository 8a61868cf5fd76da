"""Resampling logits with torch, slab by slab: the values of the default resampling."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.slab_resizing import SlabResizing

CPU = torch.device("cpu")
DEFAULTS = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
ISOTROPIC = [1.0, 1.0, 1.0]
SHAPES = {
    "all axes enlarged": ((19, 21, 23), (40, 39, 50), ISOTROPIC),
    "the second grows least": ((19, 40, 23), (40, 23, 23), ISOTROPIC),
    "one plane": ((1, 33, 47), (1, 50, 61), ISOTROPIC),
    "only the last": ((7, 12, 31), (7, 12, 17), ISOTROPIC),
    "nothing to do": ((7, 12, 31), (7, 12, 31), ISOTROPIC),
    "first axis separate": ((6, 21, 23), (17, 33, 20), [5.0, 1.0, 1.0]),
    "last axis separate, as long as before": ((21, 23, 6), (33, 20, 6), [1.0, 1.0, 5.0]),
}


def resampling(**options: object) -> functools.partial:
    return functools.partial(resample_data_or_seg_to_shape, **{**DEFAULTS, **options})


@pytest.mark.parametrize("num_bytes", [1, 200_000, 2**30], ids=["single planes", "some planes", "all at once"])
@pytest.mark.parametrize("case", SHAPES)
def test_values_are_those_of_the_default_resampling(case: str, num_bytes: int) -> None:
    old_shape, new_shape, spacing = SHAPES[case]
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 8, (3, *old_shape))).half()
    expected = resampling()(logits, new_shape, spacing, spacing)
    resizing = SlabResizing.of(resampling(), logits, new_shape, spacing, spacing)
    result = np.full_like(expected, np.nan)
    num_slabs = 0
    for place, slab in resizing.slabs(logits, CPU, num_bytes):
        assert np.isnan(result[(slice(None), *place)]).all()  # each voxel once
        result[(slice(None), *place)] = slab.numpy()
        num_slabs += 1
    # Half a step between two numbers of half precision may be rounded either way, depending on the last bit.
    np.testing.assert_allclose(result, expected, rtol=2**-10, atol=0)
    assert (result != expected).mean() < 1e-4
    assert num_slabs <= max(new_shape)
    if num_bytes == 1:
        assert num_slabs in new_shape


@pytest.mark.parametrize("options", [{"order": 3}, {"order_z": 1}, {"is_seg": True}], ids=str)
def test_other_resamplings_are_left_to_their_function(options: dict[str, object]) -> None:
    logits = torch.zeros((2, 4, 4, 4), dtype=torch.float16)
    assert SlabResizing.of(resampling(**options), logits, (8, 8, 8), ISOTROPIC, ISOTROPIC) is None
    assert SlabResizing.of(lambda *_: None, logits, (8, 8, 8), ISOTROPIC, ISOTROPIC) is None
    assert SlabResizing.of(resampling(), logits.float(), (8, 8, 8), ISOTROPIC, ISOTROPIC) is None
