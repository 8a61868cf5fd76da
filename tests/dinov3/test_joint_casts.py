"""Weights cast together: losses and gradients as autocast's own casts give them."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dinov3.eval.segmentation.models.heads.masked_attention import MultiheadAttention
from dinov3.layers.joint_casts import JointCasts, in_half
from dinov3.layers.lora import apply_lora

BF16 = torch.bfloat16


class Casts(TorchDispatchMode):
    """Counts casts to half precision, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype == BF16:
            self.shapes[tuple(result.shape)] += 1
        return result


class Network(nn.Module):
    """Layers of every kind; one is recomputed, two share their weights, one is not used and one stays in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.attention = MultiheadAttention(8, 2)
        self.recomputed = nn.Linear(8, 12)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(5, 5)
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].qkv = nn.Linear(12, 7).requires_grad_(False)
        apply_lora(self, r=3, lora_alpha=4, lora_dropout=0.0, target_modules=["qkv"])
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("base_layer" not in name)
            if "lora_B" in name:
                nn.init.normal_(parameter)
        self.exact = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        tokens = self.attention(tokens, tokens + 1, tokens)
        tokens = checkpoint(self.recomputed, tokens, use_reentrant=False).relu()
        tokens = self.blocks[0].qkv(self.second(self.first(tokens)))
        with torch.autocast("cpu", enabled=False):
            return self.exact(tokens.float())


def loss_and_gradients(network: nn.Module, casts: JointCasts | None = None) -> dict[str, Tensor | None]:
    network.zero_grad()
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))

    def step() -> Tensor:
        with torch.autocast("cpu", dtype=BF16):
            loss = network(x).square().mean()
        loss.backward()
        return loss.detach()

    if casts is None:
        loss = step()
    else:
        with casts.step():
            loss = step()
    return {"loss": loss, **{name: weight.grad for name, weight in network.named_parameters()}}


def equal(a: dict[str, Tensor | None], b: dict[str, Tensor | None]) -> bool:
    return list(a) == list(b) and all(a[name] is b[name] is None or torch.equal(a[name], b[name]) for name in a)


def test_losses_and_gradients_are_those_of_autocast_bit_by_bit() -> None:
    network = Network()
    names = list(network.state_dict())
    expected = loss_and_gradients(copy.deepcopy(network))
    casts = JointCasts(network, BF16)
    found = loss_and_gradients(network, casts)
    assert equal(found, expected)
    assert found["unused.weight"] is None
    assert found["blocks.0.qkv.lora_A.default.weight"].abs().sum() > 0
    assert list(network.state_dict()) == names
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert equal(loss_and_gradients(network), expected)  # outside of a step, autocast casts


def test_weights_are_cast_by_one_kernel() -> None:
    network = Network()
    casts = JointCasts(network, BF16)
    with Casts() as alone:
        loss_and_gradients(network)
    with Casts() as together:
        loss_and_gradients(network, casts)
    trained = {tuple(weight.shape) for weight in network.parameters() if weight.requires_grad and weight.ndim > 1}
    assert {(12, 8), (8, 3, 2, 2), (12, 12), (3, 12), (7, 3)} <= trained & set(alone.shapes)
    assert alone.shapes[12, 8] == 2  # the second time when it is recomputed
    assert not trained & set(together.shapes)


def test_halves_are_for_autocast_in_their_precision_and_for_the_step_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    weight = network[0].weight
    with JointCasts(network, BF16).step():
        assert in_half(weight) is weight
        with torch.autocast("cpu", dtype=BF16):
            assert in_half(weight).dtype == BF16
        with torch.autocast("cpu", dtype=torch.float16):
            assert in_half(weight) is weight
    with torch.autocast("cpu", dtype=BF16):
        assert in_half(weight) is weight


def test_layers_of_other_classes_keep_them() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T

    network = nn.Sequential(Own(3, 3), nn.Linear(3, 2))
    expected = loss_of(network)
    casts = JointCasts(network, BF16)
    assert type(network[0]) is Own
    assert isinstance(network[1], nn.Linear)
    with casts.step():
        assert torch.equal(loss_of(network), expected)


def loss_of(network: nn.Module) -> Tensor:
    with torch.autocast("cpu", dtype=BF16):
        return network(torch.arange(6.0).view(2, 3)).sum().detach()
