"""Where backbone weights come from, and what happens if they are not there or do not fit."""

from __future__ import annotations

import time
import urllib.request
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from dinov3.hub.key_conversions import meta_to_hf, timm_to_meta
from dinov3.layers.lora import apply_lora
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.weights.backbone_weights import find_weights, load_backbone_weights


def backbone(seed: int, in_channels: int = 3) -> Backbone:
    torch.manual_seed(seed)
    return create_backbone("dinov3", "tiny", in_channels=in_channels).eval()


@pytest.fixture
def source() -> Backbone:
    return backbone(seed=1)


@pytest.mark.parametrize("container", [None, "model", "state_dict"])
def test_a_torch_file_fills_the_backbone(tmp_path, source, container):
    weights = source.vit.state_dict()
    torch.save({container: weights, "epoch": 3} if container else weights, tmp_path / "weights.pth")
    target = backbone(seed=2)
    load_backbone_weights(target, tmp_path / "weights.pth")
    torch.testing.assert_close(target.vit.state_dict(), weights, rtol=0, atol=0)


def test_a_half_precision_safetensors_file_fills_the_backbone(tmp_path, source):
    save_file({key: tensor.half() for key, tensor in source.vit.state_dict().items()}, tmp_path / "weights.safetensors")
    target = backbone(seed=2)
    load_backbone_weights(target, tmp_path / "weights.safetensors")
    assert target.vit.cls_token.dtype == torch.float32
    torch.testing.assert_close(target.vit.state_dict(), source.vit.state_dict(), rtol=1e-3, atol=1e-6)


FORMATS = {
    "Meta": timm_to_meta,
    "Meta's teacher": lambda weights: {"teacher": {f"backbone.{k}": t for k, t in timm_to_meta(weights).items()}},
    "Hugging Face": lambda weights: meta_to_hf(timm_to_meta(weights)),
    "Hugging Face before version 5": lambda weights: meta_to_hf(timm_to_meta(weights), layer_prefix="layer"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_in_another_format_fills_the_backbone(tmp_path, source, name):
    torch.save(FORMATS[name](source.vit.state_dict()), tmp_path / "weights.pth")
    target = backbone(seed=2)
    load_backbone_weights(target, tmp_path / "weights.pth")
    torch.testing.assert_close(target.vit.state_dict(), source.vit.state_dict(), rtol=0, atol=0)


def test_a_folder_of_hugging_face_fills_the_backbone(tmp_path, source):
    save_file(meta_to_hf(timm_to_meta(source.vit.state_dict())), tmp_path / "model.safetensors")
    assert find_weights("dinov3", "tiny", pretrained=True, checkpoint=str(tmp_path), tuning="lora") == tmp_path
    target = backbone(seed=2)
    load_backbone_weights(target, tmp_path)
    torch.testing.assert_close(target.vit.state_dict(), source.vit.state_dict(), rtol=0, atol=0)


def test_a_bias_that_the_backbone_has_no_place_for_is_not_dropped(tmp_path, source):
    weights = timm_to_meta(source.vit.state_dict()) | {"blocks.2.attn.qkv.bias": torch.ones(3 * 128)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"weights.pth: Block 2 has a bias on its keys"):
        load_backbone_weights(source, tmp_path / "weights.pth")


def test_lora_does_not_change_what_loaded_weights_compute(tmp_path, source):
    torch.save(source.vit.state_dict(), tmp_path / "weights.pth")
    adapted = apply_lora(backbone(seed=2), r=2).eval()
    load_backbone_weights(adapted, tmp_path / "weights.pth")
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(adapted.get_intermediate_layers(image), source.get_intermediate_layers(image))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_more_or_fewer_channels_keep_the_response_to_an_image_that_is_equal_in_all(tmp_path, source, channels):
    torch.save(source.vit.state_dict(), tmp_path / "weights.pth")
    target = backbone(seed=2, in_channels=channels)
    load_backbone_weights(target, tmp_path / "weights.pth")
    theirs = source.vit.patch_embed.proj.weight
    expected = theirs[:, [c % 3 for c in range(channels)]] * 3 / channels
    torch.testing.assert_close(target.vit.patch_embed.proj.weight, expected)


def broken_copies(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "norm.bias is missing": {key: tensor for key, tensor in weights.items() if key != "norm.bias"},
        "adapter.weight is not part of the model": weights | {"adapter.weight": torch.zeros(2, 2)},
        r"norm.bias has shape \(7,\) instead of \(128,\)": weights | {"norm.bias": torch.zeros(7)},
    }


@pytest.mark.parametrize("number", range(3))
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path, source, number):
    message, weights = list(broken_copies(source.vit.state_dict()).items())[number]
    torch.save(weights, tmp_path / "weights.pth")
    target = backbone(seed=2)
    before = {key: tensor.clone() for key, tensor in target.vit.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        load_backbone_weights(target, tmp_path / "weights.pth")
    torch.testing.assert_close(target.vit.state_dict(), before, rtol=0, atol=0)


class Payload:
    def __reduce__(self) -> tuple:
        return (open, ("executed", "w"))


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Payload()}, "weights.pth")
    with pytest.raises(UsageError, match="cannot be read as a file of weights"):
        load_backbone_weights(source, tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        (
            "dinov2",
            "tiny",
            r"\(128 wide, 4 blocks, patches of 14, learned positions\): its weights are 128 wide, 4 blocks, "
            r"patches of 16, 4 registers, rotary positions; set model.backbone=dinov3 model.backbone_size=tiny or "
            r"model.backbone=dinov3_native model.backbone_size=tiny, or give other weights",
        ),
        ("dinov3", "small", r"\(384 wide, 12 blocks, .*set model.backbone=dinov3 model.backbone_size=tiny"),
        ("dinov3_native", "small", r"\(384 wide, 12 blocks, .*set model.backbone=dinov3 model.backbone_size=tiny"),
    ],
)
@pytest.mark.parametrize("name", ["Meta", "Hugging Face"])
def test_weights_of_another_family_or_size_are_recognised(tmp_path, source, family, size, message, name):
    torch.save(FORMATS[name](source.vit.state_dict()), tmp_path / "weights.pth")
    with torch.device("meta"):
        target = create_backbone(family, size)
    with pytest.raises(UsageError, match=f"weights.pth does not fit the backbone {message}"):
        load_backbone_weights(target, tmp_path / "weights.pth")


