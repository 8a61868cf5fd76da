"""Hub entries: what each name builds, and how weights get into it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import urllib.request
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from dinov3.hub.architectures import SIZES, Weights, released_url
from dinov3.hub.backbones import BACKBONES, dinov3_vit7b16, dinov3_vitl16, dinov3_vits16, dinov3_vits16plus
from dinov3.hub.key_conversions import meta_to_hf, meta_to_timm
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.hub.tiny_weights import DEPTH, TINY, WIDTH, meta_weights
from tests.dinov3.meta_tensors import meta_tensors

LOCAL_NORM = {"local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.zeros(WIDTH)}

# name: width, blocks, heads, hidden width, is gated, has biases of queries and values
ARCHITECTURES = {
    "dinov3_vits16": (384, 12, 6, 1536, False, True),
    "dinov3_vits16plus": (384, 12, 6, 1536, True, True),
    "dinov3_vitb16": (768, 12, 12, 3072, False, True),
    "dinov3_vitl16": (1024, 24, 16, 4096, False, True),
    "dinov3_vitl16plus": (1024, 24, 16, 4096, True, True),
    "dinov3_vith16plus": (1280, 32, 20, 5120, True, True),
    "dinov3_vit7b16": (4096, 40, 32, 8192, True, False),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_name_builds_the_released_architecture(name):
    width, depth, heads, hidden, is_gated, has_bias = ARCHITECTURES[name]
    with meta_tensors():
        model = BACKBONES[name](pretrained=False)
    block = model.blocks[-1]
    assert (model.embed_dim, model.n_blocks, model.num_heads, model.patch_size) == (width, depth, heads, 16)
    assert model.storage_tokens.shape == (1, 4, width)
    assert (block.mlp.w1 if is_gated else block.mlp.fc1).weight.shape == (hidden, width)
    assert hasattr(block.attn.qkv, "bias_mask") == has_bias == (block.attn.qkv.bias is not None)
    assert (block.norm1.eps, model.norm.eps) == (1e-5, 1e-5)
    assert block.ls1.init_values == 1e-5
    assert (model.rope_embed.base, model.rope_embed.dtype) == (100, torch.float32)
    assert (model.rope_embed.normalize_coords, model.rope_embed.rescale_coords) == ("separate", 2)
    assert (model.rope_embed.shift_coords, model.rope_embed.jitter_coords) == (None, None)


def test_entries_are_named_after_their_functions_and_have_metas_arguments():
    assert list(BACKBONES) == list(SIZES) == list(ARCHITECTURES)
    for name, function in BACKBONES.items():
        assert function.__name__ == name
        parameters = inspect.signature(function).parameters
        assert list(parameters) == ["pretrained", "weights", "check_hash", "kwargs"]
        defaults = [parameters[key].default for key in ("pretrained", "weights", "check_hash")]
        assert defaults == [True, Weights.LVD1689M, False]


@pytest.mark.parametrize(
    ("name", "weights", "url"),
    [
        ("dinov3_vits16", "LVD1689M", "dinov3_vits16/dinov3_vits16_pretrain_lvd1689m-08c60483.pth"),
        ("dinov3_vits16plus", "LVD1689M", "dinov3_vits16plus/dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth"),
        ("dinov3_vitb16", "LVD1689M", "dinov3_vitb16/dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth"),
        ("dinov3_vitl16", "LVD1689M", "dinov3_vitl16/dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth"),
        ("dinov3_vitl16", "SAT493M", "dinov3_vitl16/dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth"),
        ("dinov3_vitl16plus", "LVD1689M", "dinov3_vitl16plus/dinov3_vitl16plus_pretrain_lvd1689m-46503df0.pth"),
        ("dinov3_vith16plus", "LVD1689M", "dinov3_vith16plus/dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth"),
        ("dinov3_vit7b16", "LVD1689M", "dinov3_vit7b16/dinov3_vit7b16_pretrain_lvd1689m-a955f4ea.pth"),
        ("dinov3_vit7b16", "SAT493M", "dinov3_vit7b16/dinov3_vit7b16_pretrain_sat493m-a6675841.pth"),
    ],
)
def test_released_files_have_metas_names(name, weights, url):
    assert released_url(name, Weights[weights]) == f"https://dl.fbaipublicfiles.com/dinov3/{url}"


@pytest.mark.parametrize(
    ("function", "weights", "expected"),
    [
        (dinov3_vits16, Weights.LVD1689M, False),
        (dinov3_vitl16, Weights.LVD1689M, False),
        (dinov3_vitl16, Weights.SAT493M, True),
        (dinov3_vit7b16, Weights.LVD1689M, True),
        (dinov3_vit7b16, "SAT493M", True),
    ],
)
def test_without_weights_the_second_norm_is_that_of_the_released_file(function, weights, expected):
    model = function(pretrained=False, weights=weights, **TINY)
    assert (model.local_cls_norm is not None) == expected


@pytest.mark.parametrize("function", [dinov3_vits16, dinov3_vitl16, dinov3_vit7b16])
@pytest.mark.parametrize("has_norm", [False, True])
def test_with_a_file_of_any_name_the_second_norm_is_there_if_the_file_has_it(tmp_path, function, has_norm):
    torch.save(meta_weights() | (LOCAL_NORM if has_norm else {}), tmp_path / "any_name.pth")
    options = {"ffn_layer": "mlp", "ffn_ratio": 4.0, "qkv_bias": True}
    model = function(weights=tmp_path / "any_name.pth", **TINY, **options)
    assert (model.local_cls_norm is not None) == has_norm


@pytest.mark.parametrize("form", ["meta", "teacher", "timm", "huggingface", "folder", "url"])
def test_an_entry_is_filled_from_any_form_of_file(tmp_path, form):
    path = tmp_path / "weights"
    weights = meta_weights(gated=True)
    if form in ("meta", "url"):
        torch.save(weights, path)
    elif form == "teacher":
        torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in weights.items()}}, path)
    elif form == "folder":
        path.mkdir()
        save_file(meta_to_hf(weights), path / "model.safetensors")
    else:
        save_file({"timm": meta_to_timm, "huggingface": meta_to_hf}[form](weights), path)
    model = dinov3_vits16plus(weights=path.as_uri() if form == "url" else str(path), **TINY)
    given = {name for name in weights if name != "mask_token" and not name.endswith("bias_mask")}
    state = model.state_dict()
    torch.testing.assert_close({n: state[n] for n in given}, {n: weights[n] for n in given}, rtol=0, atol=0)


def test_a_file_for_colour_images_fills_a_model_for_grey_ones(tmp_path, caplog):
    torch.save(meta_weights(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        model = dinov3_vits16(weights=tmp_path / "w.pth", in_chans=1, **TINY)
    assert model.patch_embed.proj.weight.shape == (WIDTH, 1, 16, 16)
    assert "adapted from RGB to 1 channels" in caplog.text


def test_arguments_override_those_of_the_released_model():
    model = dinov3_vits16(pretrained=False, **TINY, pos_embed_rope_rescale_coords=None, n_storage_tokens=2)
    assert (model.n_storage_tokens, model.rope_embed.rescale_coords, len(model.blocks)) == (2, None, DEPTH)


def test_an_unknown_argument_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="no argument 'n_storage_token'; did you mean n_storage_tokens"):
        dinov3_vits16(pretrained=False, n_storage_token=4)


def test_a_file_of_another_size_is_recognised(tmp_path):
    torch.save(meta_weights(), tmp_path / "w.pth")
    message = (
        r"w.pth does not fit the model: .*like weights of 64 wide, 3 blocks, the model is dinov3_vits16 \(384 wide"
    )
    with pytest.raises(DataError, match=message):
        dinov3_vits16(weights=tmp_path / "w.pth")


def test_weights_that_were_not_released_are_refused_with_those_that_were():
    with pytest.raises(UsageError, match=r"no SAT493M weights of dinov3_vits16.*dinov3_vitl16, dinov3_vit7b16"):
        dinov3_vits16(weights=Weights.SAT493M)


def test_released_weights_that_cannot_be_had_are_not_replaced_by_random_ones(tmp_path, monkeypatch):
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"dinov3_vits16_pretrain_lvd1689m-08c60483.pth could not .*weights=PATH"):
        dinov3_vits16()


def test_metas_arguments_hash_and_version_are_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(meta_weights(), tmp_path / "checkpoints" / "dinov3_vits16_pretrain_lvd1689m-12345678.pth")
    assert dinov3_vits16(hash="12345678", version=None, **TINY).n_blocks == DEPTH


@pytest.mark.parametrize("convert", [dict, meta_to_timm, meta_to_hf])
def test_nothing_of_a_loaded_model_is_left_without_a_value(tmp_path, convert):
    save_file(convert(meta_weights()), tmp_path / "w.safetensors")
    torch.use_deterministic_algorithms(True)  # fills the memory of new tensors with NaN
    try:
        assert torch.empty(1).isnan()
        model = dinov3_vits16(weights=tmp_path / "w.safetensors", untie_global_and_local_cls_norm=True, **TINY)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in (*model.parameters(), *model.buffers()))
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model.rope_embed.periods, meta_weights()["rope_embed.periods"])


def test_no_weights_are_drawn_where_a_file_replaces_them(tmp_path):
    torch.save(meta_weights(), tmp_path / "w.pth")
    before = torch.get_rng_state()
    dinov3_vits16(weights=tmp_path / "w.pth", **TINY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_torchs_compiler_is_not_imported_to_load_a_model(tmp_path):
    torch.save(meta_weights(), tmp_path / "w.pth")
    lines = (
        "import sys",
        "from dinov3.hub.backbones import dinov3_vits16",
        f"dinov3_vits16(weights={str(tmp_path / 'w.pth')!r}, **{TINY!r})",
        "assert 'torch.fx.experimental.symbolic_shapes' not in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_random_weights_are_finite_and_differ_between_seeds():
    torch.manual_seed(0)
    first = dinov3_vits16(pretrained=False, **TINY).state_dict()
    second = dinov3_vits16(pretrained=False, **TINY).state_dict()
    assert all(tensor.isfinite().all() for tensor in first.values())
    assert not torch.equal(first["cls_token"], second["cls_token"])
