"""The low-rank linear layer computes what peft's does, in half precision more exactly."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from dinov3.layers import lora_linear
from dinov3.layers.lora import apply_lora, merge_lora
from dinov3.layers.lora_linear import LoRALinear
from nnunetv2.model.backbones import create_backbone

BF16 = torch.bfloat16


def layers(dropout: float = 0.0, bias: bool = True) -> tuple[LoRALinear, Linear]:
    """Our layer and peft's own, with the same parameters and an update that is not zero."""
    torch.manual_seed(0)
    holder = nn.Module()
    holder.blocks = nn.ModuleList([nn.Module()])
    holder.blocks[0].proj = nn.Linear(12, 20, bias=bias)
    apply_lora(holder, r=3, lora_alpha=5, lora_dropout=dropout, target_modules=("proj",))
    ours = holder.blocks[0].proj
    assert type(ours) is LoRALinear
    nn.init.normal_(ours.lora_B["default"].weight)
    theirs = Linear.__new__(Linear)
    nn.Module.__init__(theirs)
    theirs.__dict__.update(copy.deepcopy(ours).__dict__)
    return ours, theirs


def step(layer: nn.Module, x: Tensor, *, is_half: bool) -> tuple[Tensor, ...]:
    """Output, and gradients of the input, A and B."""
    x = x.clone().requires_grad_()
    torch.manual_seed(7)  # of the dropout
    with torch.autocast("cpu", dtype=BF16, enabled=is_half):
        result = layer(x)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(2))
    (result.float() * weights).sum().backward()
    return result.detach(), x.grad, layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_half_precision_is_at_least_as_exact_as_pefts(dropout: float, dtype: torch.dtype, bias: bool) -> None:
    ours, theirs = layers(dropout, bias)
    for layer in (ours, theirs):
        layer.train()
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1)).to(dtype)
    with mock.patch.object(lora_linear._LowRankLinear, "apply", wraps=lora_linear._LowRankLinear.apply) as fast:
        found = step(ours, x, is_half=True)
    assert fast.called
    exact = step(copy.deepcopy(theirs), x.to(dtype).float(), is_half=False)
    expected = step(theirs, x, is_half=True)
    for name, one, of_peft, truth in zip(("output", "x", "A", "B"), found, expected, exact, strict=True):
        assert (one.dtype, one.shape) == (of_peft.dtype, of_peft.shape), name
        error, of_peft = ((each.float() - truth).norm() / truth.norm() for each in (one, of_peft))
        assert error < 1e-2, name
        assert error < 1.3 * of_peft, name


@pytest.mark.parametrize("is_half", [False, True])
def test_what_is_out_of_the_ordinary_is_pefts(is_half: bool) -> None:
    x = torch.randn(3, 12)
    with (
        mock.patch.object(lora_linear._LowRankLinear, "apply", side_effect=AssertionError),
        torch.autocast("cpu", dtype=BF16, enabled=is_half),
    ):
        trained, theirs = layers()
        for layer in (trained, theirs):
            layer.get_base_layer().weight.requires_grad_()
        assert torch.equal(trained(x), theirs(x))
        merged, theirs = layers()
        for layer in (merged, theirs):
            layer.merge()
        assert torch.equal(merged(x), theirs(x))
        disabled, theirs = layers()
        for layer in (disabled, theirs):
            layer.enable_adapters(False)
        assert torch.equal(disabled(x), theirs(x))


def test_float32_is_pefts_bit_by_bit() -> None:
    ours, theirs = layers(0.4)
    x = torch.randn(2, 7, 12)
    for found, expected in zip(step(ours, x, is_half=False), step(theirs, x, is_half=False), strict=True):
        assert torch.equal(found, expected)


def test_a_backbone_with_the_layers_is_merged_to_plain_ones() -> None:
    backbone = apply_lora(create_backbone("dinov3", "tiny"), lora_dropout=0.0).eval()
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    adapted = [module for module in backbone.modules() if type(module) is LoRALinear]
    assert len(adapted) == 2 * backbone.num_blocks
    image = torch.randn(1, 3, 32, 32)
    expected = backbone.features(image, [3]).maps[0]
    merged = merge_lora(copy.deepcopy(backbone))
    assert not any(isinstance(module, Linear) for module in merged.modules())
    torch.testing.assert_close(merged.features(image, [3]).maps[0], expected, rtol=1e-4, atol=1e-5)
