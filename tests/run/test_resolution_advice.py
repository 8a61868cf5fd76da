"""Before a training: structures thinner than the head can draw are named, with the setting that helps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.model.head_config import head_config_class
from nnunetv2.preprocessing.stored_cases import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.run import resolution_advice
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.vit_config import patch_size_for_scale
from tests.model.heads.small import HEADS, small_network, small_words
from tests.training.tiny_dataset import CASES, NAME, make_trainer, write_tiny_dataset


@pytest.fixture
def thin_dataset(nnunet_folders: dict[str, Path]) -> Path:
    """The tiny dataset; class 1 is a line of one pixel, class 2 a square of 12."""
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    segmentation = np.zeros((1, 1, 40, 40), dtype=np.int16)
    segmentation[..., 4, 3:37] = 1
    segmentation[..., 20:32, 20:32] = 2
    properties = {"class_locations": {label: np.argwhere(segmentation == label) for label in (1, 2)}}
    blocks, chunks = comp_blosc2_params(segmentation.shape, (32, 32), 4)
    for case in CASES:
        path = str(folder / "nnUNetPlans_2d" / case)
        image = segmentation.astype(np.float32)
        nnUNetDatasetBlosc2.save_case(image, segmentation, properties, path, chunks, blocks, chunks, blocks)
    return folder


def trainer_of(head: str, *words: str) -> nnUNetTrainer_vit:
    return make_trainer(nnUNetTrainer_vit, overrides=[*small_words(head), *words])


def test_a_thin_class_is_named_with_setting_cost_and_ceiling(thin_dataset):
    advice = resolution_advice.resolution_advice(trainer_of("segformer"))
    assert "\n" not in advice
    assert advice.startswith("left is 1 pixels wide (median of 4 cases), less than 1.5 times the stride of the head")
    assert "model.input_scale=4 training.patch_size=[32,32]" in advice
    assert "(64 tokens per patch instead of 4;" in advice
    now, then = map(float, re.findall(r"Dice of (\S+) on it, and (\S+) with", advice)[0])
    assert now < 0.5
    assert then == 1


@pytest.mark.parametrize("words", [["model.detail_branch=true"], ["model.input_scale=4"]])
def test_what_draws_thin_structures_needs_no_advice(thin_dataset, words):
    assert resolution_advice.resolution_advice(trainer_of("segformer", *words)) is None


def test_heads_at_full_resolution_measure_nothing(thin_dataset, monkeypatch):
    monkeypatch.setattr(resolution_advice, "thinnest_structure", pytest.fail)
    assert resolution_advice.resolution_advice(trainer_of("unetr")) is None


def test_wide_structures_need_no_advice(nnunet_folders):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    assert resolution_advice.resolution_advice(trainer_of("segformer")) is None


def test_the_trainer_is_left_as_it_was(thin_dataset):
    trainer = trainer_of("segformer")
    plans = json.dumps(trainer.plans_manager.plans)
    resolution_advice.advise_on_resolution(trainer)
    assert trainer.network is None
    assert json.dumps(trainer.plans_manager.plans) == plans
    assert not Path(trainer.output_folder).exists()
    assert not (thin_dataset / "splits_final.json").exists()
    assert len(trainer.start_notes) == 1
    assert trainer.start_notes[0].startswith("left is 1 pixels wide")


def test_errors_of_the_cases_are_left_to_the_training(thin_dataset):
    for path in (thin_dataset / "nnUNetPlans_2d").glob("*_seg.b2nd"):
        path.write_bytes(b"damaged")
    trainer = trainer_of("segformer")
    resolution_advice.advise_on_resolution(trainer)
    assert trainer.start_notes == []


def test_the_unet_gets_no_advice(thin_dataset, monkeypatch):
    monkeypatch.setattr(resolution_advice, "resolution_advice", pytest.fail)
    resolution_advice.advise_on_resolution(make_trainer(nnUNetTrainer))


@pytest.mark.parametrize("backbone", ["dinov3", "dinov2"])
@pytest.mark.parametrize("head", HEADS)
def test_the_stride_is_that_of_the_output(head, backbone, seeded):
    config, _ = AnyHeadConfig.load(None, small_words(head, backbone=backbone))
    expected = config.model.head_config().logit_stride(config.model.backbone_row.shape)
    network = small_network(head, 2, backbone=backbone).eval()
    seen = []
    network.head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        network(torch.randn(1, 1, 224, 224))
    output = seen[0]["pred_masks"] if head_config_class(head).kind == "queries" else seen[0]
    if expected is not None:  # of users' heads it need not be known
        assert 224 / output.shape[-1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("patch", "scale", "expected"),
    [
        ([512, 512], 1, [512, 512]),
        ([512, 512], 2, [512, 512]),
        ([512, 512], 4, [256, 256]),
        ([1024, 640], 2, [512, 512]),
        ([56, 40], 4, [56, 40]),
        ([512, 100], 3, [320, 100]),
        ([2048, 512], 2, [1024, 512]),
        ([2000, 512, 500], 4, [2000, 256, 256]),  # slices are not enlarged
    ],
)
def test_patches_are_limited_by_their_enlarged_size(patch, scale, expected):
    assert patch_size_for_scale(patch, scale) == expected


def test_the_default_patch_follows_the_scale(nnunet_folders):
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["patch_size"] = [512, 448]

    def patch(*words: str) -> list[int]:
        dataset_json = json.loads((folder / "dataset.json").read_text())
        overrides = [*small_words("segformer"), *words]
        trainer = nnUNetTrainer_vit(plans, "2d", 0, dataset_json, torch.device("cpu"), overrides=overrides)
        return list(trainer.configuration_manager.patch_size)

    assert patch() == [512, 448]
    assert patch("model.input_scale=4") == [256, 256]
    assert patch("model.input_scale=4", "training.patch_size=[512,512]") == [512, 512]
    # A model that the version before trained with the patch of the plans goes on with it.
    model = nnunet_folders["nnUNet_results"] / NAME / "nnUNetTrainer_vit__nnUNetPlans__2d"
    (model / "fold_1").mkdir(parents=True)
    (model / "fold_1" / "checkpoint_final.pth").touch()
    (model / "plans.json").write_text(json.dumps(plans))
    assert patch("model.input_scale=4") == [512, 448]
