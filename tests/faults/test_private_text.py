"""Fault 41: an exported model names neither this machine nor its folders, users or variables."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry
from nnunetv2.run.run_training_vit import run_training_entry

SECRET = "a-token-that-nobody-may-see"
SETTINGS = ("model.head=linear", "model.backbone=dinov2", "model.backbone_size=tiny", "model.pretrained=false")
LENGTH = ("training.num_epochs=1", "training.num_iterations_per_epoch=1", "training.num_val_iterations_per_epoch=1")


def test_the_archive_holds_nothing_private(
    tiny_images: Path, nnunet_folders: dict[str, Path], tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home_of_jane"))
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setattr(socket, "gethostname", lambda: "machine-of-jane")
    code, stderr = run(run_training_entry, "777", "2d", "0", "-device", "cpu", "model.tuning=full", *SETTINGS, *LENGTH)
    assert code == 0, stderr
    archive = tmp_path / "model.zip"
    words = ("-d", "777", "-o", archive, "-c", "2d", "-f", "0", "-tr", "nnUNetTrainer_vit", "--not_strict")
    code, stderr = run(export_pretrained_model_entry, *words)
    assert code == 0, stderr
    private = [str(folder) for folder in nnunet_folders.values()] + ["home_of_jane", "machine-of-jane", SECRET]
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        content = {name: opened.read(name) for name in names}
    assert any(name.endswith(".pth") for name in names)
    for name, data in content.items():
        for text in private:
            assert text.encode() not in data, f"{text} in {name}"
            assert text not in name
