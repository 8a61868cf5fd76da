"""LoRA: which layers it adapts, that it has an effect, and that merging keeps it."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.layers.lora import add_lora_to_weights, apply_lora, merge_lora, trainable_report
from tests.dinov3.fake_backbone import FakeBackbone

BLOCKS = [0, 1, 2, 3]


def features(backbone, image):
    with torch.no_grad():
        return backbone.eval().get_intermediate_layers(image, n=BLOCKS, reshape=True)[-1]


def lora_names(module):
    return [name for name, _ in module.named_modules() if name.endswith("lora_A.default")]


def train_a_little(backbone):
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def make_timm_vit(name):
    timm = pytest.importorskip("timm")
    return timm.create_model(name, depth=2, embed_dim=32, num_heads=2, num_classes=0)


def test_lora_adapts_the_targets_of_every_block_and_nothing_else():
    backbone = apply_lora(FakeBackbone(), r=2)
    assert len(lora_names(backbone)) == 4 * 2
    assert not any("patch_embed" in name for name in lora_names(backbone))
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in backbone.named_parameters() if "lora_" in name}


def test_lora_changes_nothing_until_trained_and_merging_keeps_what_was_trained(seeded):
    backbone, image = FakeBackbone(), torch.randn(1, 3, 32, 32)
    names, before = set(backbone.state_dict()), features(backbone, image)
    apply_lora(backbone, r=2)
    assert_close(features(backbone, image), before)
    train_a_little(backbone)
    trained = features(backbone, image)
    assert (trained - before).abs().max() > 1e-2
    merge_lora(backbone)
    assert set(backbone.state_dict()) == names
    assert_close(features(backbone, image), trained, atol=1e-5, rtol=1e-4)
    merge_lora(backbone)
    assert_close(features(backbone, image), trained, atol=1e-5, rtol=1e-4)


def test_gradients_reach_lora_through_the_adapter(seeded):
    backbone = apply_lora(FakeBackbone(), r=2, lora_dropout=0.0)
    train_a_little(backbone)
    model = build_segmentation_decoder(
        backbone, hidden_dim=32, num_classes=2, num_heads=4, lora_enabled=True, num_queries=4, num_decoder_layers=1
    ).train()
    outputs = model(torch.randn(2, 3, 64, 64))
    (outputs["pred_masks"].square().mean() + outputs["pred_logits"].square().mean()).backward()
    grown = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert grown == {name for name, _ in backbone.named_parameters() if "lora_" in name}
    assert all(p.grad.any() for name, p in backbone.named_parameters() if "lora_A" in name)


def test_lora_works_on_a_timm_model_held_by_a_wrapper(seeded):
    wrapper = torch.nn.Module()
    wrapper.model = make_timm_vit("vit_small_patch16_dinov3")
    apply_lora(wrapper, r=2)
    assert len(lora_names(wrapper)) == 2 * 2
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = wrapper.eval().model.forward_features(image)
        train_a_little(wrapper)
        changed = (wrapper.model.forward_features(image) - before).abs().max()
    assert changed > 1e-4  # a fresh block is scaled with 1e-5


def test_lora_refuses_timm_models_that_read_past_the_layer():
    with pytest.raises(ValueError, match=r"LoRA on blocks\.0\.attn\.qkv would have no effect.*without _qkvb"):
        apply_lora(make_timm_vit("vit_small_patch16_dinov3_qkvb"))


def test_lora_on_other_layers_of_such_models_is_accepted():
    backbone = apply_lora(make_timm_vit("vit_small_patch16_dinov3_qkvb"), r=2, target_modules=["proj", "fc1"])
    assert len(lora_names(backbone)) == 2 * 2


def test_lora_refuses_targets_that_do_not_exist():
    with pytest.raises(ValueError, match="'to_q', which is no linear layer .* choose from: proj, qkv"):
        apply_lora(FakeBackbone(), target_modules=["qkv", "to_q"])


def test_report_counts_what_is_trained():
    layer = torch.nn.Linear(999, 1000)
    layer.weight.requires_grad_(False)
    assert trainable_report(layer) == "0.001 M of 1.000 M parameters are trained (0.10%)"


def test_updates_added_in_place_keep_the_output_and_the_names(seeded):
    backbone, image = apply_lora(FakeBackbone(), r=2), torch.randn(1, 3, 32, 32)
    train_a_little(backbone)
    trained, names = features(backbone, image), list(backbone.state_dict())
    checkpoint = {name: value.clone() for name, value in backbone.state_dict().items()}
    for _ in range(2):
        add_lora_to_weights(backbone)
        add_lora_to_weights(backbone)  # adds nothing a second time
        assert list(backbone.state_dict()) == names
        assert_close(features(backbone, image), trained, atol=1e-5, rtol=1e-4)
        changed = [name for name, value in backbone.state_dict().items() if not torch.equal(value, checkpoint[name])]
        assert changed == [name for name in names if name.endswith("base_layer.weight")]
        backbone.load_state_dict(checkpoint)
        assert torch.equal(features(backbone, image), trained)


def test_no_update_is_computed_once_it_is_added(seeded):
    backbone, image = apply_lora(FakeBackbone(), r=2), torch.randn(1, 3, 32, 32)
    calls = []
    for name in lora_names(backbone):
        backbone.get_submodule(name).register_forward_hook(lambda *_: calls.append(1))
    features(backbone, image)
    assert len(calls) == 4 * 2
    add_lora_to_weights(backbone)
    features(backbone, image)
    assert len(calls) == 4 * 2
