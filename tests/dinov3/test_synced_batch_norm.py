"""Batch norm over several processes is batch norm over all of their images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, distributed, nn

from dinov3.layers import synced_batch_norm
from dinov3.layers.synced_batch_norm import SyncedBatchNorm, synchronise_batch_norm

CPU = torch.device("cpu")


@pytest.fixture
def group_of_one() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@pytest.fixture
def run_together(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Callable[[], None]]], None]:
    """Runs functions at once, each as one process: `all_reduce` adds up what all of them hand in."""
    waiting: dict[int, Tensor] = {}

    def run(functions: list[Callable[[], None]]) -> None:
        barrier = threading.Barrier(len(functions))

        def all_reduce(tensor: Tensor) -> None:
            waiting[threading.get_ident()] = tensor
            barrier.wait(timeout=30)
            total = torch.stack(list(waiting.values())).sum(dim=0)
            barrier.wait(timeout=30)
            tensor.copy_(total)
            waiting.clear()
            barrier.wait(timeout=30)

        monkeypatch.setattr(synced_batch_norm.dist, "all_reduce", all_reduce)
        monkeypatch.setattr(synced_batch_norm, "is_distributed", lambda: True)
        threads = [threading.Thread(target=function) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def norms(kind: type[nn.Module] = nn.BatchNorm2d, **settings) -> tuple[nn.Module, SyncedBatchNorm]:
    """torch's layer with random weights, and what it is converted to."""
    norm = kind(3, **settings)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
    converted = kind(3, **settings)
    converted.load_state_dict(norm.state_dict())
    converted = synchronise_batch_norm(converted, CPU)
    assert isinstance(converted, SyncedBatchNorm)
    return norm, converted


def assert_same(norm: nn.Module, synced: nn.Module) -> None:
    assert norm.state_dict().keys() == synced.state_dict().keys()
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


SETTINGS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("settings", SETTINGS)
def test_two_processes_are_one_with_all_images(run_together, settings: dict) -> None:
    norm, first = norms(**settings)
    second = synchronise_batch_norm(nn.BatchNorm2d(3, **settings), CPU)
    second.load_state_dict(first.state_dict())
    parts = [torch.randn(count, 3, 4, 5) * 3 + 100 for count in (3, 1)]  # batches of different sizes, far from 0
    weights = [torch.randn_like(part) for part in parts]
    for part in parts:
        part.requires_grad_()
    outputs: dict[int, Tensor] = {}

    def process(index: int, layer: nn.Module) -> None:
        outputs[index] = layer(parts[index])
        (outputs[index] * weights[index]).sum().backward()

    for _ in range(2):
        run_together([lambda: process(0, first), lambda: process(1, second)])
    whole = torch.cat([part.detach() for part in parts]).requires_grad_()
    for _ in range(2):
        expected = norm(whole)
        (expected * torch.cat(weights)).sum().backward()

    torch.testing.assert_close(torch.cat([outputs[0], outputs[1]]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([part.grad for part in parts]), whole.grad, rtol=1e-4, atol=1e-4)
    for name, parameter in norm.named_parameters():
        total = first.get_parameter(name).grad + second.get_parameter(name).grad
        torch.testing.assert_close(total, parameter.grad, rtol=1e-4, atol=1e-3)
    assert_same(norm, first)
    assert_same(norm, second)


@pytest.mark.usefixtures("seeded", "group_of_one")
@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (4, 3)), (nn.BatchNorm2d, (2, 3, 4, 4)), (nn.BatchNorm3d, (2, 3, 4, 4, 4))]
)
def test_all_dimensions_in_a_group_of_processes(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    norm, synced = norms(kind)
    images = torch.randn(shape)
    torch.testing.assert_close(synced(images), norm(images), rtol=1e-5, atol=1e-5)
    assert_same(norm, synced)


@pytest.mark.usefixtures("seeded")
def test_alone_or_in_eval_mode_it_is_batch_norm_bit_by_bit(request: pytest.FixtureRequest) -> None:
    norm, synced = norms()
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(synced(images), norm(images))
    assert torch.equal(synced.running_var, norm.running_var)
    request.getfixturevalue("group_of_one")
    assert torch.equal(synced.eval()(images), norm.eval()(images))


@pytest.mark.usefixtures("group_of_one")
def test_half_precision_comes_out_as_it_went_in() -> None:
    images = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)
    output = SyncedBatchNorm(3)(images)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, nn.BatchNorm2d(3)(images.float()).bfloat16(), rtol=0.01, atol=0.01)


def test_conversion_keeps_tensors_names_and_modes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=1e-3, momentum=0.2))).eval()
    before = network.state_dict(keep_vars=True)
    converted = synchronise_batch_norm(network, CPU)
    after = converted.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    norm = converted[1][0]
    assert isinstance(norm, SyncedBatchNorm)
    assert (norm.eps, norm.momentum, norm.training) == (1e-3, 0.2, False)


def test_on_cuda_torchs_own_is_used() -> None:
    converted = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(4)), torch.device("cuda"))
    assert isinstance(converted[0], nn.SyncBatchNorm)


def test_a_tensor_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes \(B, C, ...\); a tensor of shape \(4,\)"):
        SyncedBatchNorm(4)(torch.zeros(4))
