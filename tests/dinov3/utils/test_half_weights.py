"""Frozen weights in half precision: same results under autocast, same checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dinov3.layers.lora import apply_lora
from dinov3.utils.half_weights import cast_frozen_weights, halve_frozen_weights, restore_frozen_weights

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.proj = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(self.qkv(x)).relu())


def make_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Module()
    network.blocks = nn.ModuleList([Block()])
    network.forward = lambda x: network.blocks[0](x)
    apply_lora(network.requires_grad_(False), r=2, lora_dropout=0.0)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    return network


def loss_and_gradients(network: nn.Module) -> list[Tensor]:
    network.zero_grad()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.blocks[0](x).float().square().sum()
    loss.backward()
    return [loss.detach(), *(weight.grad.clone() for weight in network.parameters() if weight.grad is not None)]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def test_loss_gradients_and_checkpoints_are_bit_equal() -> None:
    network = make_network()
    expected = loss_and_gradients(network)
    saved = copy.deepcopy(network.state_dict())
    cast_frozen_weights(network, torch.bfloat16)
    qkv = network.blocks[0].qkv.get_base_layer()
    assert qkv.weight.dtype == torch.bfloat16
    assert network.blocks[0].norm.weight.dtype == torch.float32  # normalisation stays in float32 under autocast
    assert all(weight.dtype == torch.float32 for weight in network.parameters() if weight.requires_grad)
    found = loss_and_gradients(network)
    assert len(found) == 1 + 4
    assert all(map(torch.equal, found, expected))
    assert equal(network.state_dict(), saved)
    restore_frozen_weights(network)
    assert qkv.weight.dtype == torch.float32
    assert equal(network.state_dict(), saved)


def test_loaded_weights_replace_the_kept_values() -> None:
    network = make_network()
    cast_frozen_weights(network, torch.bfloat16)
    other = {name: value + 0.123456789 for name, value in network.state_dict().items()}
    network.load_state_dict(other)
    assert equal(network.state_dict(), other)
    qkv = network.blocks[0].qkv.get_base_layer()
    assert torch.equal(qkv.weight, other["blocks.0.qkv.base_layer.weight"].bfloat16())
    restore_frozen_weights(network)
    assert torch.equal(qkv.weight, other["blocks.0.qkv.base_layer.weight"])


def test_copies_keep_their_own_values() -> None:
    network = make_network()
    cast_frozen_weights(network, torch.bfloat16)
    copied, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    network.load_state_dict({name: value + 1 for name, value in before.items()})
    assert equal(copied.state_dict(), before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_a_cpu_leaves_the_weights(precision: str) -> None:
    network = make_network()
    halve_frozen_weights(network, precision, CPU)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
