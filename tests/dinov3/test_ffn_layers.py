"""Feed-forward layers: their widths, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from dinov3.layers.ffn_layers import make_ffn
from dinov3.layers.norms import make_norm


@pytest.mark.parametrize(
    ("name", "dim", "ratio", "width"),
    [
        ("mlp", 384, 4, 1536),
        ("swiglu", 384, 6, 1536),
        ("swiglu", 1280, 6, 5120),
        ("swiglu64", 4096, 3, 8192),
        ("swiglu", 10, 4, 32),  # two thirds of 40 are 26
        ("swiglu32", 50, 4, 160),  # 133
        ("swiglu64", 50, 4, 192),
        ("swiglu128", 50, 4, 256),
    ],
)
def test_hidden_width(name, dim, ratio, width):
    layer = make_ffn(name, dim, dim * ratio, device="meta")
    first = layer.fc1 if name == "mlp" else layer.w1
    assert first.weight.shape == (width, dim)


def test_gated_layer_by_hand():
    layer = make_ffn("swiglu", 1, 12, bias=False)
    for weights, value in ((layer.w1, 2.0), (layer.w2, 3.0), (layer.w3, 0.125)):
        torch.nn.init.constant_(weights.weight, value)
    gate = 2 / (1 + math.exp(-2))  # SiLU of 2
    assert_close(layer(torch.ones(1)), torch.tensor([8 * 0.125 * gate * 3]))


def test_plain_layer_by_hand():
    layer = make_ffn("mlp", 1, 2, bias=False)
    torch.nn.init.ones_(layer.fc1.weight)
    torch.nn.init.ones_(layer.fc2.weight)
    assert_close(layer(torch.tensor([-1.0])), torch.tensor([-1.0]) * (1 + math.erf(-1 / math.sqrt(2))))


@pytest.mark.parametrize(("name", "epsilon"), [("layernorm", 1e-6), ("layernormbf16", 1e-5), ("rmsnorm", 1e-5)])
def test_norms_have_the_epsilon_of_the_original(name, epsilon):
    assert make_norm(name, 4).eps == epsilon


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="ffn_layer 'relu' is unknown; choose one of mlp, swiglu, swiglu32"):
        make_ffn("relu", 4, 8)
    with pytest.raises(ValueError, match="norm_layer 'batch' is unknown; choose one of layernorm, layernormbf16"):
        make_norm("batch", 4)
