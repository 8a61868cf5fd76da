"""A training that was killed and goes on ends as if it had not been."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.train import train_step
from dinov3.eval.segmentation.train_m2f import train_step_m2f
from dinov3.eval.segmentation.training import loop as training_loop
from dinov3.eval.segmentation.training.checkpoint import CHECKPOINT_LATEST, CHECKPOINT_PREVIOUS, config_differences
from dinov3.eval.segmentation.training.log import TRAINING_LOG
from dinov3.eval.segmentation.training.saved_model import MODEL_BEST, MODEL_FINAL
from dinov3.eval.segmentation.training.step import StepResult
from dinov3.utils.errors import DataError, UsageError, WriteError
from tests.dinov3.toy_training import logged_losses, toy_backbone, toy_config, train_toy, write_dataset
from tests.faults.injection import flip_bit, truncate

# Everything random is on: dropout, dropped paths, DINOv3's rescaled positions (when it is trained), flips, sizes.
RANDOM = ["transforms.train.random_img_size_ratio_range=[0.8,1.5]", "transforms.train.photometric_distortion=true"]
TRAININGS = {
    "linear": ["scheduler.total_iter=6", "ema.enabled=true", "eval.eval_interval=2"],
    "linear_full": ["scheduler.total_iter=6", "train_backbone=true", "num_workers=2"],
    "m2f_lora": ["scheduler.total_iter=4", "lora.enabled=true", "eval.eval_interval=3"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("toy"))


class Killed(Exception):
    pass


def killed_before(step: int, train: object) -> object:
    """A step of training that is not survived when `step` steps are done."""

    def wrapped(*arguments, **settings) -> StepResult:
        if arguments[9] == step:
            raise Killed
        return train(*arguments, **settings)

    return wrapped


def assert_equal(found: object, expected: object, place: str = "") -> None:
    """Equal to the last bit, at any depth."""
    assert type(found) is type(expected), place
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert list(found) == list(expected), place
        for key, value in expected.items():
            assert_equal(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            assert_equal(found[index], value, f"{place}[{index}]")
    else:
        assert found == expected or (math.isnan(found) and math.isnan(expected)), place


def without_settings(content: dict) -> dict:
    return {key: value for key, value in content.items() if key != "config"}


@pytest.mark.parametrize("name", ["linear", "linear_full", pytest.param("m2f_lora", marks=pytest.mark.slow)])
def test_killed_and_resumed_is_bit_equal_to_uninterrupted(data: Path, tmp_path: Path, name: str) -> None:
    head = name.partition("_")[0]
    words = [*TRAININGS[name], *RANDOM, "checkpoint_interval=2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = train_toy(toy_config(data, whole, head, *words), log_interval=1)
    step = {"linear": train_step, "m2f": train_step_m2f}[head]
    with pytest.raises(Killed):
        train_toy(toy_config(data, parts, head, *words), log_interval=1, train_step=killed_before(3, step))
    torch.manual_seed(99)
    metrics = train_toy(toy_config(data, parts, head, *words, "resume=true", "num_workers=0"), log_interval=1)
    assert_close(metrics, expected, rtol=0, atol=0, equal_nan=True)
    for file in (CHECKPOINT_LATEST, MODEL_BEST, MODEL_FINAL):
        found, reference = (torch.load(folder / file, weights_only=True) for folder in (parts, whole))
        assert_equal(without_settings(found), without_settings(reference), file)
    assert logged_losses(parts) == logged_losses(whole)


def test_a_finished_training_is_not_trained_again(data: Path, tmp_path: Path) -> None:
    words = ["scheduler.total_iter=2"]
    expected = train_toy(toy_config(data, tmp_path, "linear", *words))
    before = (tmp_path / CHECKPOINT_LATEST).read_bytes()
    metrics = train_toy(
        toy_config(data, tmp_path, "linear", *words, "resume=true"), train_step=killed_before(2, train_step)
    )
    assert_close(metrics, expected, rtol=0, atol=0, equal_nan=True)
    assert (tmp_path / CHECKPOINT_LATEST).read_bytes() == before


def test_resume_without_a_checkpoint_starts(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_toy(toy_config(data, tmp_path, "linear", "scheduler.total_iter=1", "resume=true"))
    assert any("the training starts anew" in message for message in caplog.messages)
    assert (tmp_path / MODEL_FINAL).is_file()


def test_a_training_that_replaces_another_says_so(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        caplog.clear()
        train_toy(toy_config(data, tmp_path, "linear", "scheduler.total_iter=1"))
    assert any("will replace" in message and "resume=true" in message for message in caplog.messages)
    assert len(logged_losses(tmp_path)) == 1


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that can go on."""
    folder = tmp_path_factory.mktemp("begun")
    train_toy(toy_config(data, folder, "linear", "scheduler.total_iter=2"))
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=4"], "other settings: seed was 3 and is 4. Set them back"),
        (["optimizer.lr=0.5", "bs=4"], "optimizer.lr was 0.01 and is 0.5; images per step were 2 and are 4"),
        (["decoder_head.num_classes=4"], "decoder_head.num_classes was 3 and is 4"),
        (["eval.reduce_zero_label=true"], "eval.reduce_zero_label was False and is True"),
        (["lora.enabled=true"], "lora.enabled was False and is True"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(data: Path, begun: Path, words: list[str], message: str) -> None:
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(UsageError, match=message):
        train_toy(toy_config(data, begun, "linear", "scheduler.total_iter=2", "resume=true", *words))
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_a_checkpoint_of_another_backbone_is_refused(data: Path, begun: Path) -> None:
    config = toy_config(data, begun, "linear", "scheduler.total_iter=2", "resume=true")
    with pytest.raises(UsageError, match="belongs to a training with other backbone weights"):
        train_toy(config, backbone=toy_backbone(seed=1))


def test_processes_that_do_not_find_the_checkpoint_of_the_others_are_refused(
    data: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "gather", lambda iteration: [iteration, 0])
    config = toy_config(data, begun, "linear", "scheduler.total_iter=2", "resume=true")
    with pytest.raises(UsageError, match=r"at different iterations \(0, 2\).*give an output_dir that all machines"):
        train_toy(config)


def test_settings_that_change_nothing_that_is_learned_may_differ() -> None:
    before = {"bs": 2, "eval": {"mode": "slide", "reduce_zero_label": True}, "datasets": {"root": "a", "train": "x"}}
    now = {"bs": 1, "eval": {"mode": "whole", "reduce_zero_label": True}, "datasets": {"root": "b", "train": "x"}}
    assert config_differences(before, now) == []
    now["datasets"]["train"] = "y"
    assert config_differences(before, now) == ["datasets.train was x and is y"]


class Code:
    """A pickle of it runs a function when it is opened."""

    def __reduce__(self) -> tuple:
        return print, ("opened",)


@pytest.mark.parametrize("kind", ["truncated", "empty", "code", "other"])
def test_a_checkpoint_that_cannot_be_read_is_refused_without_running_code(
    data: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    path = tmp_path / CHECKPOINT_LATEST
    whole = (begun / CHECKPOINT_LATEST).read_bytes()
    if kind == "code":
        torch.save({"model": Code()}, path)
    elif kind == "other":
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(whole[: len(whole) // 2] if kind == "truncated" else b"")
    message = "it has no backbone_digest, optimizer" if kind == "other" else f"{CHECKPOINT_LATEST} cannot be read"
    with pytest.raises(DataError, match=message) as caught:
        train_toy(toy_config(data, tmp_path, "linear", "resume=true"))
    assert "\n" not in str(caught.value)
    assert "opened" not in capsys.readouterr().out


def test_lines_of_the_log_behind_the_checkpoint_are_dropped(data: Path, tmp_path: Path) -> None:
    words = ["scheduler.total_iter=3", "checkpoint_interval=2"]
    with pytest.raises(Killed):
        train_toy(toy_config(data, tmp_path, "linear", *words), log_interval=1, train_step=killed_before(2, train_step))
    with open(tmp_path / TRAINING_LOG, "a", encoding="utf-8") as file:
        file.write('{"iteration": 3, "losses": {"loss": 7.0}}\n{"iteration": 4, "lo')
    train_toy(toy_config(data, tmp_path, "linear", *words, "resume=true"), log_interval=1)
    lines = [json.loads(line) for line in (tmp_path / TRAINING_LOG).read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 3]
    assert not any(line.get("losses", {}).get("loss") == 7.0 for line in lines)


def test_a_full_disk_ends_no_training_before_its_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["checkpoint_interval=1", "scheduler.total_iter=4", "eval.eval_interval=4"]
    with pytest.raises(Killed):
        train_toy(toy_config(data, tmp_path, "linear", *words), train_step=killed_before(2, train_step))
    before = (tmp_path / CHECKPOINT_LATEST).read_bytes()
    save, latest = torch.save, []

    def save_when_there_is_space(content: dict, file: object) -> None:
        if content["iteration"] == 3:
            latest.append((tmp_path / CHECKPOINT_LATEST).read_bytes())
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", save_when_there_is_space)
    train_toy(toy_config(data, tmp_path, "linear", *words, "resume=true"))
    assert latest
    assert set(latest) == {before}
    assert any("disk full" in message and "tries again" in message for message in caplog.messages)
    assert torch.load(tmp_path / CHECKPOINT_LATEST, weights_only=True)["iteration"] == 4
    assert not list(tmp_path.glob(".*.tmp.*"))

    def full(content: dict, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match=r"model_final\.pth could not be written, disk full"):
        train_toy(toy_config(data, tmp_path, "linear", *words, "resume=true"))


@pytest.mark.parametrize("kind", ["truncated", "one bit"])
def test_a_damaged_latest_checkpoint_is_replaced_by_the_previous_one(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    words = ["checkpoint_interval=1", "scheduler.total_iter=4"]
    with pytest.raises(Killed):
        train_toy(toy_config(data, tmp_path, "linear", *words), train_step=killed_before(3, train_step))
    (tmp_path / f".0123abcd.tmp.{CHECKPOINT_LATEST}").write_bytes(b"half of a killed process")
    if kind == "truncated":
        truncate(tmp_path / CHECKPOINT_LATEST, 0.5)
    else:
        flip_bit(tmp_path / CHECKPOINT_LATEST, np.random.default_rng(0))
    train_toy(toy_config(data, tmp_path, "linear", *words, "resume=true"))
    assert any(f"resumes from {CHECKPOINT_PREVIOUS}" in message for message in caplog.messages)
    names = {path.name for path in tmp_path.iterdir()}
    assert CHECKPOINT_PREVIOUS not in names  # not needed beside the final model
    assert not [name for name in names if ".tmp." in name]
    assert torch.load(tmp_path / CHECKPOINT_LATEST, weights_only=True)["iteration"] == 4
