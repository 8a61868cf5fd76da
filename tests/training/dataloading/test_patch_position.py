"""Where patches may lie and how a foreground voxel is chosen."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from nnunetv2.errors import DataError
from nnunetv2.training.dataloading.patch_position import (
    annotated_class,
    choose_class,
    position_around,
    position_bounds,
    random_position,
    random_voxel,
)

ANNOTATED = (-1, 0, 1, 2)


@pytest.mark.parametrize(
    ("size", "patch", "padding", "expected"),
    [
        (10, 4, 0, (0, 6)),  # inside
        (10, 4, 4, (-2, 8)),  # may stick out by two at either end
        (10, 4, 3, (-2, 8)),  # an odd voxel is allowed at either end
        (3, 8, 0, (-3, -2)),  # smaller than the patch: needs five
        (3, 8, 6, (-3, -2)),
        (1, 1, 0, (0, 0)),
    ],
)
def test_bounds_by_hand(size, patch, padding, expected):
    assert position_bounds([size], [patch], [padding]) == [expected]


def test_random_position_covers_its_bounds(seeded):
    drawn = {random_position([(-1, 2), (5, 5)])[0] for _ in range(100)}
    assert drawn == {-1, 0, 1, 2}


def test_position_around_centres_and_keeps_the_lower_bound():
    assert position_around([10, 1], [(0, 50), (-1, 50)], [6, 6]) == [7, -1]


def test_random_voxel_drops_the_channel(seeded):
    locations = np.array([[0, 3, 4, 5], [0, 6, 7, 8]])
    assert {tuple(random_voxel(locations)) for _ in range(20)} == {(3, 4, 5), (6, 7, 8)}


def test_classes_without_voxels_are_not_chosen(seeded):
    locations = {1: [], 2: [[0, 0, 0, 0]], (1, 2): [[0, 0, 0, 1]], ANNOTATED: [[0, 1, 1, 1]]}
    assert {choose_class(locations, ANNOTATED) for _ in range(30)} == {2, (1, 2)}


def test_annotated_voxels_are_chosen_where_nothing_else_is():
    assert choose_class({1: [], ANNOTATED: [[0, 1, 1, 1]]}, ANNOTATED) == ANNOTATED


def test_no_class_in_an_empty_case():
    assert choose_class({1: [], 2: []}, ANNOTATED) is None


def test_a_wanted_class_is_chosen_where_it_is_there(seeded):
    locations = {1: [[0, 0, 0, 0]], 2: [[0, 0, 0, 1]], 3: []}
    assert choose_class(locations, ANNOTATED, wanted=2) == 2
    assert {choose_class(locations, ANNOTATED, wanted=3) for _ in range(20)} == {1, 2}


def test_an_unknown_wanted_class_is_refused():
    with pytest.raises(DataError, match="class 7 has no stored locations; the case knows"):
        choose_class({1: []}, ANNOTATED, wanted=7)


def test_a_case_without_annotation_warns(caplog):
    with caplog.at_level(logging.WARNING):
        assert annotated_class({ANNOTATED: []}, ANNOTATED) is None
    assert "without any annotated voxel" in caplog.text


def test_a_case_preprocessed_without_ignore_label_is_refused():
    with pytest.raises(DataError, match="preprocess the dataset again"):
        annotated_class({1: []}, ANNOTATED)
