"""Same weights, same numbers: our vision transformer beside timm's and Hugging Face's."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch.testing import assert_close

from dinov3.hub.architectures import SIZES, constructor_arguments
from dinov3.hub.key_conversions import meta_to_hf, meta_to_timm
from dinov3.models.vision_transformer import DinoVisionTransformer
from tests.dinov3.vit_weights import randomise, tiny_vit

BLOCKS = [2, 5, 8, 11]


@functools.cache
def small_vit(name):
    model = DinoVisionTransformer(**constructor_arguments(SIZES[name]))
    randomise(model)
    return model.eval()


def hugging_face_vit(ours):
    transformers = pytest.importorskip("transformers")
    is_gated = not hasattr(ours.blocks[0].mlp, "fc1")
    config = transformers.DINOv3ViTConfig(
        hidden_size=ours.embed_dim,
        num_hidden_layers=ours.n_blocks,
        num_attention_heads=ours.num_heads,
        intermediate_size=4 * ours.embed_dim,
        use_gated_mlp=is_gated,
        hidden_act="silu" if is_gated else "gelu",
        num_register_tokens=ours.n_storage_tokens,
    )
    theirs = transformers.DINOv3ViTModel(config).eval()
    theirs.load_state_dict(meta_to_hf(ours.state_dict()))
    return theirs


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        ("dinov3_vits16", "vit_small_patch16_dinov3"),
        ("dinov3_vits16", "vit_small_patch16_dinov3_qkvb"),
        ("dinov3_vits16plus", "vit_small_plus_patch16_dinov3"),
    ],
)
@torch.no_grad()
def test_four_layers_and_class_tokens_equal_timm(name, timm_name, seeded):
    timm = pytest.importorskip("timm")
    has_bias = timm_name.endswith("_qkvb")
    ours, theirs = copy.deepcopy(small_vit(name)), timm.create_model(timm_name, num_classes=0).eval()
    if not has_bias:  # the released weights are masked throughout
        for block in ours.blocks:
            block.attn.qkv.bias_mask.zero_()
    theirs.load_state_dict(meta_to_timm(ours.state_dict(), qkv_bias=has_bias))
    image = torch.randn(1, 3, 224, 160)
    expected = theirs.forward_intermediates(
        image, indices=BLOCKS, norm=True, intermediates_only=True, return_prefix_tokens=True
    )
    layers = ours.get_intermediate_layers(
        image, n=BLOCKS, reshape=True, return_class_token=True, return_extra_tokens=True
    )
    for (maps, class_token, storage_tokens), (their_maps, prefix) in zip(layers, expected, strict=True):
        assert maps.shape == (1, 384, 14, 10) and maps.std() > 0.3
        assert_close(maps, their_maps, atol=1e-6, rtol=0)
        assert_close(class_token, prefix[:, 0], atol=1e-6, rtol=0)
        assert_close(storage_tokens, prefix[:, 1:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["dinov3_vits16", "dinov3_vits16plus"])
@torch.no_grad()
def test_all_tokens_equal_hugging_face(name, seeded):
    ours = small_vit(name)
    theirs = hugging_face_vit(ours)
    image = torch.randn(2, 3, 96, 160)
    expected = theirs(image, output_hidden_states=True)
    layers = ours.get_intermediate_layers(image, n=BLOCKS)
    for block, layer in zip(BLOCKS, layers, strict=True):
        assert_close(layer, theirs.norm(expected.hidden_states[block + 1])[:, 5:], atol=3e-6, rtol=0)
    features = ours.forward_features(image)
    assert_close(features["x_norm_clstoken"], expected.pooler_output, atol=3e-6, rtol=0)
    assert_close(features["x_storage_tokens"], expected.last_hidden_state[:, 1:5], atol=3e-6, rtol=0)
    assert_close(features["x_norm_patchtokens"], expected.last_hidden_state[:, 5:], atol=3e-6, rtol=0)


@torch.no_grad()
def test_masked_patches_equal_hugging_face(seeded):
    ours = tiny_vit()
    theirs = hugging_face_vit(ours)
    image, masks = torch.randn(2, 3, 64, 48), torch.rand(2, 12) < 0.5
    expected = theirs(image, bool_masked_pos=masks)
    assert_close(ours(image, masks), expected.pooler_output, atol=3e-6, rtol=0)
    assert (ours(image, masks) - ours(image)).abs().max() > 1e-2
