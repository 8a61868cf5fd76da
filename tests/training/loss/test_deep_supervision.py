"""Weights of the resolutions and the sum over them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper, deep_supervision_weights
from nnunetv2.training.loss.default_loss import base_loss, build_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss


class _Difference(nn.Module):
    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).abs().sum()


def _labels(ignore_label: int | None = None, has_regions: bool = False) -> SimpleNamespace:
    return SimpleNamespace(has_regions=has_regions, ignore_label=ignore_label)


def test_weights_halve_and_leave_the_lowest_resolution_out():
    assert deep_supervision_weights(4) == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))


def test_weights_under_ddp_keep_every_output_in_the_graph():
    weights = deep_supervision_weights(3, 1e-6)
    assert weights == pytest.approx((2 / 3, 1 / 3, 1e-6 / 1.5), rel=1e-5)
    assert sum(weights) == pytest.approx(1)


def test_a_single_output_has_weight_one():
    assert deep_supervision_weights(1) == (1.0,)


def test_wrapper_sums_by_hand():
    outputs = [torch.tensor([3.0]), torch.tensor([5.0]), torch.tensor([100.0])]
    targets = [torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([0.0])]
    assert DeepSupervisionWrapper(_Difference(), (1, 0.5, 0))(outputs, targets).item() == 1 * 2 + 0.5 * 4


def test_wrapper_without_weights_adds_up():
    assert DeepSupervisionWrapper(_Difference())([torch.ones(2)] * 3, [torch.zeros(2)] * 3).item() == 6


def test_entries_of_weight_zero_are_not_computed():
    unusable = torch.zeros(3), torch.zeros(2)  # shapes that do not fit
    loss = DeepSupervisionWrapper(_Difference(), (1, 0))
    assert loss([torch.ones(1), unusable[0]], [torch.zeros(1), unusable[1]]).item() == 1


def test_all_weights_zero_is_refused():
    with pytest.raises(ValueError, match="at least one deep supervision weight"):
        DeepSupervisionWrapper(_Difference(), (0, 0.0))


def test_a_tensor_instead_of_a_list_is_refused():
    with pytest.raises(ValueError, match="takes lists of tensors.*got Tensor, list"):
        DeepSupervisionWrapper(_Difference(), (1,))(torch.ones(1), [torch.ones(1)])


def test_a_missing_output_is_refused():
    with pytest.raises(ValueError, match=r"has 2 weights for lists of lengths \[1, 2\]"):
        DeepSupervisionWrapper(_Difference(), (1, 0.5))([torch.ones(1)], [torch.ones(1)] * 2)


def test_label_maps_train_with_dice_and_cross_entropy():
    loss = build_loss(_labels(ignore_label=4), batch_dice=True, deep_supervision_scales=None)
    assert isinstance(loss, DC_and_CE_loss)
    assert loss.ce.ignore_index == loss.ignore_label == 4
    assert isinstance(loss.dc, MemoryEfficientSoftDiceLoss)
    assert (loss.dc.batch_dice, loss.dc.do_bg, loss.dc.smooth, loss.dc.ddp) == (True, False, 1e-5, False)


def test_regions_train_with_dice_and_binary_cross_entropy():
    loss = build_loss(_labels(ignore_label=4, has_regions=True), batch_dice=False, deep_supervision_scales=None)
    assert isinstance(loss, DC_and_BCE_loss)
    assert loss.use_ignore_label and loss.dc.do_bg and not loss.dc.batch_dice


@pytest.mark.parametrize("has_regions", [False, True])
def test_the_factor_of_the_cross_entropy_leaves_the_dice_alone(has_regions):
    loss = base_loss(_labels(has_regions=has_regions), batch_dice=False, weight_ce=0.25)
    assert (loss.weight_ce, loss.weight_dice) == (0.25, 1)


@pytest.mark.parametrize(("is_ddp", "is_compiled", "last"), [(False, False, 0), (True, False, 1e-6), (True, True, 0)])
def test_the_lowest_resolution_has_weight_only_where_ddp_needs_it(monkeypatch, is_ddp, is_compiled, last):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    scales = [[1, 1], [0.5, 0.5], [0.25, 0.25]]
    loss = build_loss(_labels(), False, scales, is_ddp=is_ddp, is_compiled=is_compiled)
    assert loss.weight_factors == pytest.approx((2 / 3, 1 / 3, last / 1.5), rel=1e-5)
    assert loss.loss.dc.ddp == is_ddp
    assert compiled == [loss.loss.dc] * is_compiled
