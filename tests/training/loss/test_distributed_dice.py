"""The batch Dice of several processes is that of the whole batch, also where they hold different numbers of samples.

Two ranks are played one after the other; that the real exchange carries gradients is tested with `AllGatherGrad`.
"""

from __future__ import annotations

import pytest
import torch

from nnunetv2.training.loss import dice
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss

SHARES = (slice(0, 2), slice(2, 3))  # of the batch, per rank


class _Exchange:
    """Stands in for `AllGatherGrad`: stacks a rank's tensors with those that the other rank gave, in the same order."""

    def __init__(self, from_other_rank: list[torch.Tensor]) -> None:
        self.from_other_rank = iter(from_other_rank)
        self.given: list[torch.Tensor] = []

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        self.given.append(tensor.detach())
        other = next(self.from_other_rank, torch.zeros_like(tensor))
        return torch.stack([tensor, other])


@pytest.mark.parametrize("loss_class", [SoftDiceLoss, MemoryEfficientSoftDiceLoss])
@pytest.mark.parametrize("rank", [0, 1])
def test_batch_dice_is_taken_over_all_ranks(seeded, monkeypatch, loss_class, rank):
    prediction, target = torch.rand(3, 2, 4, 4, requires_grad=True), torch.randint(0, 2, (3, 1, 4, 4))
    whole = loss_class(batch_dice=True, ddp=False)(prediction, target)
    (gradient,) = torch.autograd.grad(whole, prediction)

    loss = loss_class(batch_dice=True, ddp=True)
    other_rank = _Exchange([])
    monkeypatch.setattr(dice, "AllGatherGrad", other_rank)
    loss(prediction[SHARES[1 - rank]], target[SHARES[1 - rank]])

    monkeypatch.setattr(dice, "AllGatherGrad", _Exchange(other_rank.given))
    share = prediction[SHARES[rank]].detach().requires_grad_()
    value = loss(share, target[SHARES[rank]])
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(torch.autograd.grad(value, share)[0], gradient[SHARES[rank]])


@pytest.mark.parametrize("loss_class", [SoftDiceLoss, MemoryEfficientSoftDiceLoss])
def test_the_dice_per_sample_is_not_exchanged(monkeypatch, loss_class):
    exchange = _Exchange([])
    monkeypatch.setattr(dice, "AllGatherGrad", exchange)
    loss_class(batch_dice=False, ddp=True)(torch.rand(3, 2, 4, 4), torch.zeros(3, 1, 4, 4))
    assert exchange.given == []
