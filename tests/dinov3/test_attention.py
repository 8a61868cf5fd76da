"""Attention of the vision transformer against torch's own, and the bias that keys do without."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from dinov3.layers.attention import LinearKMaskedBias, SelfAttention


def test_attention_without_positions_equals_torch(seeded):
    ours = SelfAttention(24, num_heads=3, qkv_bias=True)
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = ours.qkv.weight, ours.qkv.bias
    theirs.out_proj = ours.proj
    tokens = torch.randn(2, 7, 24)
    expected, _ = theirs(tokens, tokens, tokens, need_weights=False)
    assert_close(ours(tokens), expected, atol=1e-6, rtol=1e-5)


def test_bias_mask_silences_the_keys_alone():
    layer = LinearKMaskedBias(4, 6)
    assert layer.bias_mask.tolist() == [1, 1, 0, 0, 1, 1]
    assert not layer.bias_mask.requires_grad
    torch.nn.init.constant_(layer.bias, 3.0)
    assert_close(layer(torch.zeros(1, 4)), torch.tensor([[3.0, 3, 0, 0, 3, 3]]))


def test_bias_mask_of_a_checkpoint_is_kept_even_if_it_is_all_zero(seeded):
    layer = LinearKMaskedBias(4, 6)
    layer.load_state_dict(layer.state_dict() | {"bias_mask": torch.zeros(6)})
    assert not layer(torch.zeros(1, 4)).any()


def test_bias_mask_that_was_saved_uninitialised_is_replaced(seeded):
    state = LinearKMaskedBias(4, 6).state_dict() | {"bias_mask": torch.full((6,), torch.nan)}
    for assign in (False, True):
        layer = LinearKMaskedBias(4, 6)
        layer.load_state_dict(state, assign=assign)
        assert layer.bias_mask.tolist() == [1, 1, 0, 0, 1, 1]
    assert state["bias_mask"].isnan().all()


def test_without_bias_there_is_no_mask():
    layer = LinearKMaskedBias(4, 6, bias=False)
    layer.load_state_dict({"weight": torch.ones(6, 4)})
    assert_close(layer(torch.ones(1, 4)), torch.full((1, 6), 4.0))
