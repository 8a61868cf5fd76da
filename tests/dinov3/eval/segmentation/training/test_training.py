"""What a training does: it learns, changes what it should, writes its files, and gives up when it diverges."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dinov3.eval.segmentation.config import load_segmentation_config
from dinov3.eval.segmentation.train import train_segmentation, train_step
from dinov3.eval.segmentation.train_m2f import train_m2f_segmentation
from dinov3.eval.segmentation.training import setup as training_setup
from dinov3.eval.segmentation.training.checkpoint import CHECKPOINT_LATEST
from dinov3.eval.segmentation.training.log import TRAINING_LOG
from dinov3.eval.segmentation.training.loop import is_better, is_due
from dinov3.eval.segmentation.training.model_state import load_trained_state
from dinov3.eval.segmentation.training.run_folder import CONFIG_FILE
from dinov3.eval.segmentation.training.saved_model import MODEL_BEST, MODEL_FINAL
from dinov3.eval.segmentation.training.setup import build_model, build_optimizer
from dinov3.eval.segmentation.training.step import StepResult
from dinov3.utils.errors import DivergedError, UsageError
from dinov3.utils.processes import process_group
from tests.dinov3.toy_training import logged_losses, toy_backbone, toy_config, train_toy, write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("toy"))


def run(data: Path, output: Path, head: str, *words: str, backbone: torch.nn.Module | None = None) -> dict[str, float]:
    train = {"linear": train_segmentation, "m2f": train_m2f_segmentation}[head]
    return train(toy_backbone() if backbone is None else backbone, toy_config(data, output, head, *words))


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_linear_head_learns_and_leaves_its_files(data: Path, tmp_path: Path) -> None:
    words = ["scheduler.total_iter=60", "eval.eval_interval=40"]
    metrics = run(data, tmp_path, "linear", *words)
    first, *_, last = logged_losses(tmp_path)
    assert last["loss"] < 0.7 * first["loss"]
    assert metrics["mIoU"] > 60
    classes = metrics.pop("classes")  # for the results, and too many for the log
    assert [row["class"] for row in classes] == [0, 1, 2]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {CONFIG_FILE, CHECKPOINT_LATEST, MODEL_BEST, MODEL_FINAL, TRAINING_LOG}
    assert load_segmentation_config([f"config={tmp_path / CONFIG_FILE}"]) == toy_config(
        data, tmp_path, "linear", *words
    )
    evaluated = [json.loads(line) for line in (tmp_path / TRAINING_LOG).read_text().splitlines() if "metrics" in line]
    assert [line["iteration"] for line in evaluated] == [40, 60]
    assert metrics == max((line["metrics"] for line in evaluated), key=lambda found: found["mIoU"])
    final = read(tmp_path / MODEL_FINAL)
    assert final["iteration"] == 60
    assert final["config"]["optimizer"]["lr"] == 0.01
    assert not any("feature_model" in name for name in final["model"])


@pytest.mark.slow
def test_mask2former_learns(data: Path, tmp_path: Path) -> None:
    # With 60 steps, rounding alone moves the result by 20 points.
    words = ["scheduler.total_iter=150", "optimizer.lr=0.002", "decoder_head.drop_path_rate=0", "bs=4"]
    metrics = run(data, tmp_path, "m2f", *words)
    first, *_, last = logged_losses(tmp_path)
    assert last["loss"] < 0.7 * first["loss"]
    assert metrics["mIoU"] > 60


@pytest.fixture
def changed(data: Path, tmp_path: Path) -> Callable[..., set[str]]:
    """Trains two steps and tells which tensors of the model are not what they were."""

    def train(head: str, *words: str) -> set[str]:
        config = toy_config(data, tmp_path, head, "scheduler.total_iter=2", *words)
        before = {name: value.clone() for name, value in build_model(toy_backbone(), config).state_dict().items()}
        backbone = toy_backbone()
        {"linear": train_segmentation, "m2f": train_m2f_segmentation}[head](backbone, config)
        model = build_model(toy_backbone(), config)
        load_trained_state(model, read(tmp_path / MODEL_FINAL)["model"])
        after = model.state_dict()
        prefix = "segmentation_model.0." + ("backbone." if head == "m2f" else "feature_model.")
        after |= {f"{prefix}{name}": value for name, value in backbone.state_dict().items()}
        assert before.keys() == after.keys()
        return {name for name, value in after.items() if not torch.equal(value, before[name])}

    return train


def is_buffer_of_constants(name: str) -> bool:
    return name.endswith(("bias_mask", "rope_embed.periods"))


@pytest.mark.parametrize("head", ["linear", "m2f"])
def test_a_frozen_backbone_does_not_change_by_a_bit_and_all_else_learns(
    changed: Callable[..., set[str]], head: str
) -> None:
    config = toy_config(Path("unused"), Path("unused"), head)
    names = [name for name in build_model(toy_backbone(), config).state_dict() if not in_backbone(name)]
    found = changed(head)
    # keys of a softmax have a bias without effect, and BatchNorm takes away that of the layer before it
    assert found >= {name for name in names if "bias" not in name}
    assert not {name for name in found if in_backbone(name)}


@pytest.mark.parametrize("head", ["linear", "m2f"])
def test_lora_trains_its_updates_alone(changed: Callable[..., set[str]], head: str) -> None:
    in_vit = {name for name in changed(head, "lora.enabled=true") if in_backbone(name)}
    assert len(in_vit) == 4 * 2 * 2  # blocks, layers, A and B
    assert all("lora_" in name for name in in_vit)


@pytest.mark.parametrize("head", ["linear", "m2f"])
def test_full_tuning_trains_the_backbone(changed: Callable[..., set[str]], head: str) -> None:
    in_vit = {name for name in changed(head, "train_backbone=true") if in_backbone(name)}
    assert {name.rpartition("blocks.")[2] for name in in_vit} >= {f"{block}.mlp.fc1.weight" for block in range(4)}
    assert not any(is_buffer_of_constants(name) for name in in_vit)


def in_backbone(name: str) -> bool:
    return name.startswith(("segmentation_model.0.backbone.", "segmentation_model.0.feature_model."))


def test_groups_of_the_optimiser(data: Path, tmp_path: Path) -> None:
    config = toy_config(
        data, tmp_path, "m2f", "train_backbone=true", "optimizer.weight_decay=0.05", "optimizer.beta2=0.95"
    )
    model = build_model(toy_backbone(), config)
    groups = {group["name"]: group for group in build_optimizer(model, config).param_groups}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "head": (0.01, 0.05),
        "head, no decay": (0.01, 0.0),
        "backbone": (pytest.approx(0.001), 0.05),
        "backbone, no decay": (pytest.approx(0.001), 0.0),
    }
    assert all(group["betas"] == (0.9, 0.95) for group in groups.values())
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))


def test_lora_learns_as_fast_as_the_head(data: Path, tmp_path: Path) -> None:
    config = toy_config(data, tmp_path, "linear", "lora.enabled=true")
    groups = build_optimizer(build_model(toy_backbone(), config), config).param_groups
    assert {group["name"]: group["lr"] for group in groups}["backbone"] == 0.01


def test_modes_are_those_of_training_after_an_evaluation(data: Path, tmp_path: Path) -> None:
    modes = []

    def watched(model: torch.nn.Module, *arguments, **settings) -> StepResult:
        modes.append((model.segmentation_model[1].training, model.backbone.training))
        return train_step(model, *arguments, **settings)

    config = toy_config(data, tmp_path, "linear", "scheduler.total_iter=2", "eval.eval_interval=1")
    train_toy(config, train_step=watched)
    assert modes == [(True, False)] * 2


def test_with_an_average_it_is_what_is_evaluated_and_saved(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, "linear", "ema.enabled=true", "ema.decay=0.9")
    latest = read(tmp_path / CHECKPOINT_LATEST)
    for name in (MODEL_FINAL, MODEL_BEST):
        saved = read(tmp_path / name)["model"]
        assert all(torch.equal(value, latest["ema"]["model"][key]) for key, value in saved.items())
    assert not torch.equal(
        latest["model"]["segmentation_model.1.conv.weight"], saved["segmentation_model.1.conv.weight"]
    )


def test_bfloat16_runs_the_model_and_keeps_weights_and_loss_in_float32(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "half", "m2f", "model_dtype=BFLOAT16", "scheduler.total_iter=1")
    run(data, tmp_path / "full", "m2f", "scheduler.total_iter=1")
    (half,), (full,) = logged_losses(tmp_path / "half"), logged_losses(tmp_path / "full")
    assert half["loss"] != full["loss"]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.05)
    state = read(tmp_path / "half" / CHECKPOINT_LATEST)["model"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


class Infinite(torch.nn.Module):
    """A loss that is not finite from some call on."""

    def __init__(self, good_calls: int) -> None:
        super().__init__()
        self.good_calls = good_calls

    def terms(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.good_calls -= 1
        return {"loss_ce": logits.square().mean() * (1.0 if self.good_calls >= 0 else math.inf)}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["loss_ce"]


def test_a_training_that_diverges_ends_and_keeps_its_last_good_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.dinov3.toy_training.MultiSegmentationLoss", lambda *_: Infinite(good_calls=2))
    config = toy_config(data, tmp_path, "linear", "scheduler.total_iter=100", "checkpoint_interval=1")
    with pytest.raises(DivergedError, match="10 steps in a row had a loss of"):
        train_toy(config, log_interval=1)
    latest = read(tmp_path / CHECKPOINT_LATEST)
    assert latest["iteration"] == 11
    assert all(value.isfinite().all() for value in latest["model"].values())
    losses = [line["loss"] for line in logged_losses(tmp_path)]
    assert [loss is None for loss in losses] == [False] * 2 + [True] * 9  # JSON has no word for nan


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["decoder_head.type=m2f", "transforms.train.crop_size=[64,64]"], "decoder_head.type=m2f is not trained here"),
        (["datasets.val=''"], "No datasets.val was given"),
        (["datasets.train=''"], "No datasets.train was given"),
        (["output_dir=null"], "set output_dir"),
        (["decoder_head.backbone_out_layers=[9]"], r"backbone layers \[9\] were given"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(
    data: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_segmentation(toy_backbone(), toy_config(data, tmp_path, "linear", *words))


def test_the_log_says_what_is_trained(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(data, tmp_path, "linear", "scheduler.total_iter=1")
    assert any("linear head: 0.001 M of 0.251 M parameters are trained" in message for message in caplog.messages)
    assert any(message.startswith("[1/1] loss ") for message in caplog.messages)


def test_the_better_evaluation_is_kept() -> None:
    assert is_better({"mIoU": math.nan}, {}, "mIoU")
    assert is_better({"mIoU": 1.0}, {"mIoU": math.nan}, "mIoU")
    assert is_better({"mIoU": 2.0}, {"mIoU": 1.0}, "mIoU")
    assert not is_better({"mIoU": math.nan}, {"mIoU": 1.0}, "mIoU")
    assert not is_better({"mIoU": 1.0}, {"mIoU": 1.0}, "mIoU")


@pytest.mark.parametrize("head", ["linear", "m2f"])
def test_whole_images_of_any_size_are_trained_on(data: Path, tmp_path: Path, head: str) -> None:
    words = ["transforms.train.crop_size=null", "transforms.train.img_size=50", "bs=1", "scheduler.total_iter=1"]
    run(data, tmp_path, head, *words)
    assert math.isfinite(logged_losses(tmp_path)[0]["loss"])


def test_gradients_have_the_strides_of_their_parameters(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training_setup, "is_distributed", lambda: True)
    monkeypatch.setattr(process_group, "DistributedDataParallel", lambda network, **_: network)
    config = toy_config(data, tmp_path, "m2f")
    model = training_setup.distribute(build_model(toy_backbone(), config), config)
    outputs = model(torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last))
    sum(outputs[name].sum() for name in ("pred_logits", "pred_masks")).backward()
    gradients = {name: value for name, value in model.named_parameters() if value.grad is not None}
    assert len(gradients) > 50
    assert [name for name, value in gradients.items() if value.grad.stride() != value.stride()] == []


def test_things_are_due_at_intervals_and_once_at_the_end() -> None:
    assert [iteration for iteration in range(1, 8) if is_due(iteration, 3, 7)] == [3, 6, 7]
    assert [iteration for iteration in range(1, 7) if is_due(iteration, 3, 6)] == [3, 6]
