"""Batches of tiles and mirrored copies: how many forward passes there are, and what happens when memory is short."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nnunetv2.inference import forward_batches
from nnunetv2.inference.forward_batches import ForwardBatches, largest_power_of_two
from tests.inference.test_whole_image_prediction import (
    WholeImageNetwork,
    WindowNetwork,
    num_outputs,
    patch_size,
    predictor_of,
)
from tests.inference.tiny_models import CPU

CUDA = torch.device("cuda")
Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Makes the CPU report `free` bytes, and forward passes take `per_image` bytes for each image."""

    def patch(free: int, per_image: int) -> None:
        monkeypatch.setattr(forward_batches, "reports_memory", lambda device: True)
        monkeypatch.setattr(forward_batches, "free_bytes", lambda device: free)
        monkeypatch.setattr(forward_batches, "call_and_measure", lambda call, device: (call(), per_image))

    return patch


class LimitedNetwork(nn.Module):
    """Notes the sizes of its batches, and has memory for at most `limit` images."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1).requires_grad_(False)
        self.limit, self.sizes, self.failed = limit, [], []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.limit:
            self.failed.append(len(x))
            raise torch.OutOfMemoryError("fake")
        self.sizes.append(len(x))
        return self.convolution(x)


def test_powers_of_two() -> None:
    assert [largest_power_of_two(number) for number in (1, 2, 3, 4, 7, 8, 64, 100)] == [1, 2, 2, 4, 4, 8, 64, 64]


def test_only_small_volumes_go_together_on_a_cpu() -> None:
    batches = ForwardBatches(CPU)
    assert [batches.size(size, CPU) for size in ((16, 64, 64), (64, 128, 128), (64, 64))] == [2, 1, 1]
    assert batches.num_tiles((16, 64, 64), 8, CPU) == 2
    assert ForwardBatches(CUDA).size((16, 64, 64), CUDA) == 1  # nothing is known yet
    assert ForwardBatches(CUDA).size((16, 64, 64), CPU) == 2  # the GPU had no memory for the network


@pytest.mark.parametrize(
    ("free", "per_image", "size"),
    [
        (1000, 100, 4),  # half of it is 500: 5 images, rounded to a power of two
        (1000, 501, 1),
        (10**12, 2**30, 4),  # 4 GiB
        (10**12, 1, 64),
        (10**12, 0, 64),
    ],
)
def test_size_by_hand(free: int, per_image: int, size: int, pretend: Pretend) -> None:
    pretend(free, per_image)
    batches, network = ForwardBatches(CPU), LimitedNetwork()
    batches.forward(network, torch.rand(1, 1, 4, 5))
    assert batches.size((4, 5), CPU) == size
    assert batches.num_tiles((4, 5), 4, CPU) == max(1, size // 4)


def test_one_measurement_serves_images_of_all_sizes(pretend: Pretend) -> None:
    pretend(1600, 100)
    batches = ForwardBatches(CPU)
    batches.forward(LimitedNetwork(), torch.rand(1, 1, 4, 5))
    assert batches.size((4, 5), CPU) == 8
    assert batches.size((8, 10), CPU) == 2
    assert batches.size((2, 5), CPU) == 16


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_batches_are_halved_until_they_fit(
    limit: int, seeded: int, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(2000, 100)
    emptied: list[torch.device] = []
    monkeypatch.setattr(forward_batches, "empty_cache", emptied.append)
    batches, network = ForwardBatches(CPU), LimitedNetwork(limit)
    images = torch.rand(13, 1, 6, 5)
    for _ in range(2):
        torch.testing.assert_close(batches.forward(network, images), network.convolution(images), rtol=0, atol=1e-6)
    fitting = largest_power_of_two(limit)
    assert batches.size((6, 5), CPU) == fitting
    assert network.failed == [size for size in (8, 4, 2) if size > limit]  # and not again for the second batch
    assert len(emptied) == len(network.failed)
    assert sum(network.sizes) == 2 * 13
    assert max(network.sizes) == fitting


def test_a_single_image_that_does_not_fit_is_the_callers_matter(pretend: Pretend) -> None:
    pretend(1000, 100)
    with pytest.raises(torch.OutOfMemoryError):
        ForwardBatches(CPU).forward(LimitedNetwork(0), torch.rand(2, 1, 4, 4))


def test_other_errors_are_not_taken_for_missing_memory(pretend: Pretend) -> None:
    pretend(10**9, 1)
    batches = ForwardBatches(CPU)
    batches.forward(LimitedNetwork(), torch.rand(1, 1, 4, 4))
    with pytest.raises(RuntimeError, match="expected input"):
        batches.forward(LimitedNetwork(), torch.rand(4, 2, 4, 4))


def random_network(network_class: type[WholeImageNetwork]) -> WholeImageNetwork:
    return network_class(num_outputs()).requires_grad_(False)


def predict_twice(network: WholeImageNetwork, image: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Logits, and the batches of the second image."""
    predictor = predictor_of(network, (0, 1), use_gaussian=False)
    for _ in range(2):
        network.sizes.clear()
        logits = predictor.predict_logits_from_preprocessed_data(image)
    return logits, [size[0] for size in network.sizes]


