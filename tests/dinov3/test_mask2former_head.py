"""Pixel decoder, mask transformer and head: names of released weights, and transformers' decoders as oracle."""

from __future__ import annotations

import re

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models.heads.mask2former_head import Mask2FormerHead
from dinov3.eval.segmentation.models.heads.pixel_decoder import MSDeformAttnPixelDecoder
from tests.dinov3.meta_tensors import meta_tensors
from tests.recorded.make_meta_segmentation import fill

NAMES = ("1", "2", "3", "4")


def make_head(channels=24, hidden_dim=32, num_classes=3, **kwargs):
    settings = {"num_heads": 4, "dim_feedforward": 48, "num_queries": 6, "num_decoder_layers": 4, **kwargs}
    return Mask2FormerHead(dict.fromkeys(NAMES, (channels,)), hidden_dim, num_classes, num_encoder_layers=2, **settings)


def make_pyramid(batch=2, channels=24, dtype=torch.float32):
    sizes = {"1": (16, 24), "2": (8, 12), "3": (4, 6), "4": (2, 3)}
    return {name: torch.randn(batch, channels, *size, dtype=dtype) for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("embed_dim", "hidden_dim", "num_parameters"),
    [
        (384, 2048, 669_926_935),
        (768, 2048, 673_072_663),
        (1024, 2048, 675_169_815),
        (1280, 2048, 677_266_967),
        (4096, 2048, 700_335_639),
        (768, 256, 39_692_055),
    ],
)
def test_head_has_the_tensors_of_released_weights(embed_dim, hidden_dim, num_parameters):
    with meta_tensors():
        head = Mask2FormerHead(dict.fromkeys(NAMES, (embed_dim,)), hidden_dim)
    assert len(head.state_dict()) == 292
    assert sum(parameter.numel() for parameter in head.parameters()) == num_parameters
    if hidden_dim == 2048:
        assert sum(parameter.numel() for parameter in head.predictor.parameters()) == 466_616_471


def test_head_names_and_shapes_are_those_of_released_weights():
    with meta_tensors():
        head = Mask2FormerHead(dict.fromkeys(NAMES, (4096,)))
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    expected = {
        "pixel_decoder.input_convs.0.0.weight": (2048, 4096, 1, 1),
        "pixel_decoder.input_convs.2.1.bias": (2048,),
        "pixel_decoder.encoder.level_encoding": (3, 2048),
        "pixel_decoder.encoder.encoder.layers.5.self_attn.sampling_offsets.weight": (384, 2048),
        "pixel_decoder.encoder.encoder.layers.0.self_attn.attention_weights.weight": (192, 2048),
        "pixel_decoder.encoder.encoder.layers.0.linear1.weight": (4096, 2048),
        "pixel_decoder.encoder.encoder.layers.0.norm2.bias": (2048,),
        "pixel_decoder.mask_feature.bias": (2048,),
        "pixel_decoder.lateral_convs.0.weight": (2048, 4096, 1, 1),
        "pixel_decoder.lateral_convs.0.norm.weight": (2048,),
        "pixel_decoder.output_convs.0.weight": (2048, 2048, 3, 3),
        "predictor.transformer_self_attention_layers.0.self_attn.in_proj_weight": (6144, 2048),
        "predictor.transformer_self_attention_layers.8.self_attn.out_proj.bias": (2048,),
        "predictor.transformer_cross_attention_layers.8.multihead_attn.in_proj_bias": (6144,),
        "predictor.transformer_cross_attention_layers.8.norm.weight": (2048,),
        "predictor.transformer_ffn_layers.3.linear2.weight": (2048, 4096),
        "predictor.transformer_ffn_layers.3.norm.bias": (2048,),
        "predictor.post_norm.weight": (2048,),
        "predictor.query_feat.weight": (100, 2048),
        "predictor.query_embed.weight": (100, 2048),
        "predictor.level_embed.weight": (3, 2048),
        "predictor.class_embed.weight": (151, 2048),
        "predictor.mask_embed.layers.2.weight": (2048, 2048),
    }
    assert {key: shapes.get(key) for key in expected} == expected


