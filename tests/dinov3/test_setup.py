"""From a model section of a configuration to a backbone on its device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from dinov3.eval.pretraining_config import read_training_config
from dinov3.eval.setup import ModelConfig, load_model_and_context
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.hub.tiny_weights import TINY, meta_weights

STUDENT = {
    "arch": "vit_small",
    "patch_size": 16,
    "drop_path_rate": 0.4,
    "layerscale": 1.0e-4,
    "ffn_layer": "swiglu",
    "ffn_ratio": 6,
    "qkv_bias": True,
    "norm_layer": "layernormbf16",
    "n_storage_tokens": 4,
    "mask_k_bias": True,
    "untie_global_and_local_cls_norm": True,
    "pos_embed_type": "rope",
    "pos_embed_rope_rescale_coords": 2,
    "pos_embed_rope_dtype": "fp32",
    "fp8_enabled": True,
}


@pytest.fixture
def weights(tmp_path) -> str:
    torch.save(meta_weights(), tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


@pytest.fixture
def training_config(tmp_path) -> str:
    content = {"student": STUDENT, "compute_precision": {"param_dtype": "bf16"}, "optim": {"lr": 0.1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "config.yaml")


def load(**settings: object) -> tuple[torch.nn.Module, dict]:
    return load_model_and_context(ModelConfig(device="cpu", **settings), "")


def test_a_named_model_is_filled_and_ready_to_evaluate(weights):
    model, context = load(dino_hub="dinov3_vits16", pretrained_weights=weights, kwargs=TINY)
    torch.testing.assert_close(model.cls_token.data, meta_weights()["cls_token"])
    assert not model.training
    assert context == {"autocast_dtype": torch.float32, "device": torch.device("cpu")}


def test_without_a_device_there_is_one_all_the_same():
    model, context = load_model_and_context(ModelConfig(dino_hub="dinov3_vits16", pretrained=False, kwargs=TINY), "")
    assert context["device"].type == model.cls_token.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_random_weights_are_announced(caplog):
    load(dino_hub="dinov3_vits16", pretrained=False, kwargs=TINY)
    assert "starts from random weights (model.pretrained=false)" in caplog.text


def test_the_released_weights_of_satellite_images_go_by_their_name():
    with pytest.raises(UsageError, match="no SAT493M weights of dinov3_vits16"):
        load(dino_hub="dinov3_vits16", pretrained_weights="SAT493M")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "No backbone is named; set model.dino_hub to one of dinov3_vits16, "),
        ({"dino_hub": "dinov3_vitl14"}, "'dinov3_vitl14' is not known; did you mean dinov3_vitl16"),
        ({"dino_hub": "resnet"}, "'resnet' is not known; choose one of dinov3_vits16, "),
        ({"dino_hub": "dinov3_convnext_tiny"}, "ConvNeXt models of DINOv3 cannot be built here, only dinov3_vits16"),
        ({"dino_hub": "dinov3_vits16", "pretrained_weights": "none.pth"}, "none.pth do not exist"),
        ({"dino_hub": "dinov3_vits16", "pretrained": False, "kwargs": {"depht": 2}}, "'depht'; did you mean depth"),
        ({"config_file": "none.yaml", "pretrained": False}, "model.config_file=none.yaml does not exist"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load(**settings)


def test_settings_that_exclude_each_other_are_refused(weights):
    with pytest.raises(UsageError, match=r"model.dino_hub=a and model.config_file=b both name a model"):
        ModelConfig(dino_hub="a", config_file="b")
    with pytest.raises(UsageError, match=r"model.pretrained=false asks for random weights"):
        ModelConfig(dino_hub="a", pretrained=False, pretrained_weights=weights)


def test_an_unknown_device_is_refused_with_the_settings_name():
    with pytest.raises(UsageError, match=r"model.device='gpu' is not known"):
        load_model_and_context(ModelConfig(dino_hub="dinov3_vits16", device="gpu"), "")


def test_the_configuration_of_a_training_describes_its_model(training_config):
    described = read_training_config(training_config)
    assert described.is_bfloat16
    assert described.arguments == {
        "embed_dim": 384,
        "depth": 12,
        "num_heads": 6,
        "ffn_ratio": 6,
        "layerscale_init": 1e-4,
        "patch_size": 16,
        "ffn_layer": "swiglu",
        "qkv_bias": True,
        "norm_layer": "layernormbf16",
        "n_storage_tokens": 4,
        "mask_k_bias": True,
        "pos_embed_rope_rescale_coords": 2,
        "pos_embed_rope_dtype": "fp32",
    }


def test_numbers_with_an_exponent_are_numbers_as_in_metas_reader(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("student: {arch: vit_small, layerscale: 1e-4}")
    assert read_training_config(tmp_path / "c.yaml").arguments["layerscale_init"] == 1e-4


def test_a_teacher_fills_the_model_that_its_configuration_describes(tmp_path, training_config):
    teacher = {f"backbone.{name}": tensor for name, tensor in meta_weights(gated=True).items()}
    torch.save({"teacher": teacher, "iteration": 7}, tmp_path / "teacher.pth")
    model, context = load(
        config_file=training_config, pretrained_weights=str(tmp_path / "teacher.pth"), kwargs={**TINY, "ffn_ratio": 6}
    )
    torch.testing.assert_close(model.blocks[2].mlp.w2.weight.data, meta_weights(gated=True)["blocks.2.mlp.w2.weight"])
    assert context["autocast_dtype"] == torch.bfloat16
    assert not model.training


def test_a_described_model_does_not_start_from_random_weights_unasked(training_config):
    with pytest.raises(UsageError, match="without weights; set model.pretrained_weights"):
        load(config_file=training_config)


def test_a_checkpoint_that_does_not_fit_the_description_is_refused(training_config, weights):
    with pytest.raises(DataError, match="does not fit the model"):
        load(config_file=training_config, pretrained_weights=weights, kwargs=TINY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold `key: value` pairs"),
        ("a: [", "is not valid YAML"),
        ("train: {lr: 1}", "no section `student`.*model.dino_hub"),
        ("student: {arch: convnext_tiny}", "student.arch=convnext_tiny cannot be built; there are vit_small"),
    ],
)
def test_another_yaml_file_is_refused(tmp_path: Path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_training_config(tmp_path / "c.yaml")
