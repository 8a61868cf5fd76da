import logging
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn

from nnunetv2.utilities.ddp_allgather import AllGatherGrad, print_if_rank0


def _run(rank: int, world_size: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        x = torch.arange(3.0).add(10 * rank).requires_grad_()
        gathered = AllGatherGrad.apply(x)
        (gathered.square().sum() / world_size).backward()
        torch.save((gathered.detach(), x.grad), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_parts_are_stacked_and_gradients_flow_back(tmp_path, world_size):
    if world_size == 1:
        _run(0, 1, str(tmp_path))
    else:
        spawn(_run, (world_size, str(tmp_path)), nprocs=world_size)
    parts = torch.stack([torch.arange(3.0) + 10 * rank for rank in range(world_size)])
    for rank in range(world_size):
        gathered, gradient = torch.load(Path(tmp_path, f"{rank}.pt"), weights_only=True)
        torch.testing.assert_close(gathered, parts)
        torch.testing.assert_close(gradient, 2 * parts[rank])  # the same loss on all ranks, each with 1/world size


def test_only_rank_0_reports(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for rank in (1, 0):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        print_if_rank0("rank", rank)
    assert caplog.messages == ["rank 0"]