def hf_config(head, hidden_dim=32):
    from transformers import Mask2FormerConfig

    return Mask2FormerConfig(
        feature_size=hidden_dim,
        mask_feature_size=hidden_dim,
        hidden_dim=hidden_dim,
        encoder_feedforward_dim=48,
        dim_feedforward=48,
        num_attention_heads=4,
        encoder_layers=2,
        decoder_layers=5,
        num_queries=6,
        dropout=0.0,
        pre_norm=False,
    )


def assert_equal_to_largest(ours, theirs, tolerance=1e-5):
    """Compares with a tolerance in units of the largest element."""
    assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.detach().abs().max()))


def load_renamed(theirs, state, renames):
    """Loads our tensors strictly under their names."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        if key.endswith(("self_attn.in_proj_weight", "self_attn.in_proj_bias")):
            stem, _, kind = key.rpartition("in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{stem}{letter}_proj.{kind}"] = third
        else:
            renamed[key] = value
    theirs.load_state_dict(renamed)


def test_pixel_decoder_equals_transformers_with_the_same_weights(seeded):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

    head, pyramid = fill(make_head()), make_pyramid()
    theirs = Mask2FormerPixelDecoder(hf_config(head), [24] * 4)
    names = [
        (r"^input_convs", "input_projections"),
        (r"^encoder\.level_encoding", "level_embed"),
        (r"^encoder\.encoder\.layers", "encoder.layers"),
        (r"\.norm1\.", ".self_attn_layer_norm."),
        (r"\.norm2\.", ".final_layer_norm."),
        (r"\.linear(\d)\.", r".fc\1."),
        (r"^mask_feature\.", "mask_projection."),
        (r"^lateral_convs\.0\.norm", "adapter_1.1"),
        (r"^lateral_convs\.0", "adapter_1.0"),
        (r"^output_convs\.0\.norm", "layer_1.1"),
        (r"^output_convs\.0", "layer_1.0"),
    ]
    load_renamed(theirs, head.pixel_decoder.state_dict(), names)
    expected = theirs([pyramid[name] for name in NAMES], output_hidden_states=False, return_dict=True)
    mask_features, levels = head.pixel_decoder(pyramid)
    assert_equal_to_largest(mask_features, expected.mask_features)
    for ours, level in zip(levels, expected.multi_scale_features, strict=True):
        assert_equal_to_largest(ours, level)


def test_mask_transformer_equals_transformers_with_the_same_weights(seeded):
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule

    head = fill(make_head())
    predictor = head.predictor
    theirs = Mask2FormerTransformerModule(32, hf_config(head))
    names = [
        (r"^query_feat", "queries_features"),
        (r"^query_embed", "queries_embedder"),
        (r"^post_norm", "decoder.layernorm"),
        (r"^mask_embed\.layers\.(\d)", r"decoder.mask_predictor.mask_embedder.\1.0"),
        (r"^transformer_self_attention_layers\.(\d)\.norm", r"decoder.layers.\1.self_attn_layer_norm"),
        (r"^transformer_cross_attention_layers\.(\d)\.norm", r"decoder.layers.\1.cross_attn_layer_norm"),
        (r"^transformer_ffn_layers\.(\d)\.norm", r"decoder.layers.\1.final_layer_norm"),
        (r"^transformer_(?:self_attention|cross_attention|ffn)_layers", "decoder.layers"),
        (r"multihead_attn", "cross_attn"),
        (r"\.linear(\d)\.", r".fc\1."),
    ]
    state = {key: value for key, value in predictor.state_dict().items() if not key.startswith("class_embed")}
    load_renamed(theirs, state, names)
    mask_features, levels = torch.randn(2, 32, 16, 24), [torch.randn(2, 32, 2 << i, 3 << i) for i in range(3)]
    expected = theirs.eval()(levels, mask_features)
    outputs = predictor(levels, mask_features)
    ours = [*outputs["aux_outputs"], outputs]
    assert len(ours) == len(expected.masks_queries_logits) == 5
    for prediction, masks, states in zip(
        ours, expected.masks_queries_logits, expected.intermediate_hidden_states, strict=True
    ):
        covered = (prediction["pred_masks"] > 0).float().mean()
        assert 0.01 < covered < 0.99  # the masks restrict attention
        assert_equal_to_largest(prediction["pred_masks"], masks)
        assert_equal_to_largest(prediction["pred_logits"], predictor.class_embed(states.transpose(0, 1)))


def test_head_predicts_once_before_and_once_after_each_layer(seeded):
    outputs = make_head(num_decoder_layers=9)(make_pyramid())
    assert outputs["pred_logits"].shape == (2, 6, 4)
    assert outputs["pred_masks"].shape == (2, 6, 16, 24)
    assert len(outputs["aux_outputs"]) == 9
    assert {tuple(aux["pred_masks"].shape) for aux in outputs["aux_outputs"]} == {(2, 6, 16, 24)}


def test_predict_resizes_the_masks_only(seeded):
    head, pyramid = make_head().eval(), make_pyramid()
    outputs, resized = head(pyramid), head.predict(pyramid, rescale_to=(64, 96))
    assert resized["pred_masks"].shape == (2, 6, 64, 96)
    assert_close(resized["pred_logits"], outputs["pred_logits"])


def test_images_of_a_batch_do_not_influence_each_other(seeded):
    head, pyramid = make_head().eval(), make_pyramid()
    alone = head({name: level[1:] for name, level in pyramid.items()})
    assert_close(head(pyramid)["pred_masks"][1:], alone["pred_masks"], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter_and_are_finite_when_masks_cover_nothing(seeded):
    head, pyramid = make_head(), make_pyramid()
    outputs = head({name: level.requires_grad_() for name, level in pyramid.items()})
    sum(p["pred_logits"].sum() + p["pred_masks"].square().mean() for p in (outputs, *outputs["aux_outputs"])).backward()
    missing = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert head.predictor.query_feat.weight.grad.abs().sum() > 0

    head.zero_grad()
    for layer in head.predictor.mask_embed.layers:  # masks of -1: every row of the attention masks is opened
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(head.predictor.mask_embed.layers[-1].bias)
    levels = [torch.randn(2, 32, 2 << i, 3 << i) for i in range(3)]
    outputs = head.predictor(levels, torch.full((2, 32, 16, 24), -1 / 32))
    assert (outputs["pred_masks"] < 0).all()
    outputs["pred_logits"].sum().backward()
    assert head.predictor.query_feat.weight.grad.isfinite().all()


def test_head_runs_in_bfloat16(seeded):
    head = make_head().bfloat16()
    outputs = head(make_pyramid(dtype=torch.bfloat16))
    assert outputs["pred_masks"].dtype == torch.bfloat16
    assert outputs["pred_masks"].isfinite().all()


def test_pixel_decoder_refuses_channels_that_its_norms_cannot_group():
    with pytest.raises(ValueError, match="hidden_dim of 40 was given; its group norms need a multiple of 32"):
        MSDeformAttnPixelDecoder(dict.fromkeys(NAMES, 8), hidden_dim=40)


def test_head_takes_the_arguments_of_the_original(seeded):
    shape = {name: [24, side, side, 4] for name, side in zip(NAMES, (64, 32, 16, 8), strict=True)}
    head = Mask2FormerHead(input_shape=shape, hidden_dim=32, num_classes=5, ignore_value=255, num_encoder_layers=1)
    assert head(make_pyramid())["pred_logits"].shape == (2, 100, 6)


@pytest.mark.parametrize("batch", [1, 2])
def test_pixel_decoder_refuses_maps_with_one_value_per_group(batch):
    pyramid = {name: torch.ones(batch, 8, side, side) for name, side in zip(NAMES, (8, 4, 2, 1), strict=True)}
    channels = dict.fromkeys(NAMES, 8)
    with pytest.raises(ValueError, match="coarsest map of 1 x 1 .* groups of 32 channels has one value.*hidden_dim=64"):
        MSDeformAttnPixelDecoder(channels, hidden_dim=32, num_layers=1)(pyramid)
    features, _ = MSDeformAttnPixelDecoder(channels, hidden_dim=64, num_layers=1)(pyramid)
    assert features.isfinite().all()


def test_pixel_decoder_refuses_missing_maps():
    with pytest.raises(ValueError, match=r"\['2', '4'\] are missing"):
        MSDeformAttnPixelDecoder({"1": 8, "3": 8}, hidden_dim=32)
