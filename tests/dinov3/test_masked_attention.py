"""The predictor's attention against `nn.MultiheadAttention`, and its masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov3.eval.segmentation.models.heads.mask2former_transformer_decoder import attention_mask
from dinov3.eval.segmentation.models.heads.masked_attention import MultiheadAttention


def test_attention_equals_torch_with_the_same_weights(seeded):
    ours, theirs = MultiheadAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    allowed = torch.rand(2, 1, 5, 7) > 0.4
    allowed[..., 0] = True
    forbidden = ~allowed.expand(-1, 4, -1, -1).flatten(0, 1)
    assert_close(ours(query, key, value, allowed), theirs(query, key, value, attn_mask=forbidden)[0])
    assert_close(ours(query, query, query), theirs(query, query, query)[0])


def test_attention_refuses_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="10 channels cannot be divided among 4 heads"):
        MultiheadAttention(10, 4)


def test_mask_allows_what_the_query_covers():
    logits = torch.tensor([[-1.0, 2.0], [0.0, -3.0]])[None, None].requires_grad_()
    allowed = attention_mask(logits, (2, 2))
    assert allowed.tolist() == [[[[False, True, True, False]]]]
    assert not allowed.requires_grad


def test_mask_that_covers_nothing_is_opened():
    logits = torch.full((1, 3, 4, 4), -1.0)
    logits[0, 1] = float("nan")
    logits[0, 2, 0, 0] = 5.0
    allowed = attention_mask(logits, (4, 4))
    assert allowed[0, 0].sum(dim=-1).tolist() == [16, 16, 1]


def test_mask_is_interpolated_before_it_is_thresholded():
    logits = torch.tensor([[3.0, -1.0], [-1.0, -1.0]])[None, None]
    assert attention_mask(logits, (1, 1)).item()  # the mean of the four is exactly 0, a probability of one half
    assert attention_mask(logits - 0.1, (1, 1)).item()  # nothing is covered, so all is open
    wide = torch.tensor([[3.0, -1.1, -1.1, -9.0], [-1.1, -1.1, -9.0, 19.4]])[None, None]
    assert attention_mask(wide, (1, 2)).flatten().tolist() == [False, True]


def test_cells_whose_probability_rounds_to_one_half_are_looked_at():
    logits = torch.tensor([[-1e-3, -1.0], [2.0, 0.0]])[None, None]
    assert attention_mask(logits, (2, 2)).flatten().tolist() == [False, False, True, True]
    assert attention_mask(logits.bfloat16(), (2, 2)).flatten().tolist() == [True, False, True, True]
