"""The batch Dice of several processes is that of the whole batch, also where they hold different numbers of samples."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, multiprocessing

from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss

SHARES = (slice(0, 2), slice(2, 3))


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 2, 4, 4, generator=generator), torch.randint(0, 2, (3, 1, 4, 4), generator=generator)


def _losses_of_rank(rank: int, store: str, results: multiprocessing.Queue) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(SHARES))
    prediction, target = (part[SHARES[rank]] for part in _batch())
    prediction.requires_grad_()
    values = []
    for loss_class in (MemoryEfficientSoftDiceLoss, SoftDiceLoss):
        value = loss_class(batch_dice=True, ddp=True)(prediction, target)
        (gradient,) = torch.autograd.grad(value, prediction)
        values.append((value.item(), gradient.numpy()))
    results.put((rank, values))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_batch_dice_is_taken_over_all_ranks(tmp_path):
    results = multiprocessing.get_context("spawn").SimpleQueue()
    processes = multiprocessing.spawn(_losses_of_rank, (str(tmp_path / "store"), results), len(SHARES), join=False)
    by_rank = dict(results.get() for _ in SHARES)
    while not processes.join(timeout=60):
        pass  # True once all have ended; raises if one failed

    prediction, target = _batch()
    prediction.requires_grad_()
    for index, loss_class in enumerate((MemoryEfficientSoftDiceLoss, SoftDiceLoss)):
        whole = loss_class(batch_dice=True, ddp=False)(prediction, target)
        (gradient,) = torch.autograd.grad(whole, prediction)
        for rank, share in enumerate(SHARES):
            value, part = by_rank[rank][index]
            assert value == pytest.approx(whole.item(), rel=1e-6)
            # DDP averages gradients over ranks; each rank's is scaled up by their number beforehand.
            torch.testing.assert_close(torch.from_numpy(part), len(SHARES) * gradient[share])
