"""Fault 39: without its weights a backbone is not trained from random ones, unless the settings say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib import error, request

import pytest

from nnunetv2.run.run_training_vit import run_training_entry
from tests.faults.conftest import one_line

WORDS = ("777", "2d", "0", "-device", "cpu")


@pytest.fixture(autouse=True)
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the network away; returns the addresses that were asked for."""
    from huggingface_hub import constants

    asked = []

    def refuse(asked_for: request.Request, **_: object) -> None:
        asked.append(asked_for.full_url)
        raise error.URLError("Network is unreachable")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(request, "urlopen", refuse)
    return asked


def test_weights_that_cannot_be_downloaded(
    tiny_images: Path, nnunet_folders: dict[str, Path], run: Callable, requests: list[str]
) -> None:
    code, stderr = run(run_training_entry, *WORDS, "model.backbone=dinov2", "model.backbone_size=small")
    assert code == 2
    one_line(
        stderr, "not in the local cache", "Network is unreachable", "model.checkpoint=FILE", "model.pretrained=false"
    )
    assert len(requests) == 1  # a library that tried again would wait for half a minute
    assert not list(nnunet_folders["nnUNet_results"].rglob("*.pth"))


def test_weights_whose_file_is_missing(tiny_images: Path, run: Callable) -> None:
    code, stderr = run(run_training_entry, *WORDS, "model.backbone=dinov2", "model.checkpoint=no/such/file.pth")
    assert code == 2
    one_line(stderr, "model.checkpoint=no/such/file.pth does not exist")


def test_random_weights_are_trained_only_if_asked_for(tiny_images: Path, run: Callable, caplog, short_training) -> None:
    words = ("model.backbone=dinov2", "model.backbone_size=tiny", "model.tuning=full", "training.num_epochs=1")
    length = ("training.num_iterations_per_epoch=1", "training.num_val_iterations_per_epoch=1")
    code, stderr = run(run_training_entry, *WORDS, "model.pretrained=false", "model.head=linear", *words, *length)
    assert code == 0, stderr
    assert "starts from random weights (model.pretrained=false)" in caplog.text
