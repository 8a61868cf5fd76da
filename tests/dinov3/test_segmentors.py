"""Segmentation models by name: what is read, what must fit, and Meta's names and arguments."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.testing import assert_close

import dinov3.hub.segmentors as segmentors
from dinov3.hub.backbones import Weights, dinov3_vit7b16
from dinov3.hub.segmentors import SegmentorWeights, dinov3_vit7b16_ms, make_m2f_segmentor
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.meta_tensors import meta_tensors

TINY_VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2, "ffn_ratio": 2, "qkv_bias": False}
TINY = {
    "backbone_kwargs": TINY_VIT,
    "hidden_dim": 32,
    "num_classes": 3,
    "dim_feedforward": 48,
    "num_queries": 6,
    "num_decoder_layers": 2,
    "num_encoder_layers": 1,
}


def random_model(**kwargs):
    return make_m2f_segmentor(pretrained=False, autocast_dtype=torch.float32, **{**TINY, **kwargs})


def head_of(model):
    return {name: value for name, value in model.state_dict().items() if ".backbone." not in name}


@pytest.fixture
def backbone_file(tmp_path, seeded):
    vit = dinov3_vit7b16(pretrained=False, **TINY_VIT)
    torch.save(vit.state_dict(), tmp_path / "backbone.pth")
    return tmp_path / "backbone.pth"


def test_arguments_are_metas():
    parameters = inspect.signature(dinov3_vit7b16_ms).parameters
    assert {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY} == {
        "pretrained": True,
        "weights": SegmentorWeights.ADE20K,
        "backbone_weights": Weights.LVD1689M,
        "check_hash": False,
        "autocast_dtype": torch.bfloat16,
    }


def test_released_model_has_the_tensors_of_its_files():
    with meta_tensors():
        model = dinov3_vit7b16_ms(pretrained=False)
    assert len(head_of(model)) == 479
    assert len(model.backbone.state_dict()) == 610
    assert model.autocast_dtype == torch.bfloat16
    assert not any(module.training for module in model.modules())


def test_head_and_backbone_are_read_from_their_files(tmp_path, backbone_file):
    saved = random_model()
    torch.save(head_of(saved), tmp_path / "head.pth")
    model = dinov3_vit7b16_ms(
        weights=tmp_path / "head.pth", backbone_weights=backbone_file, autocast_dtype=torch.float32, **TINY
    )
    for name, value in head_of(saved).items():
        assert_close(model.state_dict()[name], value)
    for name, value in torch.load(backbone_file, weights_only=True).items():
        assert_close(model.backbone.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64))["pred_logits"].shape == (1, 6, 4)


def test_a_file_with_the_backbone_needs_no_other(tmp_path, seeded):
    saved = random_model()
    torch.save({"model": saved.state_dict()}, tmp_path / "all.pth")
    model = make_m2f_segmentor(weights=tmp_path / "all.pth", backbone_weights=tmp_path / "absent.pth", **TINY)
    assert_close(dict(model.state_dict()), dict(saved.state_dict()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.pop("segmentation_model.1.predictor.post_norm.weight"), "1 missing.*post_norm.weight"),
        (lambda head: head.update({"segmentation_model.1.extra": torch.zeros(1)}), "1 unexpected.*extra is not part"),
        (
            lambda head: head.update({"segmentation_model.1.predictor.class_embed.bias": torch.zeros(151)}),
            r"class_embed.bias has shape \(151,\) instead of \(4,\)",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused(change, message, tmp_path, backbone_file):
    head = head_of(random_model())
    change(head)
    torch.save(head, tmp_path / "head.pth")
    with pytest.raises(DataError, match=message):
        make_m2f_segmentor(weights=tmp_path / "head.pth", backbone_weights=backbone_file, **TINY)


def test_a_file_with_part_of_the_backbone_is_refused(tmp_path, seeded):
    state = random_model().state_dict()
    del state["segmentation_model.0.backbone.blocks.3.norm1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(DataError, match="1 missing.*blocks.3.norm1.weight"):
        make_m2f_segmentor(weights=tmp_path / "part.pth", **TINY)


@pytest.mark.parametrize("weights", [SegmentorWeights.ADE20K, "ADE20K"])
def test_released_head_is_looked_for_beside_its_backbone(weights, monkeypatch):
    class Asked(Exception):
        pass

    def ask(source, *, check_hash):
        raise Asked(source, check_hash)

    monkeypatch.setattr(segmentors, "local_copy", ask)
    with pytest.raises(Asked) as asked:
        dinov3_vit7b16_ms(weights=weights, check_hash=True)
    folder = "https://dl.fbaipublicfiles.com/dinov3/dinov3_vit7b16"
    assert asked.value.args == (f"{folder}/dinov3_vit7b16_ade20k_m2f_head-bf307cb1.pth", True)


def test_heads_that_were_not_released_are_refused():
    with pytest.raises(UsageError, match="No head for ADE20K was released on dinov3_vitl16; there is ADE20K on dinov3"):
        make_m2f_segmentor(backbone_name="dinov3_vitl16")


def test_unknown_backbone_is_refused():
    with pytest.raises(UsageError, match="'dinov3_vitx16' is unknown; choose one of dinov3_vits16, dinov3_vits16plus"):
        make_m2f_segmentor(backbone_name="dinov3_vitx16", pretrained=False)
