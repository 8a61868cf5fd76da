"""The released DINOv2 ViT-S/14, read by timm itself and by us."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.weights.backbone_weights import load_backbone_weights

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def file(shared_folder: Path) -> Path:
    path = shared_folder / "weights" / "dinov2_vits14.safetensors"
    if not path.is_file():
        pytest.skip("needs the released weights of DINOv2 ViT-S/14")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (140, 266)])
def test_features_are_those_of_timms_model_filled_by_timm(file, size):
    theirs = timm.create_model(
        "vit_small_patch14_dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        num_classes=0,
        dynamic_img_size=True,
    ).eval()
    ours = create_backbone("dinov2", "small").eval()
    report = load_backbone_weights(ours, file)
    assert str(report) == f"Backbone weights from {file}: 174 tensors taken, 0 left out, 0 resampled"
    image = torch.rand(1, 3, *size)
    blocks = [2, 5, 8, 11]
    with torch.no_grad():
        expected = theirs.forward_intermediates(image, indices=blocks, norm=True, intermediates_only=True)
        actual = ours.get_intermediate_layers(image, n=blocks, reshape=True)
    torch.testing.assert_close(actual, tuple(expected), atol=1e-5, rtol=1e-5)
    assert actual[0].shape == (1, 384, size[0] // 14, size[1] // 14)


def test_it_is_recognised_where_another_size_is_wanted(file):
    with torch.device("meta"):
        backbone = create_backbone("dinov2", "base")
    with pytest.raises(UsageError, match="set model.backbone=dinov2 model.backbone_size=small, or give other weights"):
        load_backbone_weights(backbone, file)
