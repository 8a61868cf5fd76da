"""timm's vision transformers on images of any size and number of channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nnunetv2.model.backbones import TimmBackbone

timm = pytest.importorskip("timm")
TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 0, "dynamic_img_size": True}
MODELS = [("vit_tiny_patch16_224", 16), ("vit_small_patch14_reg4_dinov2", 14), ("vit_small_patch16_dinov3", 16)]


@pytest.mark.parametrize(("name", "patch_size"), MODELS)
def test_maps_have_a_cell_per_patch_of_images_that_are_not_square(seeded, name, patch_size):
    backbone = TimmBackbone(timm.create_model(name, **TINY)).eval()
    image = torch.randn(1, 3, 2 * patch_size, 5 * patch_size)
    with torch.no_grad():
        (maps,) = backbone.get_intermediate_layers(image, n=[1], reshape=True)
        with pytest.raises(AssertionError, match="should be divisible by patch size"):
            backbone.get_intermediate_layers(image[..., 1:], n=[1])
    assert maps.shape == (1, 32, 2, 5)


def test_one_channel_takes_the_sum_of_the_weights_of_three(seeded, tmp_path):
    coloured = timm.create_model("vit_small_patch16_dinov3", **TINY)
    torch.save(coloured.state_dict(), tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth")}
    grey = timm.create_model(
        "vit_small_patch16_dinov3", pretrained=True, pretrained_cfg_overlay=source, in_chans=1, **TINY
    )
    weight = coloured.patch_embed.proj.weight
    assert_close(grey.patch_embed.proj.weight, nn.Parameter(weight.sum(dim=1, keepdim=True)))
