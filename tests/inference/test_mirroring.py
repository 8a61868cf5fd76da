"""Averaging over mirrored copies."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.inference.mirroring import mirrorings, predict_mirrored


def test_mirrorings_are_all_combinations() -> None:
    assert mirrorings((0, 2)) == [(), (0,), (2,), (0, 2)]
    assert mirrorings(None) == mirrorings(()) == [()]
    assert len(mirrorings((0, 1, 2))) == 8


def pointwise(tiles: torch.Tensor) -> torch.Tensor:
    return torch.cat([tiles**2, tiles - 1], 1)


def test_mirroring_a_pointwise_function_changes_nothing(seeded: int) -> None:
    tiles = torch.rand(2, 1, 3, 4, 5)
    torch.testing.assert_close(predict_mirrored(pointwise, tiles, (0, 1, 2)), pointwise(tiles))


def test_network_that_returns_its_input_is_not_disturbed(seeded: int) -> None:
    tiles = torch.rand(1, 1, 3, 4)
    before = tiles.clone()
    torch.testing.assert_close(predict_mirrored(lambda x: x, tiles, (0, 1)), before)
    torch.testing.assert_close(tiles, before)


def test_mean_by_hand() -> None:
    """The network adds the column's number; mirrored and mirrored back it counts from the other end."""

    def add_column(tiles: torch.Tensor) -> torch.Tensor:
        return tiles + torch.arange(3.0)

    result = predict_mirrored(add_column, torch.zeros(1, 1, 2, 3), (1,))
    torch.testing.assert_close(result, torch.ones(1, 1, 2, 3))


@pytest.mark.parametrize("max_batch_size", [2, 3, 8])
def test_batched_copies_give_the_same(max_batch_size: int, seeded: int) -> None:
    network = torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    tiles = torch.rand(1, 2, 6, 5, 4)
    alone = predict_mirrored(network, tiles, (0, 1, 2))
    torch.testing.assert_close(predict_mirrored(network, tiles, (0, 1, 2), max_batch_size), alone)


def test_batches_stay_within_the_limit() -> None:
    sizes = []

    def network(tiles: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tiles))
        return tiles

    predict_mirrored(network, torch.rand(1, 1, 4, 4), (0, 1), max_batch_size=3)
    predict_mirrored(network, torch.rand(2, 1, 4, 4), (0,), max_batch_size=3)
    assert sizes == [3, 1, 2, 2]


def test_axis_that_a_tile_does_not_have() -> None:
    with pytest.raises(UsageError, match="--disable_tta"):
        predict_mirrored(lambda x: x, torch.rand(1, 1, 4, 4), (0, 2))
