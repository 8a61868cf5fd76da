from __future__ import annotations

import math

import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.confusion import LabelConfusion
from nnunetv2.evaluation.evaluate_predictions import (
    compute_tp_fp_fn_tn,
    labels_to_list_of_regions,
    region_or_label_to_mask,
)

REFERENCE = np.array([[0, 0, 1, 1], [2, 2, 2, 0]], dtype=np.float32)
PREDICTION = np.array([[0, 1, 1, 2], [2, 2, 0, 0]], dtype=np.float32)


def confusion_of(reference, prediction, labels) -> LabelConfusion:
    confusion = LabelConfusion(labels)
    confusion.add(reference, prediction)
    return confusion


def test_metrics_of_a_label_by_hand():
    metrics = confusion_of(REFERENCE, PREDICTION, [1, 2]).metrics(2)
    assert metrics == {
        "Dice": 2 * 2 / (2 * 2 + 1 + 1),
        "IoU": 2 / 4,
        "FP": 1,
        "TP": 2,
        "FN": 1,
        "TN": 4,
        "n_pred": 3,
        "n_ref": 3,
    }


def test_no_two_counts_of_a_label_can_stand_for_each_other():
    reference = np.repeat([3, 0, 0], [9, 2, 7]).reshape(3, 6)
    prediction = np.repeat([0, 3, 0], [6, 5, 7]).reshape(3, 6)
    metrics = confusion_of(reference, prediction, [3]).metrics(3)
    assert metrics == {
        "Dice": 2 * 3 / (2 * 3 + 2 + 6),
        "IoU": 3 / (3 + 2 + 6),
        "FP": 2,
        "TP": 3,
        "FN": 6,
        "TN": 7,
        "n_pred": 5,
        "n_ref": 9,
    }


def test_metrics_of_a_region_count_its_labels_as_one():
    metrics = confusion_of(REFERENCE, PREDICTION, [1, 2]).metrics((1, 2))
    assert (metrics["TP"], metrics["FP"], metrics["FN"], metrics["TN"]) == (4, 1, 1, 2)


def test_metrics_of_an_absent_label_are_not_defined():
    metrics = confusion_of(REFERENCE, PREDICTION, [5]).metrics(5)
    assert math.isnan(metrics["Dice"]) and math.isnan(metrics["IoU"])
    assert (metrics["TP"], metrics["TN"]) == (0, 8)


def test_voxels_to_ignore_are_left_out_of_all_counts():
    confusion = confusion_of(REFERENCE, PREDICTION, [1, 2])
    confusion.drop_reference_label(2)
    metrics = confusion.metrics(1)
    assert (metrics["TP"], metrics["FP"], metrics["FN"], metrics["TN"]) == (1, 1, 1, 2)


def test_values_that_are_no_labels_count_as_outside():
    prediction = np.array([[-1, 300, 1, 1], [2, 2, 2, 7]], dtype=np.int16)
    metrics = confusion_of(REFERENCE.astype(np.uint8), prediction, [1, 2]).metrics((1, 2))
    assert (metrics["TP"], metrics["FP"], metrics["FN"], metrics["TN"]) == (5, 0, 0, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_counts_equal_those_of_masks(dtype):
    random_state = np.random.RandomState(0)
    reference, prediction = (random_state.randint(0, 5, (3, 40, 50)).astype(dtype) for _ in range(2))
    ignore = reference == 4
    confusion = confusion_of(reference, prediction, [1, 2, 3, 4])
    confusion.drop_reference_label(4)
    for region in (1, 3, (1, 2), (1, 2, 3)):
        masks = (region_or_label_to_mask(array, region) for array in (reference, prediction))
        counts = compute_tp_fp_fn_tn(*masks, ignore)
        metrics = confusion.metrics(region)
        assert counts == (metrics["TP"], metrics["FP"], metrics["FN"], metrics["TN"])
        assert sum(counts) == (~ignore).sum()


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "not whole numbers, such as 0.5"), (np.nan, "NaN"), (np.inf, "infinite")]
)
def test_values_that_cannot_be_labels_are_refused(value, message):
    prediction = PREDICTION.copy()
    prediction[0, 0] = value
    with pytest.raises(DataError, match=message):
        confusion_of(REFERENCE, prediction, [1])


def test_negative_labels_are_refused():
    with pytest.raises(UsageError, match="-1 is not a label"):
        LabelConfusion([1, -1])


def test_masks_of_labels_and_regions():
    np.testing.assert_array_equal(region_or_label_to_mask(REFERENCE, 1), REFERENCE == 1)
    np.testing.assert_array_equal(region_or_label_to_mask(REFERENCE, (1, 2)), REFERENCE > 0)
    assert labels_to_list_of_regions([1, 2]) == [(1,), (2,)]


def test_counts_after_a_change_are_those_of_the_changed_prediction():
    generator = np.random.default_rng(0)
    reference, before, after = generator.integers(0, 4, (3, 6, 7, 8))
    changed = after != before
    confusion = confusion_of(reference, before, [1, 2])
    found = confusion.after_change(reference[changed], before[changed], after[changed])
    np.testing.assert_array_equal(found.counts, confusion_of(reference, after, [1, 2]).counts)
    np.testing.assert_array_equal(confusion.counts, confusion_of(reference, before, [1, 2]).counts)
