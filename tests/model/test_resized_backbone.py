"""A backbone with patches of 14 pixels seen as one with patches of 16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.resized_backbone import ResizedBackbone, with_patches_of_16

pytest.importorskip("timm")
SMALL = {"hidden_dim": 32, "num_heads": 2, "dim_feedforward": 32, "num_queries": 4, "num_encoder_layers": 1}


def resized() -> ResizedBackbone:
    torch.manual_seed(0)
    return ResizedBackbone(create_backbone("dinov2", "tiny"))


def test_maps_are_those_of_the_image_made_smaller():
    backbone = resized().eval()
    image = torch.randn(1, 3, 64, 96)
    smaller = F.interpolate(image, size=(56, 84), mode="bilinear", align_corners=False, antialias=True)
    with torch.no_grad():
        (maps,) = backbone.get_intermediate_layers(image, n=[2], reshape=True)
        (expected,) = backbone.backbone.get_intermediate_layers(smaller, n=[2], reshape=True)
    assert maps.shape == (1, 128, 4, 6)
    torch.testing.assert_close(maps, expected)
    assert (backbone.patch_size, backbone.embed_dim, backbone.n_blocks) == (16, 128, 4)


def test_an_image_that_patches_of_16_do_not_tile_is_refused():
    with pytest.raises(ValueError, match=r"\(56, 64\) pixels; height and width must be multiples of 16"):
        resized().get_intermediate_layers(torch.zeros(1, 3, 56, 64))


def test_freezing_reaches_through_it():
    backbone = resized()
    backbone.backbone.freeze()
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.backbone.modules())
    image = torch.randn(1, 3, 32, 32)
    assert not backbone.get_intermediate_layers(image)[0].requires_grad
    image.requires_grad_()
    backbone.get_intermediate_layers(image)[0].square().sum().backward()
    assert image.grad.abs().sum() > 0


def test_a_backbone_with_patches_of_16_is_left_as_it_is():
    backbone = create_backbone("visionfm", "tiny")
    assert with_patches_of_16(backbone) is backbone
    keys = M2FSegmentationModel(1, 2, backbone="visionfm", backbone_size="tiny", **SMALL).state_dict()
    assert "decoder.segmentation_model.0.backbone.vit.cls_token" in keys


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_mask2former_sees_a_grid_of_16_and_its_backbone_is_the_real_one(tuning):
    network = M2FSegmentationModel(1, 2, backbone="dinov2", backbone_size="tiny", tuning=tuning, **SMALL).train()
    assert network.backbone.patch_size == 14
    assert network.backbone.vit.training == (tuning == "lora")
    seen = []
    network.backbone.vit.patch_embed.register_forward_hook(lambda _, images, __: seen.append(images[0].shape))
    queries = network(torch.randn(2, 1, 50, 70), return_queries=True)
    assert seen == [(2, 3, 56, 84)]  # of 64 x 96, the next multiples of 32
    (queries["pred_masks"].square().mean() + queries["pred_logits"].square().mean()).backward()
    trained = {name for name, p in network.backbone.named_parameters() if p.grad is not None}
    assert bool(trained) == (tuning == "lora")
    assert all(".lora_" in name for name in trained)
