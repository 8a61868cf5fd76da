"""LoRA on the in-tree vision transformer."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.layers.lora import apply_lora, merge_lora
from tests.dinov3.vit_weights import tiny_vit

GATED = {"ffn_layer": "swiglu", "ffn_ratio": 6.0}


@torch.no_grad()
def give_effect(model):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize(
    ("options", "targets"),
    [({}, ["qkv", "proj"]), ({}, ["qkv", "proj", "fc1", "fc2"]), (GATED, ["w1", "w2", "w3"])],
)
def test_targets_of_every_block_are_adapted(options, targets):
    model = apply_lora(tiny_vit(**options), r=2, target_modules=targets)
    assert sum(name.endswith("lora_A.default") for name, _ in model.named_modules()) == 4 * len(targets)


def test_updates_have_an_effect_and_keys_stay_without_bias(seeded):
    model, image = tiny_vit(), torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        before = model(image)
        apply_lora(model, r=2)
        assert_close(model(image), before, atol=0, rtol=0)
        keys_of_nothing = model.blocks[0].attn.qkv(torch.zeros(1, 32)).chunk(3, dim=-1)[1]
        assert not keys_of_nothing.any()
        give_effect(model)
        changed = model.eval()(image)
        assert (changed - before).abs().max() > 1e-2
        merge_lora(model)
        assert_close(model(image), changed, atol=1e-5, rtol=1e-4)
    assert list(model.state_dict()) == list(tiny_vit().state_dict())


def test_only_updates_get_gradients(seeded):
    model = apply_lora(tiny_vit(), r=2, lora_dropout=0.0).train()
    give_effect(model)
    model(torch.randn(1, 3, 32, 32)).square().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