def test_mirrored_tiles_go_together(seeded: int, pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tiles with four mirrored copies: 36 forward passes, or 2; by 4 at a time 9, a quarter."""
    network = random_network(WindowNetwork)
    image = torch.randn(1, 1, *(2 * side for side in patch_size()))
    expected, sizes = predict_twice(network, image)
    assert sizes == [1] * 36
    for free, batches in ((10**9, [32, 4]), (800, [4] * 9), (400, [2] * 18)):
        pretend(free, 100)
        logits, sizes = predict_twice(network, image)
        assert sizes == batches
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)  # float16 logits


def test_batches_equal_single_images_in_single_precision(seeded: int, pretend: Pretend) -> None:
    network = random_network(WindowNetwork)
    tiles = torch.randn(8, 1, *patch_size())
    predictor = predictor_of(network, (0, 1))
    expected = torch.cat([predictor._internal_maybe_mirror_and_predict(tile[None]) for tile in tiles])
    pretend(10**9, 100)
    predictor._internal_maybe_mirror_and_predict(tiles[:1])
    network.sizes.clear()
    torch.testing.assert_close(predictor._internal_maybe_mirror_and_predict(tiles), expected, rtol=0, atol=1e-5)
    assert [size[0] for size in network.sizes] == [32]


def test_slices_of_whole_images_go_together(seeded: int, pretend: Pretend) -> None:
    network = random_network(WholeImageNetwork)
    image = torch.randn(1, 4, 21, 50)
    expected, sizes = predict_twice(network, image)
    assert sizes == [1] * 16
    pretend(10**9, 100)
    logits, sizes = predict_twice(network, image)
    assert sizes == [16]
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)


def test_a_prediction_that_runs_out_of_memory_goes_on_with_single_tiles(seeded: int, pretend: Pretend) -> None:
    """Memory for the network suffices, but not for what is done with its output."""
    network = random_network(WindowNetwork)
    image = torch.randn(1, 1, *(2 * side for side in patch_size()))
    expected, _ = predict_twice(network, image)
    pretend(10**9, 100)
    predictor = predictor_of(network, (0, 1), use_gaussian=False)
    predict = predictor._internal_maybe_mirror_and_predict

    def fail_for_many(tiles: torch.Tensor) -> torch.Tensor:
        if len(tiles) > 1:
            raise torch.OutOfMemoryError("fake")
        return predict(tiles)

    predictor.predict_logits_from_preprocessed_data(image)  # shows how much memory a voxel takes
    predictor._internal_maybe_mirror_and_predict = fail_for_many
    network.sizes.clear()
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    assert [size[0] for size in network.sizes] == [1] * 36
    predictor._internal_maybe_mirror_and_predict = predict
    network.sizes.clear()
    predictor.predict_logits_from_preprocessed_data(image)  # the next case may need less
    assert [size[0] for size in network.sizes] == [32, 4]


def count_compilations(network: nn.Module) -> tuple[nn.Module, list[tuple[int, ...]]]:
    shapes: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        shapes.append(tuple(inputs[-1].shape))
        return graph.forward

    return torch.compile(network, backend=backend, dynamic=False), shapes


class PlainNetwork(nn.Module):
    """One graph: nothing that would break it."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.use_sliding_window_inference = not whole
        self.convolution = nn.Conv2d(1, num_outputs(), 3, padding=1).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_networks_are_not_compiled_anew(whole: bool, seeded: int, pretend: Pretend) -> None:
    """Neither for the size of each whole image nor for batches of tiles."""
    pretend(10**9, 100)
    network = PlainNetwork(whole)
    compiled, shapes = count_compilations(network)
    predictor = predictor_of(compiled, (0, 1))
    for excess in (1, 5, 9):
        predictor.predict_logits_from_preprocessed_data(torch.randn(1, 2, *(side + excess for side in patch_size())))
    assert len(shapes) == (0 if whole else 1)
