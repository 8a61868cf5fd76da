"""A vision transformer is found in a file of any form, and comes out with Meta's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dinov3.hub.key_conversions import meta_to_hf, meta_to_timm
from dinov3.hub.read_weights import read_weights
from dinov3.utils.errors import DataError
from tests.dinov3.hub.tiny_weights import WIDTH, meta_weights

HEADS = {"dino_head.last_layer.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(2)}


def below(prefix: str, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in (weights or meta_weights()).items()}


# What people have: the released files, and what comes out of trainings.
FORMS: dict[str, Callable[[Path], None]] = {
    "Meta": lambda path: torch.save(meta_weights(), path),
    "Meta's self-supervised training": lambda path: torch.save({"teacher": below("backbone.") | HEADS}, path),
    "its whole state": lambda path: torch.save(
        {"model": below("teacher.backbone.") | below("student.backbone.")}, path
    ),
    "iBOT": lambda path: torch.save({"student": {}, "teacher": below("module.backbone."), "epoch": 1}, path),
    "data parallel": lambda path: torch.save({"state_dict": below("module.")}, path),
    "compiled": lambda path: torch.save({"model": below("_orig_mod.")}, path),
    "a segmentor": lambda path: torch.save({"model": below("segmentation_model.0.backbone.")}, path),
    "timm": lambda path: save_file(meta_to_timm(meta_weights()), path),
    "timm in a classifier": lambda path: torch.save(below("backbone.", meta_to_timm(meta_weights())), path),
    "timm with biases": lambda path: save_file(meta_to_timm(meta_weights(), qkv_bias=True), path),
    "transformers 5": lambda path: save_file(meta_to_hf(meta_weights()), path),
    "transformers 4": lambda path: save_file(meta_to_hf(meta_weights(), layer_prefix="layer"), path),
    "a task of transformers": lambda path: save_file(below("dinov3_vit.", meta_to_hf(meta_weights())), path),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_weights(tmp_path, form):
    FORMS[form](tmp_path / "w.pth")
    weights, expected = read_weights(tmp_path / "w.pth"), meta_weights()
    assert weights.keys() <= expected.keys()
    lost = {name for name in expected if name not in weights}
    assert all(name.endswith(("periods", "bias_mask", "qkv.bias", "mask_token")) for name in lost)
    torch.testing.assert_close(weights, {name: expected[name] for name in weights}, rtol=0, atol=0)


def test_the_teacher_is_taken_of_two(tmp_path):
    student = {name: tensor + 1 for name, tensor in meta_weights().items()}
    torch.save(below("student.backbone.", student) | below("teacher.backbone."), tmp_path / "w.pth")
    torch.testing.assert_close(read_weights(tmp_path / "w.pth")["cls_token"], meta_weights()["cls_token"])


def test_of_two_equals_none_is_taken(tmp_path):
    torch.save(below("left.") | below("right."), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w.pth: There are several vision transformers in it \(left., right.\)"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"head.weight": torch.ones(1)}, "not those of a DINOv3 vision transformer.*found head.weight"),
        (meta_weights() | {"pos_embed": torch.ones(1, 197, WIDTH)}, "not those of a DINOv3.*DINOv2, MAE"),
    ],
)
def test_a_file_of_another_model_is_refused_by_name(tmp_path, weights, message):
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(DataError, match=rf"w.pth: The weights are {message}"):
        read_weights(tmp_path / "w.pth")


def test_a_url_of_a_file_is_read(tmp_path):
    torch.save(meta_weights(), tmp_path / "w.pth")
    assert read_weights((tmp_path / "w.pth").as_uri()).keys() == meta_weights().keys()


def test_a_released_file_of_another_family_is_refused(shared_folder):
    path = shared_folder / "weights" / "dinov2_vits14.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with pytest.raises(DataError, match="learned position embeddings belong to DINOv2"):
        read_weights(path)
