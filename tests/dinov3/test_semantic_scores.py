"""Scores per class and pixel."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores


def test_scores_sum_class_times_mask_probability_over_queries():
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, -1.0]]])  # two queries, two classes and "no object"
    masks = torch.tensor([[[[0.0]], [[3.0]]]])
    classes = logits[0].softmax(-1)
    by_hand = 0.5 * classes[0, :2] + torch.tensor(3.0).sigmoid() * classes[1, :2]
    assert_close(semantic_scores(logits, masks), by_hand.view(1, 2, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_inputs_are_computed_in_float32(seeded, dtype):
    logits, masks = (torch.randn(2, 100, 5) * 8).to(dtype), (torch.randn(2, 100, 4, 4) * 60).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = semantic_scores(logits, masks)
    assert scores.dtype == torch.float32
    assert_close(scores, semantic_scores(logits.float(), masks.float()))
    assert scores.isfinite().all()


def test_scores_do_not_depend_on_the_order_of_queries(seeded):
    logits, masks, order = torch.randn(1, 6, 4), torch.randn(1, 6, 3, 3), torch.randperm(6)
    assert_close(semantic_scores(logits[:, order], masks[:, order]), semantic_scores(logits, masks))