def test_weights_of_a_size_that_no_family_has_are_described(tmp_path, source):
    weights = {key: tensor for key, tensor in source.vit.state_dict().items() if "blocks.3." not in key}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="its weights are 128 wide, 3 blocks, .*; give weights of the model's size"):
        load_backbone_weights(source, tmp_path / "weights.pth")


def test_a_file_without_a_vision_transformer_is_refused(tmp_path, source):
    torch.save({"state_dict": {f"stages.0.conv{n}.weight": torch.zeros(2) for n in range(5)}}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"holds no vision transformer .* holds stages.0.conv0.weight, .* and 2 more"):
        load_backbone_weights(source, tmp_path / "weights.pth")


def test_several_networks_in_one_file_are_refused(tmp_path, source):
    both = {f"{name}.{key}": tensor for name in ("left", "right") for key, tensor in source.vit.state_dict().items()}
    torch.save(both, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"weights.pth: There are several vision transformers in it \(left., right.\)"):
        load_backbone_weights(source, tmp_path / "weights.pth")


def test_values_that_are_not_finite_are_refused(tmp_path, source):
    weights = source.vit.state_dict() | {"norm.weight": torch.full((128,), torch.nan)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="not finite, in norm.weight; take an earlier checkpoint"):
        load_backbone_weights(source, tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, source, name):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(source.vit.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match=f"{name} cannot be read as a file of weights: it is damaged"):
        load_backbone_weights(source, path)


def test_a_folder_without_weights_is_refused(tmp_path, source):
    with pytest.raises(UsageError, match="holds neither model.safetensors nor .* nor pytorch_model.bin; give the file"):
        load_backbone_weights(source, tmp_path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_is_something_else_is_refused(tmp_path, source, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(UsageError, match=f"{name} cannot be read as a file of weights"):
        load_backbone_weights(source, tmp_path / name)


def test_a_dictionary_of_other_things_is_refused(tmp_path, source):
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="holds no plain state dict"):
        load_backbone_weights(source, tmp_path / "weights.pth")


def test_a_given_file_goes_before_the_released_weights(tmp_path):
    file = tmp_path / "weights.pth"
    file.touch()
    assert find_weights("dinov3", "large", pretrained=True, checkpoint=str(file), tuning="lora") == file
    with pytest.raises(UsageError, match=r"model.checkpoint=.*other.pth does not exist"):
        find_weights("dinov3", "large", pretrained=True, checkpoint=str(tmp_path / "other.pth"), tuning="lora")


@pytest.mark.parametrize(
    ("tuning", "advice"),
    [("full", ""), ("lora", ", which model.tuning=lora does not train; model.tuning=full does")],
)
def test_random_weights_are_announced(caplog, tuning, advice):
    assert find_weights("dinov3", "base", pretrained=False, checkpoint=None, tuning=tuning) is None
    (message,) = caplog.messages
    assert message == f"The dinov3 base backbone starts from random weights (model.pretrained=false){advice}"


def test_a_size_without_released_weights_does_not_start_from_random_ones_by_itself():
    with pytest.raises(UsageError, match="no released weights for dinov3 tiny: set model.pretrained=false"):
        find_weights("dinov3", "tiny", pretrained=True, checkpoint=None, tuning="lora")


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("retfound", "mae_large", "RETFound_mae_natureCFP.pth .* https://huggingface.co/YukunZhou"),
        ("retfound", "dinov2_large", "RETFound_dinov2_meh.pth .* https://huggingface.co/YukunZhou"),
        ("visionfm", "base", "VFM_Fundus_weights.pth, through https://github.com/ABILab-CUHK/VisionFM"),
    ],
)
def test_weights_that_must_be_asked_for_are_named_with_their_place(family, size, message):
    with pytest.raises(UsageError, match=f"{message} and set model.checkpoint=FILE, or model.pretrained=false"):
        find_weights(family, size, pretrained=True, checkpoint=None, tuning="lora")


def test_an_unknown_size_is_refused_although_a_file_is_given(tmp_path):
    with pytest.raises(UsageError, match="'huge': dinov2 has tiny, small, base"):
        find_weights("dinov2", "huge", pretrained=True, checkpoint=str(tmp_path), tuning="lora")


def test_without_a_network_the_settings_that_help_are_named_within_seconds(tmp_path, monkeypatch):
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(
        UsageError, match=r"timm/vit_large_patch16_dinov3.lvd1689m .*model.checkpoint=FILE.*model.pretrained=false"
    ):
        find_weights("dinov3", "large", pretrained=True, checkpoint=None, tuning="lora")
    assert time.monotonic() - start < 5
