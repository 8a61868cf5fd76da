"""Shares of a batch force foreground where one process would; parameters that may be without a gradient are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.training.setup import distributed
from nnunetv2.training.setup.distributed import has_idle_parameters, share_of_batch

GRID = [
    (batch, oversample, world)
    for batch in (2, 3, 7, 12)
    for oversample in (0.0, 0.33, 1.0)
    for world in (2, 3)
    if batch >= world
]


@pytest.mark.parametrize(("batch", "oversample", "world"), GRID)
def test_shares_add_up_to_the_batch(batch: int, oversample: float, world: int) -> None:
    sizes = [share_of_batch(batch, oversample, rank, world)[0] for rank in range(world)]
    assert sum(sizes) == batch
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("batch", "world", "expected"),
    [
        (2, 2, [(1, 0.0), (1, 1.0)]),
        (12, 2, [(6, 0.0), (6, 4 / 6)]),
        (12, 3, [(4, 0.0), (4, 0.0), (4, 1.0)]),
        (7, 2, [(4, 0.0), (3, 2 / 3)]),
    ],
)
def test_last_samples_of_the_global_batch_are_forced(batch: int, world: int, expected: list) -> None:
    assert [share_of_batch(batch, 0.33, rank, world) for rank in range(world)] == expected


def test_single_process_keeps_its_numbers() -> None:
    assert share_of_batch(2, 0.33, 0, 1) == (2, 0.33)


def test_fewer_samples_than_processes_is_refused() -> None:
    with pytest.raises(UsageError, match="batch size 2 cannot be shared by 3 processes.*-num_gpus 2"):
        share_of_batch(2, 0.33, 0, 3)


def test_several_processes_share_the_planned_batch(monkeypatch):
    assert distributed.global_batch_size(3, 5) == 3
    monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (0, 2))
    assert distributed.global_batch_size(3, 5) == 5


class _Transformer(nn.Module):
    """A network with a backbone of eight blocks, some of which its head reads."""

    def __init__(self, is_trained: bool, out_indices: Sequence[int] = (7,)) -> None:
        super().__init__()
        self.out_indices = list(out_indices)
        self.backbone = nn.Linear(2, 2).requires_grad_(is_trained)
        self.backbone.num_blocks = 8
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "deep_supervision", "model", "expected"),
    [
        (nn.Linear(2, 2), True, None, False),
        (nn.Linear(2, 2), False, None, True),
        (_Transformer(False), False, {"tuning": "frozen"}, False),
        (_Transformer(True), False, {"tuning": "full"}, True),
        (_Transformer(True, [1, 3, 5, 7]), False, {"tuning": "lora"}, False),
        (_Transformer(True, [1, 3, 5, 6]), False, {"tuning": "lora"}, True),
        (_Transformer(True, []), False, {"tuning": "lora"}, False),  # the head runs all blocks itself
        (_Transformer(True), False, None, True),
    ],
)
def test_idle_parameters(network: nn.Module, deep_supervision: bool, model: Any, expected: bool) -> None:
    settings = None if model is None else {"model": model}
    assert has_idle_parameters(network, deep_supervision, settings) is expected
