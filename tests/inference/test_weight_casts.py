"""Weights that autocast casts: once per image, and as before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2.inference import logit_predictor, weight_casts
from tests.inference.test_whole_image_prediction import num_outputs, patch_size, predictor_of


class Network(nn.Module):
    """Frozen and trained weights, and a part that stays in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Conv2d(1, 7, 3, padding=1).requires_grad_(False)
        self.trained = nn.Conv2d(7, num_outputs(), 5, padding=2)
        self.precise = nn.Conv2d(num_outputs(), num_outputs(), 1).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.trained(self.frozen(x)).float()
        with torch.autocast(x.device.type, enabled=False):
            return self.precise(x)


class CastShapes(TorchDispatchMode):
    """Counts the casts to half precision by the shape of the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.shapes[tuple(args[0].shape)] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def autocast_on_cpu(*_: object) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, seeded: int) -> Network:
    monkeypatch.setattr(logit_predictor, "half_precision", autocast_on_cpu)
    return Network()


def predict(network: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, Counter]:
    with CastShapes() as casts:
        return predictor_of(network, use_gaussian=False).predict_logits_from_preprocessed_data(image), casts.shapes


def test_each_weight_is_cast_once_per_image(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randn(1, 1, *(2 * side for side in patch_size()))  # nine tiles
    requires = [parameter.requires_grad for parameter in network.parameters()]
    expected, shapes = predict(network, image)
    assert shapes[network.trained.weight.shape] == shapes[network.frozen.weight.shape] == 9  # there is no memory
    monkeypatch.setattr(weight_casts, "free_bytes", lambda device: 10**9)
    logits, shapes = predict(network, image)
    assert torch.equal(logits, expected)
    assert shapes[network.trained.weight.shape] == shapes[network.frozen.weight.shape] == 1
    assert shapes[network.precise.weight.shape] == 0
    assert [parameter.requires_grad for parameter in network.parameters()] == requires
    assert not logits.requires_grad


def test_changed_weights_are_cast_again(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_casts, "free_bytes", lambda device: 10**9)
    image = torch.randn(1, 1, *patch_size())
    first, _ = predict(network, image)
    with torch.no_grad():
        for parameter in network.precise.parameters():
            parameter.mul_(2)
        network.frozen.weight.mul_(-1)
        network.frozen.bias.mul_(-1)
        network.trained.weight.mul_(-1)
    torch.testing.assert_close(predict(network, image)[0], 2 * first, atol=1e-6, rtol=0)


def test_casts_are_given_up_when_memory_runs_out(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_casts, "free_bytes", lambda device: 10**9)
    failures = iter([torch.OutOfMemoryError("fake")])

    def fail_once(*_: object) -> None:
        for error in failures:
            raise error

    network.register_forward_pre_hook(fail_once)
    _, shapes = predict(network, torch.randn(1, 2, *patch_size()))
    assert shapes[network.frozen.weight.shape] == 2


def test_a_network_may_write_into_its_input(network: Network) -> None:
    class InPlace(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mul_(2))

    in_place = InPlace()
    in_place.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, *patch_size())
    assert torch.equal(predict(in_place, image)[0], predict(network, 2 * image)[0])


def test_an_error_leaves_frozen_weights_frozen(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_casts, "free_bytes", lambda device: 10**9)
    once = weight_casts.weights_cast_once(network, torch.device("cpu"))
    with autocast_on_cpu(), pytest.raises(ZeroDivisionError), once:
        assert network.frozen.weight.requires_grad
        raise ZeroDivisionError
    assert not network.frozen.weight.requires_grad


def test_without_autocast_nothing_is_forgotten() -> None:
    weight_casts.forget_casts(torch.device("cpu"))
    assert torch.is_autocast_cache_enabled()
