"""Sampling of class locations."""

from __future__ import annotations

import numpy as np

from nnunetv2.preprocessing.preprocessors.foreground_locations import sample_foreground_locations


def _seg():
    return np.random.default_rng(0).integers(-1, 4, (1, 12, 13, 14))


def test_locations_are_distinct_voxels_of_their_class():
    seg = _seg()
    locations = sample_foreground_locations(seg, [1, (2, 3)], min_num_samples=100)
    for key, members in ((1, [1]), ((2, 3), [2, 3])):
        voxels = locations[key]
        assert voxels.shape == (100, 4) and voxels.dtype == np.int64
        assert len(np.unique(voxels, axis=0)) == 100
        assert np.isin(seg[tuple(voxels.T)], members).all()


def test_number_of_locations():
    seg = np.zeros((1, 10, 10, 10), np.int8)
    seg[0, :5] = 1
    seg[0, 5, 5, 5] = 2
    locations = sample_foreground_locations(seg, [1, 2, 3], min_num_samples=20, min_percent_coverage=0.1234)
    assert len(locations[1]) == 62  # ceil(12.34 % of 500)
    assert locations[2].tolist() == [[0, 5, 5, 5]]
    assert locations[3] == []


def test_the_same_seed_draws_the_same_and_other_seeds_do_not():
    first, again, other = (sample_foreground_locations(_seg(), [1], seed, 50)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_float_labels_and_lists_as_regions():
    seg = _seg()
    as_float = sample_foreground_locations(seg.astype(np.float32), [[-1, 0, 1]])
    np.testing.assert_array_equal(as_float[-1, 0, 1], sample_foreground_locations(seg, [(-1, 0, 1)])[-1, 0, 1])


def test_case_without_any_of_the_classes():
    assert sample_foreground_locations(np.zeros((1, 3, 3, 3), np.int8), [1, (1, 2)]) == {1: [], (1, 2): []}
    assert sample_foreground_locations(np.zeros((1, 3, 3, 3), np.int8), []) == {}
