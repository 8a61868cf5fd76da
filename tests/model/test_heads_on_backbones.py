"""Every head on every family: any image size, and gradients where something is trained."""

from __future__ import annotations

import pytest
import torch

from tests.model.heads.small import HEADS, small_network

BACKBONES = [
    ("dinov2", "tiny"),
    ("dinov3_native", "tiny"),
    ("dinov2", "tiny_reg"),
    ("retfound", "tiny"),
    ("visionfm", "tiny"),
]
SLOW = BACKBONES[2:]  # like one of the first two for every head, or like each other


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("family", "size"), [pytest.param(*b, marks=[pytest.mark.slow] if b in SLOW else []) for b in BACKBONES]
)
def test_a_head_segments_images_of_any_size_and_trains_with_lora(head, family, size):
    torch.manual_seed(0)
    network = small_network(head, 3, backbone=family, backbone_size=size, tuning="lora")
    for height, width in ((50, 71), (7, 5)):
        with torch.no_grad():
            logits = network.eval()(torch.randn(1, 1, height, width))
        assert logits.shape == (1, 3, height, width)
        assert logits.isfinite().all()
    output = network.train()(torch.randn(2, 1, 40, 60))
    (output * torch.randn_like(output)).sum().backward()
    parameters = dict(network.named_parameters())
    assert [name for name, p in parameters.items() if p.requires_grad and p.grad is None] == []
    assert [name for name, p in parameters.items() if not p.requires_grad and p.grad is not None] == []
    assert any(".lora_" in name for name in parameters)
