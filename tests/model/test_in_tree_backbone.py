"""The DINOv3 transformer of this repository behind the same interface as timm's, with the same results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dinov3.hub.key_conversions import timm_to_meta
from dinov3.layers.lora import apply_lora, merge_lora
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbones import create_backbone
from tests.model.weights.checkpoint_layouts import perturbed

pytest.importorskip("timm")


@pytest.fixture
def both() -> tuple[Backbone, Backbone]:
    """timm's and ours with the same weights."""
    torch.manual_seed(0)
    timms, ours = create_backbone("dinov3", "tiny"), create_backbone("dinov3_native", "tiny")
    perturbed(timms.vit)
    assert ours.vit.load_state_dict(timm_to_meta(timms.vit.state_dict()), strict=False).unexpected_keys == []
    return timms.eval(), ours.eval()


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_features_of_all_blocks_equal_timms(both, norm):
    image = torch.randn(2, 3, 48, 80)
    for reshape in (True, False):
        with torch.no_grad():
            expected, actual = (
                backbone.get_intermediate_layers(image, n=4, reshape=reshape, return_class_token=True, norm=norm)
                for backbone in both
            )
        close(actual, expected)


def test_the_walk_through_the_blocks_equals_timms_also_with_a_mask(both):
    image = torch.randn(2, 3, 48, 80)
    walked = []
    for backbone in both:
        with torch.no_grad():
            tokens, rotation = backbone.embed(image)
            assert tokens.shape == (2, backbone.num_prefix_tokens + 15, 128)
            mask = torch.zeros(1, 1, 20, 20)
            mask[..., 3:, 12] = -torch.inf
            for block in range(backbone.num_blocks):
                tokens = backbone.run_block(block, tokens, rotation, mask if block > 1 else None)
            walked.append(backbone.final_norm(tokens))
    close(walked[1], walked[0])
    without_mask = both[1].get_intermediate_layers(image)[0]
    assert (walked[1][:, 5:] - without_mask).abs().max() > 1e-3


def test_gradients_of_both_are_equal(both):
    image, gradients = torch.randn(1, 3, 32, 48), []
    for backbone in both:
        features = backbone.get_intermediate_layers(image)[0]
        (features * torch.linspace(-1, 1, features.numel()).reshape(features.shape)).sum().backward()
        gradients.append(backbone.vit.patch_embed.proj.weight.grad)
    close(gradients[1], gradients[0])


def test_positions_are_not_random_in_training_so_that_both_train_alike(both):
    image = torch.randn(1, 3, 32, 48)
    timms, ours = (backbone.train().get_intermediate_layers(image)[0] for backbone in both)
    close(ours, timms)


def test_a_frozen_one_stays_in_eval_mode_and_records_nothing():
    backbone = create_backbone("dinov3_native", "tiny")
    backbone.freeze()
    assert not backbone.train().vit.blocks[0].training
    assert not backbone.get_intermediate_layers(torch.zeros(1, 3, 32, 32))[0].requires_grad


def test_lora_adapts_every_block_and_merging_keeps_what_it_learned(both):
    ours, image = both[1], torch.randn(1, 3, 32, 48)
    before = ours.get_intermediate_layers(image)[0].detach()
    ours.freeze()
    apply_lora(ours, r=2)
    trained = [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * ours.num_blocks
    assert all(".lora_" in name for name in trained)
    close(ours.eval().get_intermediate_layers(image)[0].detach(), before)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    learned = ours.get_intermediate_layers(image)[0].detach()
    assert (learned - before).abs().max() > 1e-3
    close(merge_lora(ours).get_intermediate_layers(image)[0].detach(), learned)
    assert set(ours.vit.state_dict()) == set(create_backbone("dinov3_native", "tiny").vit.state_dict())


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels_can_be_built(channels):
    backbone = create_backbone("dinov3_native", "tiny", in_channels=channels)
    assert backbone.in_channels == channels
    maps: Tensor = backbone.get_intermediate_layers(torch.zeros(1, channels, 32, 32), reshape=True)[0]
    assert maps.shape == (1, 128, 2, 2)
