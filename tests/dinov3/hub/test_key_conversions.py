"""Conversions between the state dicts of Meta, timm and Hugging Face, checked with the models of the latter two."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from dinov3.hub.key_conversions import detect_format, hf_to_meta, meta_to_hf, meta_to_timm, timm_to_meta, to_meta
from dinov3.utils.errors import DataError
from tests.dinov3.hub.tiny_weights import DEPTH, HEADS, STORAGE_TOKENS, TINY, WIDTH, meta_weights

with warnings.catch_warnings():  # timm 1.0.22 uses what torch 2.14 deprecates
    warnings.filterwarnings("ignore", category=FutureWarning)
    import timm

ONLY_META_HAS = {"rope_embed.periods"} | {f"blocks.{block}.attn.qkv.bias_mask" for block in range(DEPTH)}
QKV_BIASES = {f"blocks.{block}.attn.qkv.bias" for block in range(DEPTH)}


def timm_model(name: str, **kwargs: object) -> nn.Module:
    return timm.create_model(name, num_classes=0, **TINY, **kwargs).eval()


def transformers_model(*, gated: bool = False, **kwargs: object) -> nn.Module:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_register_tokens=STORAGE_TOKENS,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        **kwargs,
    )
    return DINOv3ViTModel(config).eval()


def with_biases(weights: dict[str, Tensor], *, keys: bool = False) -> dict[str, Tensor]:
    """Weights whose queries and values have a bias that counts; that of the keys is there, and masked unless `keys`."""
    weights = dict(weights)
    mask = torch.ones(3 * WIDTH)
    mask[WIDTH : 2 * WIDTH] = float(keys)
    for block in range(DEPTH):
        weights[f"blocks.{block}.attn.qkv.bias"] = torch.randn(
            3 * WIDTH, generator=torch.Generator().manual_seed(block)
        )
        weights[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    return weights


def tokens_of_timm(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model.forward_features(image)


def tokens_of_transformers(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image).last_hidden_state


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("name", "gated"), [("vit_small_patch16_dinov3", False), ("vit_small_plus_patch16_dinov3", True)]
)
def test_one_set_of_weights_means_the_same_to_timm_and_transformers(name, gated, image):
    weights = meta_weights(gated=gated)
    ours = timm_model(name, mlp_ratio=4) if gated else timm_model(name)
    theirs = transformers_model(gated=gated)
    ours.load_state_dict(meta_to_timm(weights), strict=True)
    theirs.load_state_dict(meta_to_hf(weights), strict=True)
    torch.testing.assert_close(tokens_of_timm(ours, image), tokens_of_transformers(theirs, image), atol=1e-5, rtol=1e-5)


def test_biases_of_queries_and_values_mean_the_same_to_both(image):
    weights = with_biases(meta_weights())
    ours, theirs = timm_model("vit_small_patch16_dinov3_qkvb"), transformers_model()
    ours.load_state_dict(meta_to_timm(weights, qkv_bias=True), strict=True)
    theirs.load_state_dict(meta_to_hf(weights), strict=True)
    torch.testing.assert_close(tokens_of_timm(ours, image), tokens_of_transformers(theirs, image), atol=1e-5, rtol=1e-5)


def test_a_bias_on_the_keys_that_counts_goes_to_transformers_only():
    weights = with_biases(meta_weights(), keys=True)
    transformers_model(key_bias=True).load_state_dict(meta_to_hf(weights), strict=True)
    with pytest.raises(DataError, match="Block 0 has a bias on its keys"):
        meta_to_timm(weights, qkv_bias=True)


def test_a_bias_that_counts_is_not_dropped_for_timms_plain_models():
    with pytest.raises(DataError, match=r"Block 0 has a bias on its queries or values.*qkv_bias=True"):
        meta_to_timm(with_biases(meta_weights()))


@pytest.mark.parametrize("mask", [0.0, float("nan")])
def test_a_bias_counts_as_far_as_its_mask_lets_it(mask):
    weights = with_biases(meta_weights())
    weights["blocks.1.attn.qkv.bias_mask"] = torch.full((3 * WIDTH,), mask)
    converted = meta_to_timm(weights, qkv_bias=True)
    bias = weights["blocks.1.attn.qkv.bias"]
    expected = bias[:WIDTH] if mask != mask else torch.zeros(WIDTH)  # never filled: as if there were the usual one
    torch.testing.assert_close(converted["blocks.1.attn.q_bias"], expected)


@pytest.mark.parametrize("gated", [False, True])
def test_meta_to_timm_and_back_loses_only_what_timm_lacks(gated):
    weights = meta_weights(gated=gated)
    back = timm_to_meta(meta_to_timm(weights))
    lost = ONLY_META_HAS | QKV_BIASES | {"mask_token"}
    torch.testing.assert_close(back, {name: t for name, t in weights.items() if name not in lost}, rtol=0, atol=0)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layer_prefix", ["model.layer", "layer"])
def test_meta_to_transformers_and_back_loses_only_constants(gated, layer_prefix):
    weights = meta_weights(gated=gated)
    converted = meta_to_hf(weights, layer_prefix=layer_prefix)
    assert f"{layer_prefix}.2.attention.q_proj.weight" in converted
    expected = {name: t for name, t in weights.items() if name not in ONLY_META_HAS}
    torch.testing.assert_close(hf_to_meta(converted), expected, rtol=0, atol=0)


def test_biases_survive_the_way_over_timm_and_over_transformers():
    weights = with_biases(meta_weights())
    expected = weights["blocks.2.attn.qkv.bias"].clone()
    expected[WIDTH : 2 * WIDTH] = 0
    for back in (timm_to_meta(meta_to_timm(weights, qkv_bias=True)), hf_to_meta(meta_to_hf(weights))):
        torch.testing.assert_close(back["blocks.2.attn.qkv.bias"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3"])
def test_timms_own_tensors_survive_the_way_over_meta(name):
    theirs = timm_model(name).state_dict()
    torch.testing.assert_close(meta_to_timm(timm_to_meta(theirs)), dict(theirs), rtol=0, atol=0)


def test_the_tensors_of_timms_models_with_biases_survive_the_way_over_meta():
    theirs = timm_model("vit_small_patch16_dinov3_qkvb").state_dict()
    torch.testing.assert_close(meta_to_timm(timm_to_meta(theirs), qkv_bias=True), dict(theirs), rtol=0, atol=0)


@pytest.mark.parametrize("gated", [False, True])
def test_transformers_own_tensors_survive_the_way_over_meta(gated):
    theirs = transformers_model(gated=gated).state_dict()
    torch.testing.assert_close(meta_to_hf(hf_to_meta(theirs)), dict(theirs), rtol=0, atol=0)


def test_a_model_without_biases_is_told_from_one_with_zero_biases():
    weights = {name: t for name, t in meta_weights().items() if not name.endswith(("qkv.bias", "bias_mask"))}
    transformers_model(query_bias=False, value_bias=False).load_state_dict(meta_to_hf(weights), strict=True)
    assert not any("qkv.bias" in name for name in hf_to_meta(meta_to_hf(weights)))


def test_the_second_norm_of_pretraining_has_no_place_elsewhere():
    weights = meta_weights() | {"local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.zeros(WIDTH)}
    assert meta_to_timm(weights).keys() == meta_to_timm(meta_weights()).keys()
    assert meta_to_hf(weights).keys() == meta_to_hf(meta_weights()).keys()


@pytest.mark.parametrize("convert", [meta_to_timm, meta_to_hf, timm_to_meta, hf_to_meta])
def test_conversions_leave_their_argument_alone_and_pass_unknown_names(convert):
    weights = meta_weights() | {"head.weight": torch.zeros(2, WIDTH)}
    if convert in (timm_to_meta, hf_to_meta):
        weights = {timm_to_meta: meta_to_timm, hf_to_meta: meta_to_hf}[convert](weights)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    assert "head.weight" in convert(weights)
    torch.testing.assert_close(weights, before, rtol=0, atol=0)


def test_parts_of_a_joint_projection_can_be_written_as_safetensors(tmp_path):
    """Its writer refuses tensors that overlap in memory."""
    from safetensors.torch import load_file, save_file

    for converted in (
        meta_to_hf(with_biases(meta_weights())),
        meta_to_timm(with_biases(meta_weights()), qkv_bias=True),
    ):
        save_file(converted, tmp_path / "w.safetensors")
        torch.testing.assert_close(load_file(tmp_path / "w.safetensors"), converted, rtol=0, atol=0)


@pytest.mark.parametrize("gated", [False, True])
def test_formats_are_recognised(gated):
    weights = meta_weights(gated=gated)
    assert detect_format(weights) == "meta"
    assert detect_format(meta_to_timm(weights)) == "timm"
    assert detect_format(meta_to_hf(weights)) == "huggingface"
    assert detect_format(meta_to_hf(weights, layer_prefix="layer")) == "huggingface"
    for theirs in (meta_to_timm(weights), meta_to_hf(weights)):
        torch.testing.assert_close(to_meta(theirs)["cls_token"], weights["cls_token"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"], "DINOv2, MAE or a plain"),
        (["stages.0.0.gamma", "downsample_layers.0.0.weight", "norm.weight"], "looks like a ConvNeXt"),
        (["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"], "decoder.bias.*and 1 more"),
        ([], "found no tensors"),
    ],
)
def test_other_models_are_refused_with_what_was_found(names, message):
    with pytest.raises(DataError, match=message):
        detect_format(dict.fromkeys(names, torch.zeros(1)))


def test_a_block_without_keys_is_refused():
    weights = meta_to_hf(meta_weights())
    del weights["model.layer.1.attention.k_proj.weight"]
    with pytest.raises(DataError, match=r"no model.layer.1.attention.k_proj.weight"):
        hf_to_meta(weights)
