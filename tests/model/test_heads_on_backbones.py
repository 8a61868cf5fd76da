"""Every head on every family: any image size, and gradients where something is trained."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.model.model import ViTSegmentationModel
from nnunetv2.model.model_eomt import EoMTSegmentationModel
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.model_segformer import SegFormerSegmentationModel

pytest.importorskip("timm")
pytest.importorskip("transformers")
M2F = {"hidden_dim": 64, "num_heads": 2, "dim_feedforward": 32, "num_queries": 4, "num_encoder_layers": 1}
HEADS = {
    "upernet": (ViTSegmentationModel, {"hidden_size": 32}),
    "segformer": (SegFormerSegmentationModel, {"decoder_hidden_size": 32}),
    "m2f": (M2FSegmentationModel, {**M2F, "num_decoder_layers": 2}),
    "eomt": (EoMTSegmentationModel, {"num_queries": 4}),
}
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
    network_class, settings = HEADS[head]
    torch.manual_seed(0)
    network = network_class(1, 3, backbone=family, backbone_size=size, tuning="lora", **settings)
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
