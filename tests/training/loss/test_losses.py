"""The losses give upstream's values and gradients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss, DC_and_topk_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss, get_tp_fp_fn_tn
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
from tests.recorded import make_losses

RECORDED = json.loads((Path(make_losses.__file__).parent / "losses.json").read_text())


@pytest.fixture(scope="module")
def computed() -> dict[str, list[float]]:
    return make_losses.compute()


@pytest.mark.parametrize("name", RECORDED)
def test_value_and_gradient_equal_upstream(computed, name):
    np.testing.assert_allclose(computed[name], RECORDED[name], rtol=1e-4, atol=1e-6)


def test_nothing_recorded_is_left_out(computed):
    assert computed.keys() == RECORDED.keys()


@pytest.mark.parametrize("loss_class", [SoftDiceLoss, MemoryEfficientSoftDiceLoss])
def test_dice_of_a_perfect_prediction_is_minus_one(loss_class):
    target = torch.tensor([[[[0, 1], [2, 2]]]])
    prediction = torch.nn.functional.one_hot(target[:, 0], 3).movedim(-1, 1).float()
    torch.testing.assert_close(loss_class(smooth=0, ddp=False)(prediction, target), torch.tensor(-1.0))


@pytest.mark.parametrize("loss_class", [SoftDiceLoss, MemoryEfficientSoftDiceLoss])
def test_dice_by_hand(loss_class):
    # class 0: 2 * 0.5 / (1.5 + 1) = 0.4; class 1: 2 * 1 / (1 + 2 - 0.5 + 0) = 0.8
    prediction = torch.tensor([[[0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    expected = -(2 * 0.5 / 2.5 + 2 * 1 / 2) / 2
    torch.testing.assert_close(loss_class(smooth=0, ddp=False)(prediction, target), torch.tensor(expected))


@pytest.mark.parametrize("loss_class", [SoftDiceLoss, MemoryEfficientSoftDiceLoss])
@pytest.mark.parametrize(
    ("batch_dice", "expected"),
    [
        (False, -((2 * 1 + 1) / (1.5 + 1 + 1) + (2 * 0.5 + 1) / (1 + 2 + 1)) / 2),
        (True, -(2 * 1.5 + 1) / (2.5 + 3 + 1)),
    ],
)
def test_counts_of_a_batch_are_added_up_before_smoothing(loss_class, batch_dice, expected):
    prediction = torch.tensor([[[1.0, 0.5, 0.0]], [[0.5, 0.0, 0.5]]])
    target = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]]])
    loss = loss_class(batch_dice=batch_dice, smooth=1.0, ddp=False)
    torch.testing.assert_close(loss(prediction, target), torch.tensor(expected))


def test_voxels_outside_the_mask_do_not_matter(seeded):
    prediction, target = torch.rand(2, 3, 6, 6), torch.randint(0, 3, (2, 1, 6, 6))
    mask = torch.rand(2, 1, 6, 6) < 0.5
    changed = torch.where(mask, prediction, torch.rand_like(prediction))
    for loss in (SoftDiceLoss(ddp=False), MemoryEfficientSoftDiceLoss(batch_dice=True, ddp=False)):
        torch.testing.assert_close(loss(changed, target, mask), loss(prediction, target, mask))


def test_counts_add_up_to_the_voxels(seeded):
    counts = get_tp_fp_fn_tn(torch.rand(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5)))
    torch.testing.assert_close(sum(counts), torch.full((2, 3), 20.0))


@pytest.mark.parametrize("ignored_value", [0, 1, 2])
def test_ignored_voxels_do_not_matter(seeded, ignored_value):
    loss = DC_and_CE_loss({"ddp": False}, {}, ignore_label=3)
    target = torch.randint(0, 4, (2, 1, 6, 6))
    logits = torch.randn(2, 3, 6, 6)
    changed = torch.where(target == 3, torch.full_like(logits, 5.0 * ignored_value), logits)
    torch.testing.assert_close(loss(changed, target), loss(logits, target))


def test_ignored_voxels_of_regions_do_not_matter(seeded):
    loss = DC_and_BCE_loss({}, {"ddp": False}, use_ignore_label=True)
    target, logits = torch.rand(2, 3, 6, 6) < 0.5, torch.randn(2, 2, 6, 6)
    changed = torch.where(target[:, -1:], torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(changed, target), loss(logits, target))


@pytest.mark.parametrize("make", [DC_and_CE_loss, DC_and_topk_loss])
def test_a_batch_without_annotation_has_a_zero_gradient_where_only_cross_entropy_counts(make):
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = make({"ddp": False}, {}, weight_dice=0, ignore_label=2)(logits, torch.full((1, 1, 3, 3), 2))
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(logits.grad) == 0


def test_a_batch_without_annotation_has_the_dice_alone(seeded):
    logits, target = torch.randn(1, 2, 3, 3), torch.full((1, 1, 3, 3), 2)
    both, dice = (
        DC_and_CE_loss({"ddp": False}, {}, weight_ce=weight, ignore_label=2)(logits, target) for weight in (1, 0)
    )
    assert torch.isfinite(both)
    assert both == dice


def test_all_regions_ignored_is_finite():
    target = torch.ones(1, 3, 4, 4, dtype=torch.bool)
    assert torch.isfinite(DC_and_BCE_loss({}, {"ddp": False}, use_ignore_label=True)(torch.randn(1, 2, 4, 4), target))


def test_the_callers_arguments_stay_as_they_are():
    ce_kwargs, bce_kwargs, topk_kwargs = {}, {}, {"k": 10}
    DC_and_CE_loss({"ddp": False}, ce_kwargs, ignore_label=3)
    DC_and_topk_loss({"ddp": False}, topk_kwargs, ignore_label=3)
    DC_and_BCE_loss(bce_kwargs, {"ddp": False}, use_ignore_label=True)
    assert (ce_kwargs, bce_kwargs, topk_kwargs) == ({}, {}, {"k": 10})


def test_top_k_is_the_mean_of_the_hardest_voxels(seeded):
    logits, target = torch.randn(1, 3, 5, 4), torch.randint(0, 3, (1, 1, 5, 4))
    hardest = torch.nn.functional.cross_entropy(logits, target[:, 0], reduction="none").flatten().sort().values[-5:]
    torch.testing.assert_close(TopKLoss(k=25)(logits, target), hardest.mean())


def test_top_k_of_a_tiny_patch_takes_one_voxel():
    assert torch.isfinite(TopKLoss(k=10)(torch.randn(1, 2, 2, 2), torch.zeros(1, 1, 2, 2)))


def test_one_hot_target_is_refused_by_cross_entropy():
    with pytest.raises(ValueError, match=r"label map has one channel, the target has shape \(1, 2, 3, 3\)"):
        RobustCrossEntropyLoss()(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))


def test_one_hot_target_is_refused_with_an_ignore_label():
    with pytest.raises(ValueError, match="ignore label needs label maps"):
        DC_and_CE_loss({"ddp": False}, {}, ignore_label=2)(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))


def test_half_precision_output_gives_a_full_precision_loss(seeded):
    logits, target = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 1, 8, 8))
    loss = MemoryEfficientSoftDiceLoss(lambda x: torch.softmax(x, 1), ddp=False)
    low = loss(logits.bfloat16(), target)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss(logits, target), atol=5e-3, rtol=0)
