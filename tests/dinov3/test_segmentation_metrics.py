"""Confusion counts and what is computed from them."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.testing import assert_close

from dinov3.eval.segmentation import config
from dinov3.eval.segmentation import metrics as metrics_module
from dinov3.eval.segmentation.metrics import METRIC_NAMES, SegmentationMetrics, confusion_matrix
from dinov3.utils.errors import DataError

LABEL = torch.tensor([[0, 0, 0, 255], [1, 1, 2, 255]])
PREDICTION = torch.tensor([[0, 0, 1, 3], [1, 0, 0, 0]])
# With K = 5: class 0 has 2 right of 3 in the reference and 4 predicted, class 1 has 1 of 2 and 2, class 2 has 0 of 1
# and 0; classes 3 (predicted on an ignored pixel alone) and 4 do not occur.


def measured(pairs, num_classes, **kwargs):
    counts = SegmentationMetrics(num_classes, **kwargs)
    for prediction, label in pairs:
        counts.update(prediction, label)
    return counts


def random_pairs(num_images, num_classes, size=(20, 30)):
    for _ in range(num_images):
        label = torch.randint(0, num_classes, size)
        label[torch.rand(size) < 0.1] = 255
        yield torch.randint(0, num_classes, size), label


def test_confusion_by_hand():
    expected = torch.zeros(5, 5, dtype=torch.int64)
    expected[0, 0], expected[0, 1], expected[1, 1], expected[1, 0], expected[2, 0] = 2, 1, 1, 1, 1
    counted = confusion_matrix(PREDICTION, LABEL, 5)
    assert counted.dtype == torch.int64
    assert torch.equal(counted, expected)


def test_metrics_by_hand():
    results = measured([(PREDICTION, LABEL)], 5).compute()
    classes = results.pop("classes")
    third = 100 / 3
    assert [row["IoU"] for row in classes] == pytest.approx([100 * 2 / 5, third, 0, math.nan, math.nan], nan_ok=True)
    assert [row["Dice"] for row in classes] == pytest.approx([100 * 4 / 7, 50, 0, math.nan, math.nan], nan_ok=True)
    assert [row["Acc"] for row in classes] == pytest.approx([200 / 3, 50, 0, math.nan, math.nan], nan_ok=True)
    nan = math.nan
    assert [row["Precision"] for row in classes] == pytest.approx([50, 50, nan, nan, nan], nan_ok=True)
    assert [row["Fscore"] for row in classes] == pytest.approx([100 * 4 / 7, 50, nan, nan, nan], nan_ok=True)
    assert [row["reference_pixels"] for row in classes] == [3, 2, 1, 0, 0]
    assert [row["predicted_pixels"] for row in classes] == [4, 2, 0, 0, 0]
    assert [row["class"] for row in classes] == [0, 1, 2, 3, 4]
    assert results == pytest.approx(
        {
            "mIoU": (40 + third + 0) / 3,
            "mDice": (400 / 7 + 50 + 0) / 3,
            "dice": (400 / 7 + 50 + 0) / 3,
            "mAcc": (200 / 3 + 50 + 0) / 3,
            "acc": (200 / 3 + 50 + 0) / 3,
            "recall": (200 / 3 + 50 + 0) / 3,
            "precision": 50,  # class 2 was never predicted
            "fscore": (400 / 7 + 50) / 2,
            "aAcc": 50,
            "num_images": 1,
        }
    )


def test_what_a_configuration_can_name_is_computed():
    results = measured([(PREDICTION, LABEL)], 5).compute()
    assert set(METRIC_NAMES) == set(config.METRICS) == results.keys() - {"num_images", "classes"}


def test_counts_equal_scikit_learn(seeded):
    pairs = list(random_pairs(5, 6))
    results = (counts := measured(pairs, 6)).compute()
    predicted = torch.cat([prediction[label != 255] for prediction, label in pairs])
    reference = torch.cat([label[label != 255] for _, label in pairs])
    assert counts.confusion.tolist() == sklearn_metrics.confusion_matrix(reference, predicted).tolist()
    arguments = {"y_true": reference, "y_pred": predicted, "average": None}
    for name, function in {
        "IoU": sklearn_metrics.jaccard_score,
        "Dice": sklearn_metrics.f1_score,
        "Acc": sklearn_metrics.recall_score,
        "Precision": sklearn_metrics.precision_score,
    }.items():
        assert [row[name] for row in results["classes"]] == pytest.approx(100 * function(**arguments))
    assert results["mIoU"] == pytest.approx(100 * sklearn_metrics.jaccard_score(reference, predicted, average="macro"))
    assert results["aAcc"] == pytest.approx(100 * sklearn_metrics.accuracy_score(reference, predicted))


def test_metrics_per_image_are_means_over_images(seeded):
    small, large = torch.tensor([[0, 1]]), torch.zeros(10, 10, dtype=torch.int64)
    pairs = [(torch.tensor([[0, 0]]), small), (large, large)]
    results = measured(pairs, 3, compute_metric_per_image=True).compute()
    # first image: IoU 1/2 of class 0 and 0 of class 1; second: 1 of class 0
    assert results["mIoU"] == pytest.approx((25 + 100) / 2)
    assert results["aAcc"] == pytest.approx((50 + 100) / 2)
    assert [row["IoU"] for row in results["classes"]] == pytest.approx([75, 0, math.nan], nan_ok=True)
    assert [row["reference_pixels"] for row in results["classes"]] == [101, 1, 0]
    over_all_pixels = measured(pairs, 3).compute()
    assert over_all_pixels["mIoU"] == pytest.approx(100 * (101 / 102 + 0) / 2)


def test_image_without_any_label_counts_nothing(seeded):
    pairs = list(random_pairs(3, 4))
    nothing = (pairs[0][0], torch.full_like(pairs[0][1], 255))
    for per_image in (False, True):
        with_it = measured([*pairs, nothing], 4, compute_metric_per_image=per_image).compute()
        without = measured(pairs, 4, compute_metric_per_image=per_image).compute()
        assert with_it.pop("num_images") == without.pop("num_images") + 1
        assert with_it == without


@pytest.mark.parametrize("per_image", [False, True])
def test_no_images_give_no_metrics(per_image):
    results = SegmentationMetrics(2, compute_metric_per_image=per_image).compute()
    assert math.isnan(results["mIoU"])
    assert math.isnan(results["aAcc"])
    assert results["num_images"] == 0


@pytest.mark.parametrize("per_image", [False, True])
def test_counts_of_all_processes_together_equal_those_of_one(seeded, monkeypatch, per_image):
    pairs = list(random_pairs(7, 4))
    ranks = [measured(pairs[rank::3], 4, compute_metric_per_image=per_image) for rank in range(3)]
    monkeypatch.setattr(metrics_module, "gather", lambda value: [_state(counts) for counts in ranks])
    together, alone = ranks[1].reduce(), measured(pairs, 4, compute_metric_per_image=per_image)
    assert torch.equal(together.confusion, alone.confusion)
    for name, value in alone.compute().items():
        if name != "classes":
            assert together.compute()[name] == pytest.approx(value, rel=1e-12)
    assert ranks[1].num_images == 2, "what a process has counted itself must not change"


def _state(counts):
    return counts.confusion, counts.num_images, counts._areas_of_images


def test_a_single_process_reduces_to_itself(seeded):
    counts = measured(random_pairs(2, 3), 3)
    assert_close(counts.reduce().compute(), counts.compute(), rtol=0, atol=0)


def test_large_counts_stay_exact():
    counts = SegmentationMetrics(2)
    counts.confusion += torch.tensor([[2**40 + 1, 0], [0, 2**40]])
    assert counts.compute()["classes"][0]["reference_pixels"] == 2**40 + 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.full((2, 4), 7), "holds 7; with 3 classes it may hold 0 to 2 and 255"),
        (torch.full((2, 4), -1), "holds -1; with 3 classes"),
        (torch.zeros(4, 2), "The label map is 4 x 2 pixels and the prediction 2 x 4"),
    ],
)
def test_impossible_labels_are_refused(label, message):
    counts = SegmentationMetrics(3)
    with pytest.raises(DataError, match=message):
        counts.update(PREDICTION.clamp(max=2), label)
    assert counts.num_images == 0
