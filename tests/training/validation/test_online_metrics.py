"""Hard counts against hand-made images, and against the soft Dice's counting on one-hot predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.training.validation.online_metrics import count_labels, count_regions, mean_of_defined, pseudo_dice


def _logits_of(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, num_classes).permute(0, 3, 1, 2).float() * 5


def test_count_labels_by_hand() -> None:
    predicted = torch.tensor([[[0, 1, 1], [2, 2, 0]]])
    expected = torch.tensor([[[[0, 1, 2], [2, 1, 1]]]])
    counts = count_labels(_logits_of(predicted, 3), expected)
    assert counts.true_positives.tolist() == [1, 1]
    assert counts.false_positives.tolist() == [1, 1]
    assert counts.false_negatives.tolist() == [2, 1]


def test_count_labels_leaves_ignored_voxels_out() -> None:
    predicted = torch.tensor([[[1, 1], [0, 1]]])
    expected = torch.tensor([[[[1, 3], [3, 0]]]], dtype=torch.int16)
    counts = count_labels(_logits_of(predicted, 3), expected, ignore_label=3)
    assert counts.true_positives.tolist() == [1, 0]
    assert counts.false_positives.tolist() == [1, 0]
    assert counts.false_negatives.tolist() == [0, 0]


def test_count_labels_equals_counting_of_one_hot_predictions(seeded: int) -> None:
    logits = torch.randn(2, 4, 5, 6, 7)
    expected = torch.randint(0, 4, (2, 1, 5, 6, 7))
    one_hot = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
    tp, fp, fn, _ = get_tp_fp_fn_tn(one_hot, expected, axes=(0, 2, 3, 4))
    counts = count_labels(logits, expected)
    for ours, theirs in zip(counts, (tp, fp, fn), strict=True):
        np.testing.assert_array_equal(ours, theirs[1:].numpy())


@pytest.mark.parametrize("has_ignore_mask", [False, True])
def test_count_regions_equals_counting_of_thresholded_sigmoids(seeded: int, has_ignore_mask: bool) -> None:
    logits = torch.randn(2, 3, 6, 6)
    target = torch.rand(2, 4 if has_ignore_mask else 3, 6, 6) > 0.5
    mask = (~target[:, -1:]).float() if has_ignore_mask else None
    hard = (torch.sigmoid(logits) > 0.5).float()
    tp, fp, fn, _ = get_tp_fp_fn_tn(hard, target[:, :3].float(), axes=(0, 2, 3), mask=mask)
    for ours, theirs in zip(count_regions(logits, target, has_ignore_mask), (tp, fp, fn), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_pseudo_dice_of_absent_class_is_nan_and_takes_no_part_in_the_mean() -> None:
    dice = pseudo_dice(np.array([3.0, 0.0]), np.array([2.0, 0.0]), np.array([4.0, 0.0]))
    assert dice[0] == 6 / (6 + 2 + 4)
    assert math.isnan(dice[1])
    assert mean_of_defined(dice) == 0.5
    assert mean_of_defined([0.125, math.nan, 0.25, 0.75]) == 0.375
    assert math.isnan(mean_of_defined([math.nan]))
