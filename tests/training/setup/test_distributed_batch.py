"""Shares of a batch: together they are the batch, and force foreground in the samples that one process would."""

from __future__ import annotations

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.setup.distributed_batch import share_of_batch

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
