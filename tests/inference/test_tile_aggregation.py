"""Blending of tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnunetv2.errors import NNUNetError
from nnunetv2.inference import tile_aggregation
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, tile_slicers
from nnunetv2.inference.tile_aggregation import (
    NotFiniteError,
    TileBlending,
    predict_tiles,
    predict_tiles_within_memory,
)

CPU = torch.device("cpu")
TILE = (4, 6, 5)


def blending(num_outputs: int, use_gaussian: bool = True, together: int = 1) -> TileBlending:
    # wider than in nnU-Net, whose smallest weights leave half precision only few digits at the corners of an image
    weights = compute_gaussian(TILE, sigma_scale=0.3, value_scaling_factor=10) if use_gaussian else None
    return TileBlending(num_outputs, weights, CPU, lambda device: together)


@pytest.mark.parametrize("use_gaussian", [True, False])
def test_identity_gives_the_image_back(use_gaussian: bool, seeded: int) -> None:
    image = torch.rand(2, 7, 11, 9)
    slicers = tile_slicers(image.shape[1:], TILE, 0.5)
    result = predict_tiles(lambda x: x, image, slicers, blending(2, use_gaussian), CPU)
    assert result.dtype == torch.half
    torch.testing.assert_close(result.float(), image, atol=4e-3, rtol=0)  # half precision, several tiles added


def test_constant_network_gives_constants() -> None:
    image = torch.zeros(1, 9, 9, 9)

    def constant(tiles: torch.Tensor) -> torch.Tensor:
        return torch.tensor([3.0, -7.0]).view(1, 2, 1, 1, 1).expand(len(tiles), 2, *TILE)

    result = predict_tiles(constant, image, tile_slicers((9, 9, 9), TILE, 0.3), blending(2), CPU).float()
    torch.testing.assert_close(result[0], torch.full((9, 9, 9), 3.0), atol=0, rtol=4e-3)
    torch.testing.assert_close(result[1], torch.full((9, 9, 9), -7.0), atol=0, rtol=4e-3)


def test_weighted_mean_by_hand() -> None:
    """Two tiles of three voxels overlap in one; the first is predicted as 1, the second as 5."""
    answers = iter([1.0, 5.0])
    result = predict_tiles(
        lambda tiles: torch.full_like(tiles, next(answers)),
        torch.zeros(1, 1, 1, 5),
        tile_slicers((1, 1, 5), (1, 1, 3), 1),
        TileBlending(1, torch.tensor([[[1.0, 2.0, 3.0]]]), CPU),
        CPU,
    )
    assert result[0, 0, 0].tolist() == [1, 1, (3 * 1 + 1 * 5) / 4, 5, 5]


def test_tiles_together_give_the_same(seeded: int) -> None:
    network = torch.nn.Conv3d(1, 2, 3, padding=1).requires_grad_(False)
    image = torch.rand(1, 4, 6, 13)
    slicers = tile_slicers(image.shape[1:], TILE, 0.5)
    assert len(slicers) % 2 == 1  # the last group is smaller
    alone = predict_tiles(network, image, slicers, blending(2), CPU)
    together = predict_tiles(network, image, slicers, blending(2, together=2), CPU)
    torch.testing.assert_close(alone, together, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e6])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(NotFiniteError, match="infinite values or NaN"):
        predict_tiles(
            lambda tiles: torch.full_like(tiles, value),
            torch.zeros(1, *TILE),
            tile_slicers(TILE, TILE, 0.5),
            blending(1),
            CPU,
        )


class OutOfMemoryOnce:
    """Fails at the k-th call, then works."""

    def __init__(self, at_call: int, times: int = 1) -> None:
        self.calls, self.at_call, self.times = 0, at_call, times

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.at_call <= self.calls < self.at_call + self.times:
            raise torch.OutOfMemoryError("fake")
        return tiles


@pytest.mark.parametrize("at_call", [1, 3])
def test_out_of_memory_falls_back_with_equal_result(
    at_call: int, seeded: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[torch.device] = []
    monkeypatch.setattr(tile_aggregation, "empty_cache", emptied.append)
    image = torch.rand(1, 8, 12, 10)
    slicers = tile_slicers(image.shape[1:], TILE, 0.5)
    normal = predict_tiles_within_memory(lambda x: x, image, slicers, blending(1), keep_on_device=True)
    assert not caplog.records
    assert not emptied
    failing = OutOfMemoryOnce(at_call)
    recovered = predict_tiles_within_memory(failing, image, slicers, blending(1), keep_on_device=True)
    assert torch.equal(normal, recovered)
    assert "keeping its logits in main memory" in caplog.text
    assert emptied == [CPU]


def test_out_of_memory_every_time_says_what_to_do() -> None:
    slicers = tile_slicers(TILE, TILE, 0.5)
    with pytest.raises(NNUNetError, match="The memory of cpu is too small for this network's tiles of 4 x 6 x 5"):
        predict_tiles_within_memory(
            OutOfMemoryOnce(1, times=9), torch.zeros(1, *TILE), slicers, blending(1), keep_on_device=True
        )


def test_the_network_goes_to_the_cpu_when_a_device_has_no_memory_for_it(
    seeded: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The device `meta` stands for a GPU."""
    image = torch.rand(1, 8, 12, 10)
    slicers = tile_slicers(image.shape[1:], TILE, 0.5)
    normal = predict_tiles(lambda tiles: tiles, image, slicers, blending(1), CPU)
    places: list[str] = []

    def predict(tiles: torch.Tensor) -> torch.Tensor:
        assert tiles.device.type == places[-1]
        if tiles.device.type != "cpu":
            raise torch.OutOfMemoryError("fake")
        return tiles

    on_device = replace(blending(1), device=torch.device("meta"))
    result = predict_tiles_within_memory(
        predict, image, slicers, on_device, keep_on_device=True, place_network=lambda place: places.append(place.type)
    )
    assert torch.equal(result, normal)
    assert places == ["meta", "meta", "cpu"]
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "keeping its logits in main memory instead",
        "predicting it on the CPU, which is much slower",
    ]


def test_weights_that_do_not_fit_the_device_are_used_on_the_cpu() -> None:
    image = torch.rand(1, *TILE)
    slicers = tile_slicers(TILE, TILE, 0.5)

    def place(device: torch.device) -> None:
        if device.type != "cpu":
            raise torch.OutOfMemoryError("fake")

    on_device = replace(blending(1, use_gaussian=False), device=torch.device("meta"))
    result = predict_tiles_within_memory(
        lambda tiles: tiles, image, slicers, on_device, keep_on_device=True, place_network=place
    )
    assert torch.equal(result, image.half())


def test_other_errors_of_the_network_are_not_hidden() -> None:
    def broken(tiles: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict_tiles_within_memory(
            broken, torch.zeros(1, *TILE), tile_slicers(TILE, TILE, 0.5), blending(1), keep_on_device=True
        )
