"""Files of the fork that `nnUNetv2_train_vit` comes from: what they stand for, what differs, what is rejected."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.vit_config import ViTnnUNetConfig
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

TRAIN = {"initial_lr": 1e-3, "weight_decay": 3e-5, "gradient_clip": 12.0, "num_epochs": 500}


def write(path: Path, model: dict[str, Any], lora: dict[str, Any] | None = None, train: Any = None) -> Path:
    sections = {"model": model, "lora": lora, "train": TRAIN if train is None else train}
    path.write_text(yaml.safe_dump({name: section for name, section in sections.items() if section is not None}))
    return path


def load(tmp_path: Path, model: dict[str, Any], *words: str, **sections: Any) -> ViTnnUNetConfig:
    return AnyHeadConfig.load(write(tmp_path / "fork.yaml", model, **sections), words)[0]


def of_head(config: ViTnnUNetConfig, *names: str) -> dict[str, Any]:
    return {name: getattr(config.model, name) for name in names}


@pytest.mark.parametrize(
    ("module", "decoder", "expected"),
    [
        (
            "model_dpt",
            {"fusion_hidden_size": 128, "readout_type": "add"},
            {"head": "dpt", "fusion_hidden_size": 128, "readout_type": "add", "neck_hidden_sizes": [1024] * 4},
        ),
        (
            "model_unetr",
            {"decoder_channels": [256, 128, 64, 32, 16], "negative_slope": 0.02, "upsample_mode": "bilinear"},
            {
                "head": "unetr",
                "decoder_channels": [256, 128, 64, 32, 16],
                "negative_slope": 0.02,
                "upsample_mode": "bilinear",
            },
        ),
        (
            "primus",
            {"multiscale": False, "embed_dim": 768, "patch_embed_size": 16},
            {"head": "primus", "embed_dim": 768, "patch_embed_size": 16, "backbone_out_layers": "LAST"},
        ),
        (
            "primus",
            {"multiscale": True, "embed_dim": 768, "interaction_indices": [3, 9, 15, 21]},
            {"head": "primus_multiscale", "embed_dim": 768, "backbone_out_layers": [3, 9, 15, 21]},
        ),
        (
            "model_upernet",
            {"hidden_size": 512, "pool_scales": [1, 2, 3, 6]},
            {"head": "upernet", "hidden_size": 512, "backbone_out_layers": [5, 11, 17, 23]},
        ),
        ("model", {}, {"head": "upernet"}),
        (
            "model_segformer_0",
            {"hidden_size": 64},
            {"head": "segformer", "decoder_hidden_size": 64, "feature_strategy": "layers"},
        ),
        ("model_segformer_1", {}, {"head": "segformer", "feature_strategy": "layers"}),
    ],
)
def test_each_module_stands_for_a_head(tmp_path, module, decoder, expected):
    config = load(tmp_path, {"model_path": f"nnunetv2.model.{module}", "decoder": decoder})
    assert of_head(config, *expected) == expected


def test_the_training_is_that_of_the_fork(tmp_path):
    config = load(tmp_path, {}, lora={"enabled": False}, train={"initial_lr": None})
    training = config.training
    assert (training.optimizer, training.scheduler, training.warmup_iters) == ("sgd", "poly", 0)
    assert (training.lr, training.weight_decay, training.gradient_clip) == (1e-2, 3e-5, 12.0)
    assert (training.num_epochs, training.num_iterations_per_epoch) == (1000, 100)
    assert training.num_val_iterations_per_epoch == 50
    given = load(tmp_path, {}, train={**TRAIN, "num_val_iterations_per_epoch": 7}).training
    assert (given.lr, given.num_epochs, given.num_val_iterations_per_epoch) == (1e-3, 500, 7)


@pytest.mark.parametrize(
    ("lora", "tuning", "expected"),
    [
        (None, "lora", (8, 16, 0.05, ["qkv"])),
        ({"enabled": True, "r": 4}, "lora", (4, 16, 0.05, ["qkv"])),
        ({"enabled": False, "r": 4}, "frozen", None),
    ],
)
def test_lora_is_on_unless_it_is_switched_off(tmp_path, lora, tuning, expected):
    config = load(tmp_path, {}, lora=lora)
    assert config.model.tuning == tuning
    if expected is not None:
        adapters = config.lora
        assert (adapters.r, adapters.lora_alpha, adapters.lora_dropout, adapters.target_modules) == expected


@pytest.mark.parametrize(
    ("model", "backbone", "size", "blocks"),
    [
        ({"backbone": "retfound", "backbone_size": "base"}, "retfound", "mae_large", [5, 11, 17, 23]),
        ({"backbone": "visionfm"}, "visionfm", "base", [2, 5, 8, 11]),
        ({"backbone": "dinov2", "backbone_size": "small"}, "dinov2", "small", [2, 5, 8, 11]),
        ({"checkpoint_path": ""}, "dinov3", "large", [5, 11, 17, 23]),
    ],
)
def test_backbones_and_the_blocks_that_the_fork_reads(tmp_path, model, backbone, size, blocks):
    config = load(tmp_path, model)
    expected = {"backbone": backbone, "backbone_size": size, "backbone_out_layers": blocks, "checkpoint": None}
    assert of_head(config, *expected) == expected


def test_words_override_the_file_and_each_value_has_its_source(tmp_path):
    model = {"model_path": "nnunetv2.model.model_segformer_1", "checkpoint_path": "weights.pth"}
    path = write(tmp_path / "fork.yaml", model, {"enabled": True})
    config, sources = AnyHeadConfig.load(path, ["model.tuning=full", "training.lr=0.5"])
    assert (config.model.tuning, config.training.lr, config.model.checkpoint) == ("full", 0.5, "weights.pth")
    assert sources["model.checkpoint"].place == f"{path}:4 (model.checkpoint_path)"
    assert sources["training.num_epochs"].place == f"{path}:9 (train.num_epochs)"
    assert sources["training.optimizer"].place == f"{path}: default of the fork"
    assert sources["training.lr"].place == "command line: training.lr=0.5"


def test_one_line_says_what_was_read_and_what_is_not_the_same(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        load(tmp_path, {"model_path": "nnunetv2.model.model_segformer_1"})
        load(tmp_path, {"model_path": "nnunetv2.model.model_unetr"})
    first, second = [message for message in caplog.messages if "is a file of the fork" in message]
    assert "nnunetv2.model.model_segformer_1 is read as model.head=segformer (not the same network: " in first
    training = "optimizer=sgd, lr=0.001, scheduler=poly, precision=auto; the schedule is stepped every iteration"
    assert f"is read as model.head=unetr; training with {training}" in second


def test_the_line_says_what_is_in_force_when_words_override_the_file(tmp_path, caplog):
    words = ["model.head=unetr", "training.optimizer=adamw", "training.lr=0.25", "training.scheduler=WarmupOneCycleLR"]
    with caplog.at_level(logging.INFO):
        load(tmp_path, {"model_path": "nnunetv2.model.model_segformer_1"}, *words)
        load(tmp_path, {"model_path": "nnunetv2.model.model_segformer_1"}, "model.head=segformer")
    replaced, repeated = [message for message in caplog.messages if "is a file of the fork" in message]
    assert replaced.endswith(
        "nnunetv2.model.model_segformer_1 is replaced by model.head=unetr of the command line; training with "
        "optimizer=adamw, lr=0.25, scheduler=WarmupOneCycleLR, precision=auto"
    )
    assert "is read as model.head=segformer (not the same network: " in repeated


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.head=linear", {"head": "linear", "backbone_out_layers": "LAST"}),
        ("model.backbone_size=small", {"backbone_out_layers": [2, 5, 8, 11], "neck_hidden_sizes": [384] * 4}),
        ("model.backbone_size=huge_plus", {"backbone_out_layers": "FOUR_EVEN_INTERVALS"}),
    ],
)
def test_defaults_of_the_fork_are_those_of_the_head_and_backbone_in_force(tmp_path, word, expected):
    config = load(tmp_path, {"model_path": "nnunetv2.model.model_dpt"}, word)
    assert of_head(config, *expected) == expected


def rejection(tmp_path: Path, text: str, *words: str) -> str:
    path = tmp_path / "fork.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        AnyHeadConfig.load(path, words)
    return str(raised.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  backbone: dinov2\ntrain:\n  initial_lr: fast\n", "FILE, line 4: train.initial_lr=fast is not"),
        (
            "train:\n  num_epochs: 5\n\n  initial_lr: -1\n",
            "FILE:4 (train.initial_lr): training.lr=-1.0 is out of range",
        ),
        (
            "model:\n  model_path: nnunetv2.model.primus\n  decoder:\n    embed_dim: wide\n",
            "FILE, line 4: model.decoder.embed_dim=wide is not accepted",
        ),
        (
            "model:\n  model_path: nnunetv2.model.primus\n  decoder:\n    multiscale: both\n",
            "FILE, line 4: model.decoder.multiscale=both is not accepted; give true or false",
        ),
        (
            "train:\n  initial_lr: 1\nmodel:\n  backbone: dinov4\n",
            "FILE:4 (model.backbone): model.backbone='dinov4' is not known",
        ),
        ("train:\n  initial_lr: 1\nmodel:\n  backbone: [dinov3]\n", "FILE, line 4: model.backbone=['dinov3'] is not"),
        ("train:\n  initial_lr: 1\nmodel:\n  decoder: 3\n", "FILE, line 4: model.decoder must hold"),
        ("train:\n  initial_lr: 1\nlora: on\n", "FILE, line 3: lora must hold `key: value` pairs"),
        ("train:\n  initial_lr: 1\n  lr: 1\n", "FILE, line 3: train.lr is no setting"),
        ("model:\n  model_path: [a]\n", "FILE, line 2: model.model_path=['a'] is not accepted; give a word"),
        ("model:\n\n  model_path: os.path\n", "FILE, line 3: model.model_path=os.path has no counterpart"),
    ],
)
def test_errors_name_the_key_and_the_line_that_the_user_wrote(tmp_path, text, expected):
    assert rejection(tmp_path, text).startswith(expected)


def test_settings_of_a_head_that_the_command_line_replaces_are_named_with_their_line(tmp_path):
    text = "model:\n  model_path: nnunetv2.model.model_dpt\n  decoder:\n    readout_type: add\n"
    message = rejection(tmp_path, text, "model.head=unetr")
    assert message.startswith("FILE, line 4: model.decoder.readout_type is a setting of the head dpt, which model.head")


@pytest.mark.parametrize(
    ("model", "sections", "message"),
    [
        (
            {"model_path": "nnunetv2.model.model_segformer_2"},
            {},
            "model_segformer_2 has no counterpart here; .*did you",
        ),
        ({"model_path": "os.path"}, {}, "model.model_path=os.path has no counterpart"),
        ({"backbone": "dinov4"}, {}, "model.backbone='dinov4' is not known"),
        ({"depth": 3}, {}, "model.depth is no setting .* known are model.model_path"),
        ({"decoder": {"hiden_size": 3}}, {}, "did you mean model.decoder.hidden_size"),
        ({"model_path": "nnunetv2.model.model_upernet", "decoder": {"pool_scales": [1, 2]}}, {}, "pool_scales must be"),
        ({}, {"lora": {"rank": 3}}, "lora.rank is no setting"),
        ({}, {"train": {"initial_lr": 1, "lr": 3}}, "train.lr is no setting"),
        ({"head": "dpt"}, {}, "there is no setting 'train'; did you mean training"),
        ({}, {"train": {"num_epochs": 3}}, "there is no setting 'train'; did you mean training"),
        ({}, {"train": {"initial_lr": "fast"}}, "train.initial_lr=fast is not accepted"),
    ],
)
def test_what_the_fork_does_not_have_is_rejected_with_the_place(tmp_path, model, sections, message):
    with pytest.raises(UsageError, match=message) as raised:
        load(tmp_path, model, **sections)
    assert str(raised.value).startswith(str(tmp_path / "fork.yaml"))


def test_files_of_ours_are_read_as_always(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text("model: {head: segformer}\ntraining: {lr: 0.5}\n")
    config, sources = AnyHeadConfig.load(path)
    assert (config.model.head, config.training.optimizer) == ("segformer", "adamw")
    assert sources["training.lr"].place == f"{path}:2"


def test_a_trainer_takes_such_a_file_and_steps_with_sgd(tmp_path, nnunet_folders):
    model = {"model_path": "nnunetv2.model.model_segformer_0", "backbone_size": "tiny", "decoder": {"hidden_size": 16}}
    path = write(tmp_path / "fork.yaml", model)
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(nnUNetTrainer_vit, config_path=str(path), overrides=["model.pretrained=false"])
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.SGD
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.99}
    assert all(group["nesterov"] for group in trainer.optimizer.param_groups)
