"""The linear head and the features it reads: numbers, names of Meta's weights, what is trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.eval.segmentation.models.backbone.intermediate_layers import ModelWithIntermediateLayers
from dinov3.eval.segmentation.models.heads.linear_head import LinearHead
from dinov3.layers.lora import apply_lora
from dinov3.models.vision_transformer import DinoVisionTransformer
from tests.dinov3.fake_backbone import FakeBackbone


def make_vit(**kwargs):
    vit = DinoVisionTransformer(
        **{"embed_dim": 32, "depth": 4, "num_heads": 2, "n_storage_tokens": 2, "pos_embed_rope_dtype": "fp32", **kwargs}
    )
    vit.init_weights()
    return vit


def make_model(backbone=None, **kwargs):
    return build_segmentation_decoder(backbone or make_vit(), decoder_type="linear", **{"num_classes": 3, **kwargs})


def randomise_statistics(head):
    torch.nn.init.uniform_(head.batchnorm_layer.running_mean, -1, 1)
    torch.nn.init.uniform_(head.batchnorm_layer.running_var, 0.5, 2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)


def test_head_normalises_and_classifies_each_cell(seeded):
    head = LinearHead([4, 6], 3).eval()
    randomise_statistics(head)
    maps = [torch.randn(2, 4, 5, 7), torch.randn(2, 6, 5, 7)]
    cells = torch.cat(maps, dim=1).permute(0, 2, 3, 1)
    norm = head.batchnorm_layer
    cells = (cells - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    expected = cells @ head.conv.weight[:, :, 0, 0].T + head.conv.bias
    assert_close(head(maps), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_head_resizes_maps_to_the_first(seeded):
    head = LinearHead([2, 2], 3).eval()
    coarse, fine = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 8)
    resized = F.interpolate(fine, size=(3, 4), mode="bilinear", align_corners=False)
    assert_close(head([coarse, fine]), head([coarse, resized]))
    assert head([fine, coarse]).shape == (1, 3, 6, 8)


def test_class_token_is_given_to_every_cell():
    head = LinearHead([1], 1, use_batchnorm=False, use_cls_token=True).eval()
    with torch.no_grad():
        head.conv.weight.copy_(torch.tensor([10.0, 1.0]).reshape(1, 2, 1, 1))  # patch, class token
    level, class_token = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]), torch.tensor([[5.0], [7.0]])
    assert head([(level, class_token)]).flatten().tolist() == [15.0, 25.0, 37.0, 47.0]


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        (
            {},
            {
                "batchnorm_layer.weight": (10,),
                "batchnorm_layer.bias": (10,),
                "batchnorm_layer.running_mean": (10,),
                "batchnorm_layer.running_var": (10,),
                "batchnorm_layer.num_batches_tracked": (),
                "conv.weight": (3, 10, 1, 1),
                "conv.bias": (3,),
            },
        ),
        ({"use_batchnorm": False}, {"conv.weight": (3, 10, 1, 1), "conv.bias": (3,)}),
        ({"use_batchnorm": False, "use_cls_token": True}, {"conv.weight": (3, 20, 1, 1), "conv.bias": (3,)}),
    ],
)
def test_head_names_and_shapes_are_metas(settings, shapes):
    head = LinearHead(in_channels=[4, 6], n_output_channels=3, **settings)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == shapes


def test_dropout_drops_whole_channels_in_training_and_never_in_prediction(seeded):
    head = LinearHead([64], 2, use_batchnorm=False, dropout=0.5).train()
    features = [torch.ones(1, 64, 4, 4)]
    logits = head(features)
    assert_close(logits, logits[..., :1, :1].expand_as(logits))  # channels vanish for all cells at once
    assert (logits - head(features)).abs().max() > 1e-4
    assert_close(head.predict(features, rescale_to=(4, 4)), head.eval()(features))


def test_prediction_is_resized_to_any_size(seeded):
    head, features = LinearHead([4], 3).eval(), [torch.randn(2, 4, 5, 7)]
    expected = F.interpolate(head(features), size=(33, 50), mode="bilinear", align_corners=False)
    assert_close(head.predict(features, rescale_to=(33, 50)), expected)
    assert head.predict(features).shape == (2, 3, 512, 512)


def test_head_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="without maps was asked for; give the channels of at least one map"):
        LinearHead([], 3)
    with pytest.raises(ValueError, match="2 maps were given to a linear head made for 1"):
        LinearHead([4], 3)([torch.zeros(1, 4, 2, 2)] * 2)


@pytest.mark.parametrize(("layers", "maps"), [("LAST", 1), ("FOUR_LAST", 4), ([0, 3], 2)])
def test_model_classifies_patches_of_images_that_are_not_square(layers, maps, seeded):
    model = make_model(backbone_out_layers=layers).eval()
    assert model.segmentation_model[1].in_channels == [32] * maps
    with torch.no_grad():
        assert model(torch.randn(2, 3, 48, 80)).shape == (2, 3, 3, 5)
        assert model.predict(torch.randn(2, 3, 48, 80), rescale_to=(45, 77)).shape == (2, 3, 45, 77)


def test_model_names_are_metas():
    names = set(make_model(backbone_out_layers="LAST").state_dict())
    backbone = {f"segmentation_model.0.feature_model.{name}" for name in make_vit().state_dict()}
    head = {f"segmentation_model.1.{name}" for name in LinearHead([32], 3).state_dict()}
    assert names == backbone | head
    assert len(head) == 7


@pytest.mark.parametrize("norm", [True, False])
def test_features_are_those_of_the_backbone(norm, seeded):
    vit, image = make_vit().eval(), torch.randn(1, 3, 32, 48)
    extractor = ModelWithIntermediateLayers(vit, [1, 3], return_class_token=True, norm=norm)
    expected = vit.get_intermediate_layers(image, n=[1, 3], reshape=True, return_class_token=True, norm=norm)
    for ours, theirs in zip(extractor(image), expected, strict=True):
        assert_close(ours, theirs)


def test_class_token_changes_the_logits_of_the_whole_model(seeded):
    model = make_model(use_cls_token=True, use_batchnorm=False, backbone_out_layers="LAST").eval()
    assert model.segmentation_model[1].conv.weight.shape == (3, 64, 1, 1)
    image = torch.randn(1, 3, 32, 32)
    before = model(image)
    (level, class_token), *_ = model.segmentation_model[0](image)
    weight = model.segmentation_model[1].conv.weight[:, :, 0, 0]
    added = class_token @ weight[:, 32:].T
    assert_close(before - added[:, :, None, None], F.conv2d(level, weight[:, :32, None, None]), atol=1e-5, rtol=1e-4)


def test_frozen_backbone_gets_no_gradient_and_stays_in_eval_mode(seeded):
    model = make_model().train()
    assert model.segmentation_model[1].training
    assert not any(module.training for module in model.backbone.modules())
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if name.startswith("segmentation_model.1.")}


def test_backbone_is_trained_when_asked(seeded):
    model = make_model(freeze_backbone=False).train()
    assert model.backbone.training
    torch.nn.init.normal_(model.segmentation_model[1].conv.weight)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert model.backbone.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert not model.eval().backbone.training


def test_lora_alone_is_trained_with_lora(seeded):
    backbone = apply_lora(make_vit(layerscale_init=1.0), r=2, lora_dropout=0.0)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model = make_model(backbone, lora_enabled=True).train()
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    trained = {name for name, parameter in model.backbone.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.backbone.named_parameters() if "lora_" in name}


def test_other_sizes_are_refused_with_the_next_that_fits():
    model = make_model()
    assert model.size_multiple == 16
    with pytest.raises(ValueError, match="40 x 64 was given .* multiples of 16: pad or resize it to 48 x 64"):
        model(torch.zeros(1, 3, 40, 64))


def test_backbones_without_class_token_are_read_too(seeded):
    assert make_model(FakeBackbone()).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3, 2, 2)


def test_model_learns_one_batch_by_heart(seeded):
    model = make_model(dropout=0.0).train()
    image = torch.randn(2, 3, 64, 64)
    labels = torch.randint(0, 3, (2, 4, 4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(60):
        loss = F.cross_entropy(model(image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (model.eval()(image).argmax(dim=1) == labels).float().mean() > 0.9
