"""The Mask2Former trainer on a tiny dataset."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.build import build_network
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.training.nnUNetTrainer.m2f_config import load_m2f_config
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision_m2f import (
    nnUNetTrainerNoDeepSupervision_m2f,
)
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.tiny_dataset import DATASET_JSON, make_trainer, tiny_plans, write_tiny_dataset

SMALL = [
    "model.backbone_size=tiny",
    "model.pretrained=false",
    "model.tuning=full",
    "model.hidden_dim=32",
    "model.num_heads=2",
    "model.dim_feedforward=32",
    "model.num_queries=5",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=3",
    "model.gradient_checkpointing=false",
    "m2f_train.num_points=50",
    "training.patch_size=[64,40]",
    "training.batch_size=3",
    "training.lr=1e-3",
    "training.num_epochs=2",
    "training.num_iterations_per_epoch=2",
    "training.num_val_iterations_per_epoch=1",
]
CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


@pytest.fixture(autouse=True)
def dataset(nnunet_folders: dict[str, Path], seeded: int) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def small_trainer(*overrides: str, trainer_class: type = nnUNetTrainer_m2f) -> nnUNetTrainer_m2f:
    return make_trainer(trainer_class, m2f_overrides=[*SMALL, *overrides])


def trainer_of_labels(labels: dict[str, Any]) -> nnUNetTrainer_m2f:
    dataset_json = DATASET_JSON | {"labels": labels, "regions_class_order": [1, 2]}
    return nnUNetTrainer_m2f(tiny_plans(), "2d", 0, dataset_json, CPU, m2f_overrides=SMALL)


def batch(target: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    if target is None:
        target = torch.zeros(3, 1, 64, 40, dtype=torch.int16)
        target[:, :, 5:30, 5:20] = 1
        target[:, :, 35:60, 5:35] = 2
    return {"data": target[:, :1].float() + 0.1 * torch.randn(3, 1, 64, 40), "target": target}


def test_the_plans_to_train_with_describe_the_network_and_the_callers_stay_as_they_are():
    plans = tiny_plans()
    before = copy.deepcopy(plans)
    trainer = nnUNetTrainer_m2f(plans, "2d", 0, DATASET_JSON, CPU, m2f_overrides=SMALL)
    assert plans == before
    assert trainer.configuration_manager.patch_size == [64, 40]
    assert trainer.configuration_manager.batch_size == 3
    section = trainer.plans_manager.plans["configurations"]["2d"]["architecture"]
    assert isinstance(build_network(*section.values(), 1, 3), M2FSegmentationModel)


def test_without_settings_patch_and_batch_are_those_of_the_plans():
    trainer = make_trainer(nnUNetTrainer_m2f)
    assert (trainer.configuration_manager.patch_size, trainer.configuration_manager.batch_size) == ([32, 32], 2)


def test_settings_reach_the_trainer():
    trainer = small_trainer("training.gradient_clip=null", "training.save_every=7", "training.weight_decay=0.1")
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (2, 2, 1)
    assert (trainer.initial_lr, trainer.weight_decay, trainer.gradient_clip_norm) == (1e-3, 0.1, None)
    assert (trainer.save_every, trainer.precision, trainer.enable_deep_supervision) == (7, "fp32", False)


class ShortTrainer(nnUNetTrainer_m2f):
    num_epochs = 7


class ShortTrainerOfSomeoneElse(ShortTrainer):
    initial_lr = 5.0


def test_what_a_subclass_sets_itself_goes_before_the_settings():
    trainer = small_trainer("training.lr=0.25", "training.save_every=9", trainer_class=ShortTrainerOfSomeoneElse)
    assert (trainer.num_epochs, trainer.initial_lr, trainer.save_every) == (7, 5.0, 9)


def plans_with(name: str, **changes: Any) -> dict[str, Any]:
    plans = tiny_plans()
    plans["configurations"][name] = {**plans["configurations"]["2d"], **changes}
    return plans


def test_the_second_stage_of_a_cascade_is_refused_with_what_is_not():
    with pytest.raises(UsageError, match="configuration other is the second stage of a cascade, .* use 2d"):
        nnUNetTrainer_m2f(plans_with("other", previous_stage="2d"), "other", 0, DATASET_JSON, CPU)


def test_imagenet_constants_need_intensities_between_0_and_1():
    arguments = ("other", 0, DATASET_JSON, CPU, None, [*SMALL, "model.input_norm=imagenet"])
    with pytest.raises(UsageError, match=r"expects intensities in \[0, 1\], and the plans use ZScoreNormalization"):
        nnUNetTrainer_m2f(plans_with("other", normalization_schemes=["ZScoreNormalization"]), *arguments)
    nnUNetTrainer_m2f(plans_with("other", normalization_schemes=["RGBTo01Normalization"]), *arguments)


def test_wrong_settings_are_refused_at_construction():
    with pytest.raises(UsageError, match="did you mean lora.r"):
        make_trainer(nnUNetTrainer_m2f, m2f_overrides=["lora.rank=3"])
    with pytest.raises(UsageError, match="nowhere.yaml does not exist"):
        make_trainer(nnUNetTrainer_m2f, m2f_config_path="nowhere.yaml")


def test_backbone_and_head_learn_at_their_rates_which_change_every_iteration():
    trainer = small_trainer("training.backbone_lr_multiplier=0.5", "training.scheduler=poly")
    trainer.initialize()
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {"head": 1e-3, "head, no decay": 1e-3, "backbone": 5e-4, "backbone, no decay": 5e-4}
    trainer.train_step(batch())
    for group in trainer.optimizer.param_groups:
        assert group["lr"] == pytest.approx(rates[group["name"]] * 0.75**0.9)


def test_lora_learns_at_the_rate_of_the_head_and_nothing_else_of_the_backbone_does():
    trainer = small_trainer("model.tuning=lora", "lora.r=2")
    trainer.initialize()
    groups = {group["name"]: group for group in trainer.optimizer.param_groups}
    assert groups["lora"]["lr"] == groups["head"]["lr"]
    assert len(groups["lora"]["params"]) == 4 * 2 * 2  # blocks, layers in each, two matrices for each
    assert groups.keys() == {"head", "head, no decay", "lora"}


def test_one_step_changes_the_weights_and_validation_counts_every_class():
    trainer = small_trainer("training.warmup_iters=0")
    trainer.initialize()
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.network.train()
    assert np.isfinite(trainer.train_step(batch())["loss"])
    after = trainer.network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if ".backbone." in name)
    trainer.network.eval()
    with torch.no_grad():
        counts = trainer.validation_step(batch())
    assert np.isfinite(counts["loss"])
    true = counts["tp_hard"] + counts["fn_hard"]
    np.testing.assert_array_equal(true, [3 * 25 * 15, 3 * 25 * 30])


def test_regions_train_and_are_counted_one_by_one():
    trainer = trainer_of_labels(REGIONS)
    trainer.initialize()
    assert trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]["regions"] is True
    target = torch.zeros(3, 2, 64, 40, dtype=torch.bool)
    target[:, 0, 5:30] = True
    target[:, 1, 5:10] = True
    trainer.train_step(batch(target))
    trainer.network.eval()
    with torch.no_grad():
        counts = trainer.validation_step(batch(target))
    np.testing.assert_array_equal(counts["tp_hard"] + counts["fn_hard"], [3 * 25 * 40, 3 * 5 * 40])


@pytest.mark.parametrize("labels", [DATASET_JSON["labels"] | {"ignore": 3}, REGIONS | {"ignore": 3}])
def test_a_patch_that_is_ignored_altogether_changes_nothing_but_by_weight_decay(labels):
    trainer = trainer_of_labels(labels)
    trainer.initialize()
    has_regions = trainer.label_manager.has_regions
    shape = (3, 3 if has_regions else 1, 64, 40)
    ignored = torch.ones(shape, dtype=torch.bool) if has_regions else torch.full(shape, 3, dtype=torch.int16)
    loss, _ = trainer.forward_loss(torch.randn(3, 1, 64, 40), ignored)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in trainer.network.parameters())


def test_the_variant_without_deep_supervision_supervises_the_last_prediction_alone():
    losses = {}
    for trainer_class in (nnUNetTrainer_m2f, nnUNetTrainerNoDeepSupervision_m2f):
        trainer = small_trainer(trainer_class=trainer_class)
        trainer.initialize()
        terms = []
        trainer.loss.register_forward_hook(lambda module, inputs, output, terms=terms: terms.extend(output))
        torch.manual_seed(0)
        trainer.forward_loss(**{name: batch()[name] for name in ("data", "target")})
        losses[trainer_class] = terms
    assert losses[nnUNetTrainerNoDeepSupervision_m2f] == ["loss_class", "loss_mask", "loss_dice"]
    assert len(losses[nnUNetTrainer_m2f]) == 3 * 4


def test_weights_that_cannot_be_had_stop_the_training_before_it_starts():
    with pytest.raises(UsageError, match="model.checkpoint=absent.pth does not exist"):
        small_trainer("model.checkpoint=absent.pth").initialize()
    with pytest.raises(UsageError, match="no released weights for dinov3 tiny"):
        small_trainer("model.pretrained=true").initialize()


def test_a_file_of_weights_fills_the_backbone(tmp_path):
    donor = small_trainer()
    donor.initialize()
    weights = donor.network.backbone.vit.state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    trainer = small_trainer(f"model.checkpoint={tmp_path / 'weights.pth'}")
    torch.manual_seed(7)
    trainer.initialize()
    torch.testing.assert_close(trainer.network.backbone.vit.state_dict(), weights, rtol=0, atol=0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    trainer = small_trainer()
    trainer.initialize()
    trainer.train_step(batch())
    trainer.train_step(batch())
    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path))
    return path


def test_a_checkpoint_needs_no_backbone_weights_and_knows_its_settings(checkpoint):
    trainer = small_trainer("model.pretrained=true")
    trainer.load_checkpoint(str(checkpoint))
    content = load_checkpoint(checkpoint)
    assert content["init_args"]["m2f_overrides"] == SMALL
    assert content["trainer_name"] == "nnUNetTrainer_m2f"
    torch.testing.assert_close(trainer.network.state_dict(), dict(content["network_weights"]), rtol=0, atol=0)


@pytest.mark.parametrize(("epochs", "factor"), [(2, 0.5**0.9), (10, 0.9**0.9)])
def test_a_continued_training_goes_on_along_its_schedule_also_a_longer_one(checkpoint, epochs, factor):
    trainer = small_trainer("training.scheduler=poly", f"training.num_epochs={epochs}")
    trainer.load_checkpoint(str(checkpoint))
    trainer.lr_scheduler.last_epoch -= 1
    trainer.lr_scheduler.step()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)


def test_the_settings_are_kept_with_the_fold():
    trainer = small_trainer()
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    kept = Path(trainer.output_folder) / "m2f_config.yaml"
    assert load_m2f_config(kept) == trainer.m2f_config
