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
        (["model.tuning=frozen", "lora.enabled=false"], "frozen"),
        (["model.tuning=null", "lora.enabled=false"], "frozen"),
    ],
)
def test_tuning_follows_from_the_switch_of_lora_where_it_is_not_set(overrides, tuning):
    config = load_m2f_config(None, overrides)
    assert config.model.tuning == tuning
    assert config.lora.enabled == (tuning == "lora")
    assert ("lora" in config.architecture(regions=False)["arch_kwargs"]) == (tuning == "lora")


BOTH = "model: {tuning: frozen}\nlora: {enabled: true}\n"


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("", ["model.tuning=full", "lora.enabled=true"], "lora.enabled=true .* contradicts model.tuning=full .*alone"),
        ("", ["model.tuning=lora", "lora.enabled=false"], "lora.enabled=false .* contradicts model.tuning=lora"),
        ("model: {tuning: lora}\n", ["lora.enabled=false"], r"contradicts model.tuning=lora \(.*my.yaml:1\)"),
        (BOTH, [], r"my.yaml:2\) contradicts .*my.yaml:1\)"),
        (
            "",
            ["model.num_joint_blocks=3"],
            r"num_joint_blocks=3 .* of model.type=eomt alone, .* model.type=m2f \(default",
        ),
        (
            "model: {type: eomt, hidden_dim: 64}\n",
            [],
            r"model.hidden_dim=64 \(.*my.yaml:1\) is a setting of model.type=m2f",
        ),
        ("model: {type: eomt}\n", ["model.backbone_out_layers=FOUR_LAST"], "backbone_out_layers=FOUR_LAST"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_places(tmp_path, text, words, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_m2f_config(path, words)


def test_a_word_overrules_a_file_that_was_written_for_something_else(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("model: {hidden_dim: 64, num_queries: 7}\nlora: {enabled: true}\n")
    config = load_m2f_config(path, ["model.tuning=frozen", "model.type=eomt"])
    assert (config.model.tuning, config.lora.enabled) == ("frozen", False)
    assert (config.model.num_queries, config.model.hidden_dim) == (7, 256)  # what EoMT does not have is as by default
    save_config(config, path)
    assert load_m2f_config(path) == config


def test_switched_off_inference_reaches_the_architecture_and_augmentation_does_not():
    words = ["use_sliding_window_inference=false", "use_nnunet_augmentation=false"]
    kwargs = load_m2f_config(None, words).architecture(regions=False)["arch_kwargs"]
    assert kwargs["use_sliding_window_inference"] is False
    assert "use_nnunet_augmentation" not in kwargs
    assert "use_sliding_window_inference" not in load_m2f_config().architecture(regions=False)["arch_kwargs"]


@pytest.mark.parametrize("word", ["FOUR_LAST", "[5,11,17,23]", "[4, 11, 17, 23]"])
def test_blocks_are_given_by_name_or_number_and_kept_as_given(tmp_path, word):
    config = load_m2f_config(None, [f"model.backbone_out_layers={word}"])
    expected = word if word.isupper() and word[0] != "[" else json.loads(word)
    assert config.architecture(regions=False)["arch_kwargs"]["backbone_out_layers"] == expected
    (tmp_path / "my.yaml").write_text(f"model:\n  backbone_out_layers: {word}\n")
    assert load_m2f_config(tmp_path / "my.yaml") == config


def test_settings_without_effect_are_known_with_the_reason():
    unused = load_m2f_config(None, ["model.tuning=frozen", "training.num_epochs=3"]).without_effect()
    assert unused["lora.r"] == unused["training.layer_decay"] == "without effect, as model.tuning=frozen"
    assert unused["model.num_joint_blocks"] == "without effect, as model.type=m2f"
    assert "training.total_iter" in unused
    assert "training.layer_decay" not in load_m2f_config(None, ["model.tuning=full"]).without_effect()
    assert "lora.r" not in load_m2f_config().without_effect()


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
        ("model.backbone_out_layers=LAST", "choose one of FOUR_EVEN_INTERVALS, FOUR_LAST, or four blocks"),
        ("model.backbone_out_layers=[5,11,17,24]", "four blocks in ascending order, of 0 to 23 in dinov3 large"),
        ("model.backbone_out_layers=[5,11,23,17]", "four blocks in ascending order"),
        ("model.backbone_out_layers=[5,5,11,17]", "four blocks in ascending order"),
        ("model.backbone_out_layers=[5,11,17]", "four blocks in ascending order"),
        ("model.backbone_out_layers=[-1,5,11,17]", "four blocks in ascending order"),
        ("model.backbone_out_layers=[a,b,c,d]", "give a word or a list of whole numbers"),
        ("model.backbone=dinov4", "model.backbone='dinov4' is not known; .*; did you mean dinov"),
        ("model.backbone_size=larg", "dinov3 has tiny, .*; did you mean large"),
        ("model.hidden_dim=100", "must be a multiple of 32 .* the next one is 128"),
        ("model.num_queries=0", "model.num_queries=0 is out of range; it must be at least 1"),
        ("model.drop_path_rate=1", "model.drop_path_rate=1.0 is out of range; it must be between 0 and 0.99"),
        ("lora.r=0", "lora.r=0 is out of range"),
        ("lora.lora_dropout=1.5", "lora.lora_dropout=1.5 is out of range"),
        ("lora.target_modules=[]", "lora.target_modules is empty"),
        ("m2f_train.importance_sample_ratio=2", "must be between 0 and 1"),
        ("m2f_train.oversample_ratio=0.5", "m2f_train.oversample_ratio=0.5 is out of range"),
        ("m2f_train.dice_coefficient=-1", "m2f_train.dice_coefficient=-1.0 is out of range"),
        ("training.optimizer=adam", "training.optimizer='adam' is not known; choose one of adamw, sgd"),
        ("training.scheduler=Poly", "choose one of WarmupOneCycleLR, poly; did you mean poly"),
        ("training.lr=nan", "training.lr=nan is out of range"),
        ("training.lr=inf", "training.lr=inf is out of range; it must be at least 0 and finite"),
        ("training.layer_decay=0", "training.layer_decay=0.0 must be above 0 and at most 1"),
        ("training.layer_decay=1.1", "must be above 0 and at most 1"),
        ("training.lora_lr_multiplier=-1", "training.lora_lr_multiplier=-1.0 is out of range"),
        ("training.batch_size=0", "training.batch_size=0 is out of range"),
        ("training.patch_size=[64,64,64,64]", "must be two sizes in pixels"),
        ("training.patch_size=[0,64]", "must be two sizes in pixels"),
        ("training.gradient_clip=0", "must be above 0, or null"),
        ("training.oversample_foreground_percent=33", "must be between 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused_with_what_is_accepted(override, message):
    with pytest.raises(UsageError, match=message):
        load_m2f_config(None, [override])
