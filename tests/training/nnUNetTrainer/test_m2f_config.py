"""Settings of the Mask2Former trainer: where they come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nnunetv2.configs
from dinov3.utils.yaml_config import save_config
from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.m2f_config import load_m2f_config

CONFIGS = Path(nnunetv2.configs.__path__[0])


def test_the_file_of_defaults_holds_the_defaults():
    assert load_m2f_config(CONFIGS / "m2f_default.yaml") == load_m2f_config()


def test_defaults_are_those_of_the_integration_plan():
    config = load_m2f_config()
    assert (config.model.backbone, config.model.backbone_size, config.model.pretrained) == ("dinov3", "large", True)
    assert (config.model.hidden_dim, config.model.dim_feedforward, config.model.num_heads) == (256, 1024, 8)
    assert (config.lora.enabled, config.lora.r, config.lora.lora_alpha) == (True, 8, 16)
    assert config.lora.target_modules == ["qkv", "proj"]
    assert (config.m2f_train.num_points, config.m2f_train.class_coefficient) == (12544, 2.0)
    assert (config.training.lr, config.training.weight_decay, config.training.total_iter) == (1e-4, 0.05, 40000)


def test_the_wide_preset_changes_the_head_alone():
    wide = load_m2f_config(CONFIGS / "m2f_2048.yaml")
    assert (wide.model.hidden_dim, wide.model.dim_feedforward, wide.model.num_heads) == (2048, 4096, 16)
    wide.model.hidden_dim, wide.model.dim_feedforward, wide.model.num_heads = 256, 1024, 8
    assert wide == load_m2f_config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("m2f_*.yaml")), ids=lambda path: path.name)
def test_saved_settings_come_back_equal(tmp_path, path):
    config = load_m2f_config(path, ["training.lr=3e-4", "training.patch_size=[64,96]", "model.checkpoint=weights.pth"])
    save_config(config, tmp_path / "m2f_config.yaml")
    assert load_m2f_config(tmp_path / "m2f_config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "tuning"),
    [
        ([], "lora"),
        (["lora.enabled=false"], "frozen"),
        (["model.tuning=full"], "full"),
        (["model.tuning=frozen", "lora.enabled=true"], "frozen"),
        (["model.tuning=lora", "lora.enabled=false"], "lora"),
    ],
)
def test_tuning_goes_before_the_switch_of_lora(overrides, tuning):
    config = load_m2f_config(None, overrides)
    assert config.model.tuning == tuning
    assert config.lora.enabled == (tuning == "lora")
    assert ("lora" in config.architecture(regions=False)["arch_kwargs"]) == (tuning == "lora")


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        ([], 160),
        (["training.total_iter=1001"], 5),
        (["training.num_epochs=7"], 7),
        (["training.num_iterations_per_epoch=100", "training.total_iter=100"], 1),
    ],
)
def test_epochs_follow_from_iterations_unless_given(overrides, epochs):
    assert load_m2f_config(None, overrides).training.epochs() == epochs


@pytest.mark.parametrize(
    ("word", "device_type", "precision"),
    [("auto", "cuda", "bf16"), ("auto", "cpu", "fp32"), ("fp16", "cuda", "fp16"), ("fp32", "cuda", "fp32")],
)
def test_precision_depends_on_the_device_only_if_automatic(word, device_type, precision):
    assert load_m2f_config(None, [f"training.precision={word}"]).training.precision_on(device_type) == precision


def test_the_architecture_is_plain_data_without_the_origin_of_weights():
    section = load_m2f_config(None, ["model.checkpoint=weights.pth"]).architecture(regions=True)
    assert json.loads(json.dumps(section)) == section
    assert section["network_class_name"] == "nnunetv2.model.model_m2f.M2FSegmentationModel"
    assert section["arch_kwargs"]["regions"] is True
    assert not {"pretrained", "checkpoint", "type"} & section["arch_kwargs"].keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.type=segformer", "model.type='segformer' is not known; choose one of m2f, eomt"),
        ("model.tuning=ful", "choose one of frozen, lora, full; did you mean full"),
        ("model.channel_adaptation=mean", "choose one of repeat, conv1x1, inflate"),
        ("model.input_norm=zscore", "choose one of dataset, imagenet"),
        ("model.backbone_out_layers=LAST", "choose one of FOUR_EVEN_INTERVALS, FOUR_LAST"),
        ("model.hidden_dim=100", "must be a multiple of 32 .* the next one is 128"),
        ("model.num_queries=0", "model.num_queries=0 is out of range; it must be at least 1"),
        ("model.drop_path_rate=1", "model.drop_path_rate=1.0 is out of range; it must be between 0 and 0.99"),
        ("lora.r=0", "lora.r=0 is out of range"),
        ("lora.lora_dropout=1.5", "lora.lora_dropout=1.5 is out of range"),
        ("lora.target_modules=[]", "lora.target_modules is empty"),
        ("m2f_train.importance_sample_ratio=2", "must be between 0 and 1"),
        ("m2f_train.oversample_ratio=0.5", "m2f_train.oversample_ratio=0.5 is out of range"),
        ("m2f_train.dice_coefficient=-1", "m2f_train.dice_coefficient=-1.0 is out of range"),
        ("training.optimizer=sgd", "training.optimizer='sgd' is not known; choose one of adamw"),
        ("training.scheduler=Poly", "choose one of WarmupOneCycleLR, poly; did you mean poly"),
        ("training.lr=nan", "training.lr=nan is out of range"),
        ("training.lr=inf", "training.lr=inf is out of range"),
        ("training.batch_size=0", "training.batch_size=0 is out of range"),
        ("training.patch_size=[64,64,64]", "must be two sizes in pixels"),
        ("training.patch_size=[0,64]", "must be two sizes in pixels"),
        ("training.gradient_clip=0", "must be above 0, or null"),
        ("training.oversample_foreground_percent=33", "must be between 0 and 1"),
        ("use_nnunet_augmentation=false", "use_nnunet_augmentation=false is not available"),
        ("use_sliding_window_inference=false", "use_sliding_window_inference=false is not available"),
    ],
)
def test_values_out_of_range_are_refused_with_what_is_accepted(override, message):
    with pytest.raises(UsageError, match=message):
        load_m2f_config(None, [override])
