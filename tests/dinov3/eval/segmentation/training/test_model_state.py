"""What is saved of a model, and what loading it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dinov3.eval.segmentation.models import FeatureDecoder
from dinov3.eval.segmentation.training.model_state import frozen_digest, load_trained_state, trained_state
from dinov3.eval.segmentation.training.setup import build_model
from dinov3.utils.errors import DataError
from tests.dinov3.toy_training import toy_backbone, toy_config

BACKBONES = {"linear": "segmentation_model.0.feature_model.", "m2f": "segmentation_model.0.backbone."}


def model_of(head: str, *words: str, seed: int = 0) -> FeatureDecoder:
    config = toy_config(Path("unused"), Path("unused"), head, f"seed={seed}", *words)
    return build_model(toy_backbone(), config)


@pytest.mark.parametrize("head", BACKBONES)
def test_a_frozen_backbone_is_not_saved_and_all_else_is(head: str) -> None:
    model = model_of(head)
    state = trained_state(model)
    left_out = model.state_dict().keys() - state.keys()
    assert left_out == {f"{BACKBONES[head]}{name}" for name in model.backbone.state_dict()}
    assert any(name.endswith("running_mean") for name in state)


def test_lora_saves_the_updates_and_full_tuning_everything() -> None:
    lora = model_of("m2f", "lora.enabled=true")
    in_backbone = [name for name in trained_state(lora) if name.startswith(BACKBONES["m2f"])]
    assert len(in_backbone) == 4 * 2 * 2  # blocks, layers, A and B
    assert all("lora_" in name for name in in_backbone)
    full = model_of("m2f", "train_backbone=true")
    full.backbone.register_buffer("mask", torch.ones(1))
    assert trained_state(full).keys() == full.state_dict().keys()


@pytest.mark.parametrize("words", [[], ["lora.enabled=true"], ["train_backbone=true"]])
def test_saved_weights_come_back(words: list[str]) -> None:
    model, other = model_of("linear", *words, seed=1), model_of("linear", *words, seed=2)
    assert not torch.equal(model.segmentation_model[1].conv.weight, other.segmentation_model[1].conv.weight)
    load_trained_state(other, trained_state(model))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_whole_state_dict_is_accepted() -> None:
    model, other = model_of("linear", seed=1), model_of("linear", seed=2)
    load_trained_state(other, model.state_dict())
    assert torch.equal(model.segmentation_model[1].conv.weight, other.segmentation_model[1].conv.weight)


@pytest.mark.parametrize(
    ("head", "saved_with", "loaded_with", "message"),
    [
        ("linear", ["decoder_head.num_classes=5"], [], "5 classes and the model has 3: set decoder_head.num_classes=5"),
        ("m2f", ["decoder_head.num_classes=5"], [], "5 classes and the model has 3: set decoder_head.num_classes=5"),
        (
            "m2f",
            ["decoder_head.hidden_dim=64"],
            [],
            r"of another shape. Use the backbone and the decoder_head settings",
        ),
        ("m2f", ["decoder_head.num_decoder_layers=3"], [], r"and \d+ more unknown"),
        ("m2f", [], ["decoder_head.num_decoder_layers=3"], r"and \d+ more missing"),
        ("linear", ["lora.enabled=true"], [], "trained with LoRA: set lora.enabled=true"),
        ("linear", [], ["lora.enabled=true"], "trained without LoRA: set lora.enabled=false"),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(
    head: str, saved_with: list[str], loaded_with: list[str], message: str
) -> None:
    state = trained_state(model_of(head, *saved_with, seed=1))
    model = model_of(head, *loaded_with, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_trained_state(model, state, "model.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_digest_follows_the_frozen_weights_alone() -> None:
    model = model_of("linear", "lora.enabled=true", seed=1)
    digest = frozen_digest(model)
    assert frozen_digest(model_of("linear", "lora.enabled=true", seed=2)) == digest  # another head
    assert frozen_digest(model_of("linear")) != digest  # other names
    with torch.no_grad():
        model.backbone.norm.bias += 0.1
    assert frozen_digest(model) != digest
