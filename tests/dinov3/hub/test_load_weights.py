"""Filling a model: what is set, what is reported, and what is refused before anything is changed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dinov3.hub.backbones import dinov3_vits16
from dinov3.hub.key_conversions import k_masked, meta_to_hf, meta_to_timm, to_meta
from dinov3.hub.load_weights import load_weights, with_input_channels
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.hub.tiny_weights import DEPTH, TINY, WIDTH, meta_weights
from tests.dinov3.meta_tensors import meta_tensors

BIASES = [f"blocks.{block}.attn.qkv.bias" for block in range(DEPTH)]
MASKS = [f"blocks.{block}.attn.qkv.bias_mask" for block in range(DEPTH)]


def model(**kwargs: object) -> nn.Module:
    torch.manual_seed(1)
    return dinov3_vits16(pretrained=False, **TINY | kwargs).eval()


def features(network: nn.Module) -> Tensor:
    image = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return network.get_intermediate_layers(image, n=1)[0]


def without(weights: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name not in names}


def test_metas_names_and_shapes_are_those_of_the_model():
    network = model()
    report = load_weights(network, meta_weights())
    assert (report.missing, report.unexpected, report.filled, report.mismatched) == ((), (), (), ())
    torch.testing.assert_close(dict(network.state_dict()), meta_weights(), rtol=0, atol=0)


def test_a_gated_model_takes_gated_weights():
    network = model(ffn_layer="swiglu", ffn_ratio=6)
    load_weights(network, meta_weights(gated=True))
    torch.testing.assert_close(dict(network.state_dict()), meta_weights(gated=True), rtol=0, atol=0)


@pytest.mark.parametrize("convert", [meta_to_timm, meta_to_hf])
def test_weights_from_elsewhere_give_the_same_features_and_a_report_of_what_was_filled(convert):
    original, converted = model(), model()
    load_weights(original, meta_weights())
    report = load_weights(converted, to_meta(convert(meta_weights())))
    lost = {"rope_embed.periods", *MASKS} | ({"mask_token", *BIASES} if convert is meta_to_timm else set())
    assert set(report.filled) == lost
    torch.testing.assert_close(features(converted), features(original), rtol=0, atol=0)


def test_an_absent_bias_is_zero_and_an_absent_mask_hides_the_keys():
    network = model()
    for block in network.blocks:
        block.attn.qkv.bias.data.fill_(3)
    report = load_weights(network, without(meta_weights(), *BIASES, *MASKS))
    assert set(report.filled) == {*BIASES, *MASKS}
    assert not network.blocks[1].attn.qkv.bias.any()
    expected = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)])
    torch.testing.assert_close(network.blocks[1].attn.qkv.bias_mask, expected)


def test_a_mask_that_is_all_zero_stays_so():
    network = model()
    load_weights(network, meta_weights())
    assert not any(block.attn.qkv.bias_mask.any() for block in network.blocks)


def test_a_mask_without_values_gets_them():
    nothing = torch.full((3 * WIDTH,), float("nan"))
    network = model()
    report = load_weights(network, meta_weights() | {MASKS[1]: nothing})
    assert report.filled == (MASKS[1],)
    torch.testing.assert_close(network.blocks[1].attn.qkv.bias_mask, k_masked(3 * WIDTH))
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_a_bias_on_the_keys_is_not_switched_off_by_a_mask_that_the_file_lacks():
    weights = without(meta_weights(), *MASKS) | {BIASES[0]: torch.ones(3 * WIDTH)}
    with pytest.raises(DataError, match=r"blocks.0.attn.qkv.bias_mask is missing.*mask_k_bias=False"):
        load_weights(model(), weights)
    load_weights(model(mask_k_bias=False), weights)


def test_the_second_norm_of_pretraining_is_the_identity_where_a_file_lacks_it():
    network = model(untie_global_and_local_cls_norm=True)
    network.local_cls_norm.weight.data.fill_(5)
    assert load_weights(network, meta_weights()).filled == ("local_cls_norm.weight", "local_cls_norm.bias")
    assert network.local_cls_norm.weight.eq(1).all()


def test_a_model_without_values_of_its_own_is_filled_completely():
    with meta_tensors():
        network = dinov3_vits16(pretrained=False, **TINY)
    with pytest.raises(UsageError, match="meta device.*to_empty"):
        load_weights(network, meta_weights())
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.fill_(float("nan"))
    load_weights(network, to_meta(meta_to_timm(meta_weights())))
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
    expected = model()
    load_weights(expected, meta_weights())
    torch.testing.assert_close(features(network.eval()), features(expected))


def test_half_precision_files_fill_a_model_in_its_own_precision():
    network = model()
    load_weights(network, {name: tensor.bfloat16() for name, tensor in meta_weights().items()})
    assert network.cls_token.dtype == torch.float32
    torch.testing.assert_close(network.cls_token.data, meta_weights()["cls_token"], rtol=1e-2, atol=1e-2)


def test_periods_of_a_file_reach_features_that_were_computed_before():
    network = model()
    load_weights(network, meta_weights())
    before = features(network)
    load_weights(network, meta_weights() | {"rope_embed.periods": meta_weights()["rope_embed.periods"] / 2})
    assert not torch.allclose(features(network), before)


REFUSED = {
    "1 missing, 0 unexpected, 0 of other shape .norm.bias is missing": without(meta_weights(), "norm.bias"),
    "0 missing, 1 unexpected, 0 of other shape .head.weight is not part": meta_weights()
    | {"head.weight": torch.ones(1)},
    r"0 missing, 0 unexpected, 1 of other shape .norm.bias has shape \(7,\) instead of \(64,\)": meta_weights()
    | {"norm.bias": torch.ones(7)},
    "holds values that are not finite, in blocks.1.ls1.gamma": meta_weights()
    | {"blocks.1.ls1.gamma": torch.full((WIDTH,), float("inf"))},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(message):
    network = model()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(DataError, match=f"The state dict .*{message}"):
        load_weights(network, REFUSED[message])
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("gated", "width", "depth", "described"),
    [
        (False, 768, 12, r"dinov3_vitb16 \(768 wide, 12 blocks\)"),
        (True, 384, 12, r"dinov3_vits16plus \(384 wide, 12 blocks, gated\)"),
        (False, 100, 2, r"100 wide, 2 blocks"),
    ],
)
def test_weights_of_another_size_are_recognised(gated, width, depth, described):
    weights = {"cls_token": torch.zeros(1, 1, width)}
    weights |= {f"blocks.{block}.mlp.{'w1' if gated else 'fc1'}.weight": torch.zeros(1) for block in range(depth)}
    message = f"these look like weights of {described}, the model is 64 wide, 3 blocks$"
    with pytest.raises(DataError, match=message) as caught:
        load_weights(model(), weights)
    assert len(str(caught.value)) < 500


def test_what_is_allowed_is_reported_and_kept():
    network = model()
    before = network.norm.bias.detach().clone()
    weights = without(meta_weights(), "norm.bias", *MASKS) | {"head.weight": torch.ones(1), "head.bias": torch.ones(1)}
    report = load_weights(network, weights, allowed_missing=["norm.*", "*.bias_mask"], allowed_unexpected=["head.*"])
    assert set(report.missing) == {"norm.bias", *MASKS}
    assert (report.unexpected, report.filled) == (("head.weight", "head.bias"), ())
    torch.testing.assert_close(network.norm.bias.data, before)
    torch.testing.assert_close(network.norm.weight.data, weights["norm.weight"])


def test_a_file_is_named_in_the_message(tmp_path):
    torch.save(without(meta_weights(), "norm.bias"), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w.pth does not fit the model: 1 missing"):
        load_weights(model(), tmp_path / "w.pth")


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_kernels_of_colours_are_dealt_out_to_the_channels(channels):
    colours = meta_weights()["patch_embed.proj.weight"]
    adapted = with_input_channels(meta_weights(), channels)["patch_embed.proj.weight"]
    expected = torch.stack([colours[:, channel % 3] for channel in range(channels)], dim=1) * 3 / channels
    torch.testing.assert_close(adapted, expected)
    load_weights(model(in_chans=channels), with_input_channels(meta_weights(), channels))


def test_a_colour_image_given_twice_over_gives_what_it_gave():
    colour, other = model(), model(in_chans=6)
    load_weights(colour, meta_weights())
    load_weights(other, with_input_channels(meta_weights(), 6))
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = colour.get_intermediate_layers(image)[0]
        torch.testing.assert_close(other.get_intermediate_layers(image.repeat(1, 2, 1, 1))[0], expected)
