"""Slices with their neighbours as channels: which slices, from the loader to the tiles, and the network for them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunetv2.errors import UsageError
from nnunetv2.inference.sliding_window_prediction import tile_slicers
from nnunetv2.inference.tile_aggregation import TileBlending, predict_tiles
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.any_head_config import load_any_head_config
from nnunetv2.utilities.context_slices import context_of
from tests.model.heads.small import small_network, small_words

CPU, SIZE = torch.device("cpu"), (64, 56)
LABELS = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)


@pytest.mark.parametrize(
    ("number", "num_slices", "depth", "expected"),
    [
        (3, 3, 9, [2, 3, 4]),
        (0, 3, 9, [0, 0, 1]),
        (8, 5, 9, [6, 7, 8, 8, 8]),
        (1, 7, 3, [0, 0, 0, 1, 2, 2, 2]),
        (0, 5, 1, [0, 0, 0, 0, 0]),
        (4, 1, 9, [4]),
    ],
)
def test_the_ends_of_a_case_are_repeated(number: int, num_slices: int, depth: int, expected: list[int]) -> None:
    assert context_of(number, num_slices, depth) == expected


class NumberedSlices:
    """A case whose voxels tell channel and slice: 100 * c + z."""

    identifiers = ("case",)
    depth = 4

    def load_case(self, identifier: str) -> tuple:
        z = np.arange(self.depth, dtype=np.float32)[:, None, None]
        image = np.stack([z, 100 + z]) * np.ones((1, 1, 12, 10), dtype=np.float32)
        locations = {1: np.argwhere(np.ones((1, self.depth, 12, 10)))}
        return image, image[:1].astype(np.int16), None, {"class_locations": locations}


@pytest.mark.parametrize("num_slices", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 6), (16, 14)])
def test_the_loader_reads_the_slices_around_the_one_whose_labels_it_gives(
    seeded: int, num_slices: int, size: tuple[int, int]
) -> None:
    cases = NumberedSlices()
    loader = nnUNetDataLoader(cases, 16, size, size, LABELS, context_slices=num_slices)
    batch = next(loader)
    assert batch["data"].shape == (16, 2 * num_slices, *size)
    seen = set()
    for image, target in zip(batch["data"], batch["target"], strict=True):
        (number,) = (int(value) for value in target.unique() if value >= 0)
        seen.add(number)
        expected = [100 * c + z for c in (0, 1) for z in context_of(number, num_slices, cases.depth)]
        assert image.amax(dim=(1, 2)).tolist() == expected
        assert ((image == 0) | (image == image.amax(dim=(1, 2), keepdim=True))).all()  # 0 outside the case
    assert seen == set(range(cases.depth))


def test_drawn_positions_do_not_depend_on_the_context() -> None:
    positions = []
    for num_slices in (1, 3):
        np.random.seed(4)
        batch = next(nnUNetDataLoader(NumberedSlices(), 8, (8, 6), (8, 6), LABELS, context_slices=num_slices))
        positions.append(batch["target"])
    assert torch.equal(*positions)


def test_tiles_have_the_slices_around_theirs() -> None:
    image = torch.stack([torch.arange(5.0), 100 + torch.arange(5.0)])[:, :, None, None].expand(-1, -1, 9, 8)
    slicers, seen = tile_slicers((5, 9, 8), (6, 6), 0.5), []

    def predict(tiles: Tensor) -> Tensor:
        seen.extend(tile[:, 0, 0].tolist() for tile in tiles)
        return tiles[:, 1:2]  # the middle slice of the first channel

    logits = predict_tiles(predict, image, slicers, TileBlending(1, None, CPU, context_slices=3), CPU)
    assert torch.equal(logits[0, :, 0, 0].float(), torch.arange(5.0))
    expected = {tuple(float(100 * c + z) for c in (0, 1) for z in context_of(number, 3, 5)) for number in range(5)}
    assert {tuple(channels) for channels in seen} == expected


@torch.no_grad()
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
@pytest.mark.parametrize(("channels", "num_slices"), [(1, 3), (1, 5), (2, 3), (4, 7)])
def test_a_new_network_is_the_one_for_single_slices(tuning: str, channels: int, num_slices: int) -> None:
    """Three slices of one channel are colours, which are as without context where the slices are equal."""
    torch.manual_seed(0)
    flat = small_network("segformer", channels=channels, tuning=tuning).eval()
    seeing = small_network("segformer", channels=channels, tuning=tuning, context_slices=num_slices).eval()
    missing = seeing.load_state_dict(flat.state_dict(), strict=False).missing_keys
    are_colours = (channels, num_slices) == (1, 3)
    assert missing == ([] if are_colours else ["context.weight", "context.bias"])
    slices = torch.randn(2, channels, num_slices, *SIZE)
    if are_colours:
        slices[:] = slices[:, :, 1:2]
    middle = flat(slices[:, :, num_slices // 2])
    torch.testing.assert_close(seeing(slices.flatten(1, 2)), middle, rtol=0, atol=1e-6 * middle.abs().max())
    other = slices.clone()
    other[:, :, 0] += 1
    assert are_colours != torch.equal(seeing(other.flatten(1, 2)), seeing(slices.flatten(1, 2)))


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_neighbours_are_learned_with_a_frozen_stem(tuning: str) -> None:
    network = small_network("segformer", channels=2, tuning=tuning, context_slices=3)
    network(torch.randn(2, 6, *SIZE)).square().mean().backward()
    assert (network.context.weight.grad != 0).all()
    assert not network.encoder.vit.patch_embed.proj.weight.requires_grad


def arguments(*words: str, num_axes: int) -> dict:
    config = load_any_head_config(None, [*small_words("segformer"), *words])
    return config.architecture(regions=False, num_axes=num_axes, num_channels=1)["arch_kwargs"]


def test_plans_have_context_slices_only_with_them() -> None:
    assert arguments("model.context_slices=5", num_axes=2)["context_slices"] == 5
    assert "context_slices" not in arguments(num_axes=2)
    assert "context_slices" not in arguments(num_axes=3)


@pytest.mark.parametrize(
    ("value", "num_axes", "message"),
    [
        (3, 3, "model.context_slices=3 is for 2-D patches, and this configuration has 3-D ones; leave it out"),
        (2, 2, "model.context_slices=2 must be one of 1, 3, 5, 7"),
        (9, 2, "model.context_slices=9 must be one of 1, 3, 5, 7"),
        (-1, 2, "model.context_slices=-1 must be one of 1, 3, 5, 7"),
    ],
)
def test_unfit_numbers_are_refused(value: int, num_axes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arguments(f"model.context_slices={value}", num_axes=num_axes)
