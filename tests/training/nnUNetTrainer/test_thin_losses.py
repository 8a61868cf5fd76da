"""Skeleton Recall and soft-clDice in trainings: of the U-Net, of dense heads and of heads with queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.dataloading import batches
from nnunetv2.training.loss import tubes
from nnunetv2.training.loss.dense_terms import DenseTerms
from nnunetv2.training.loss.loss_config import LabelTask
from nnunetv2.training.loss.tubes import num_label_channels, with_tubes
from nnunetv2.training.nnUNetTrainer.any_head_config import load_any_head_config
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerSkeletonRecall import nnUNetTrainerSkeletonRecall
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerSoftClDice import nnUNetTrainerSoftClDice
from tests.model.heads.small import small_words
from tests.training import tiny_volumes
from tests.training.tiny_dataset import DATASET_JSON, make_trainer, tiny_plans, write_tiny_dataset

LABELS = {
    "labels": {"background": 0, "left": 1, "right": 2},
    "ignore": {"background": 0, "left": 1, "right": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2], "right": [2]},
    "regions_ignore": {"background": 0, "whole": [1, 2], "right": [2], "ignore": 3},
}
TERMS = ["loss.skeleton_recall=1.0", "loss.soft_cldice=0.25", "loss.soft_cldice_iterations=3"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _dataset(nnunet_folders: dict[str, Path]) -> None:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def trainer_of(trainer: type[nnUNetTrainer], labels: str = "labels", **arguments: Any) -> nnUNetTrainer:
    dataset_json = {**DATASET_JSON, "labels": LABELS[labels]}
    dataset_json |= {"regions_class_order": [1, 2]} if "regions" in labels else {}
    return trainer(tiny_plans(), "2d", 0, dataset_json, CPU, **arguments)


def vit(head: str, *words: str, labels: str = "labels") -> nnUNetTrainer_vit:
    more = ["m2f_train.num_points=64"] if head in ("eomt", "m2f", "pmt") else []
    return trainer_of(nnUNetTrainer_vit, labels, overrides=[*small_words(head), *more, *words])


def batch_of(trainer: nnUNetTrainer) -> dict[str, Any]:
    """Two images and the targets that the trainer's transforms make of one label map."""
    labels = torch.zeros(1, 32, 32, dtype=torch.int16)
    labels[:, 4:7, 3:30], labels[:, 20:22, 3:30], labels[:, 28:] = 1, 2, -1
    if trainer.label_manager.has_ignore_label:
        labels[:, :, 25:28] = 3
    convert = trainer.get_transforms().validation
    samples = [convert(image=torch.randn(1, 32, 32), segmentation=labels.clone().flip(-1)) for _ in range(2)]
    targets = [sample["segmentation"] for sample in samples]
    several = isinstance(targets[0], list)
    target = [torch.stack(each) for each in zip(*targets, strict=True)] if several else torch.stack(targets)
    return {"data": torch.stack([sample["image"] for sample in samples]), "target": target}


def step(trainer: nnUNetTrainer) -> float:
    trainer.initialize()
    trainer.network.train()
    batch = batch_of(trainer)
    assert trainer.validation_step(batch)["tp_hard"].shape == (2,)
    return float(trainer.train_step(batch)["loss"])


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("trainer_class", [nnUNetTrainerSkeletonRecall, nnUNetTrainerSoftClDice])
def test_the_unet_trains_with_all_kinds_of_labels(trainer_class, labels, seeded):
    trainer = trainer_of(trainer_class, labels)
    assert isinstance(batch_of(trainer)["target"], list)  # with deep supervision
    assert torch.isfinite(torch.tensor(step(trainer)))


def test_the_unet_trains_on_volumes(nnunet_folders, seeded):
    tiny_volumes.write_tiny_volumes(nnunet_folders["nnUNet_preprocessed"])
    dataset_json = {**DATASET_JSON, "file_ending": ".nii.gz"}
    arguments = (tiny_volumes.volume_plans(), tiny_volumes.CONFIGURATION, 0, dataset_json, CPU)
    trainer = nnUNetTrainerSkeletonRecall(*arguments)
    trainer.initialize()
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.int16)
    labels[:, 4:9, 4:9, 2:14] = 1
    target = trainer.get_transforms().validation(image=torch.randn(1, 16, 16, 16), segmentation=labels)["segmentation"]
    assert [each.shape[0] for each in target] == [2, 2]
    batch = {"data": torch.randn(1, 1, 16, 16, 16), "target": [each[None] for each in target]}
    assert torch.isfinite(torch.tensor(float(trainer.train_step(batch)["loss"])))


def test_loaders_deliver_the_tubes(seeded):
    trainer = make_trainer(nnUNetTrainerSkeletonRecall)
    trainer.initialize()
    task = LabelTask.of(trainer.label_manager)
    for loader in trainer.get_dataloaders():
        target = next(loader)["target"]
        assert [each.shape[1] for each in target] == [2, 2]
        for sample in target[0]:
            assert torch.equal(sample, with_tubes(sample[:1], task))


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("head", ["segformer", "eomt"])
def test_every_kind_of_head_trains_with_both_terms(head, labels, seeded):
    trainer = vit(head, *TERMS, labels=labels)
    num_channels = num_label_channels(LabelTask.of(trainer.label_manager))
    assert batch_of(trainer)["target"].shape[1] > num_channels
    assert torch.isfinite(torch.tensor(step(trainer)))


@pytest.mark.parametrize("head", ["segformer", "eomt"])
def test_the_terms_are_added_to_the_loss_of_the_head(head, seeded):
    plain, extended = vit(head), vit(head, *TERMS)
    for trainer in (plain, extended):
        trainer.initialize()
        trainer.network.eval()
    extended.network.load_state_dict(plain.network.state_dict())
    task = LabelTask.of(plain.label_manager, batch_dice=True)
    terms = DenseTerms({"skeleton_recall": 1.0, "soft_cldice": 0.25}, 3, task)
    values = []
    for trainer in (plain, extended):
        data, target = batches.to_device({**batch_of(trainer), "data": torch.ones(2, 1, 32, 32)}, CPU)
        torch.manual_seed(0)  # points at which masks are compared
        values.append((*trainer.forward_loss(data, target), target))
    (without, _, _), (with_terms, output, target) = values
    torch.testing.assert_close(with_terms, without + terms(extended.dense_logits(output), target))


@pytest.mark.parametrize(("name", "weights"), [("skeleton_recall", (1.0, 0.0)), ("soft_cldice", (0.0, 0.5))])
@pytest.mark.parametrize("head", ["segformer", "eomt"])
def test_the_name_of_a_term_is_a_loss_of_every_head(head, name, weights, seeded):
    trainer = vit(head, f"training.loss={name}")
    assert (trainer.config.loss.skeleton_recall, trainer.config.loss.soft_cldice) == weights
    assert trainer.needs_tubes == (name == "skeleton_recall")
    assert torch.isfinite(torch.tensor(step(trainer)))
    heavier = vit(head, f"training.loss={name}", f"loss.{name}=2.5")
    assert getattr(heavier.config.loss, name) == 2.5


def test_a_term_can_be_added_to_the_other_one(seeded, monkeypatch):
    trainer = vit("segformer", "training.loss=skeleton_recall", "loss.soft_cldice=0.25")
    trainer.initialize()
    batch = batch_of(trainer)
    monkeypatch.setattr(tubes, "with_tubes", pytest.fail)  # the loader's are used
    assert torch.isfinite(torch.tensor(float(trainer.train_step(batch)["loss"])))
    terms = [module for module in trainer.loss.modules() if isinstance(module, DenseTerms)]
    assert [list(each.weights) for each in terms] == [["soft_cldice"]]


def test_the_trainers_of_one_head_know_the_terms():
    words = [word for word in small_words("segformer") if not word.startswith("model.head=")]
    trainer = trainer_of(nnUNetTrainer_segformer, segformer_overrides=[*words, "training.loss=skeleton_recall"])
    assert trainer.config.loss.skeleton_recall == 1
    heavier = trainer_of(
        nnUNetTrainer_segformer,
        segformer_overrides=[*words, "training.loss=skeleton_recall", "loss.skeleton_recall=2.5"],
    )
    assert heavier.config.loss_settings.skeleton_recall == 2.5
    words = ["model.type=eomt", "model.backbone_size=tiny", "model.pretrained=false", "training.loss=soft_cldice"]
    trainer = trainer_of(nnUNetTrainer_m2f, m2f_overrides=words)
    assert trainer.config.loss.soft_cldice == 0.5


@pytest.mark.parametrize("head", ["segformer", "eomt"])
def test_by_default_nothing_is_added(head, seeded):
    trainer = vit(head)
    trainer.initialize()
    assert trainer._terms is None
    assert not any(isinstance(module, DenseTerms) for module in trainer.loss.modules())
    assert batch_of(trainer)["target"].shape[1] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.skeleton_recall=-1"], "loss.skeleton_recall=-1.* is out of range"),
        (["training.loss=soft_cldice", "loss.soft_cldice_iterations=0"], "loss.soft_cldice_iterations=0 is out of ran"),
        (["model.head=eomt", "training.loss=dice"], "does not fit the head.*mask_classification.*skeleton_recall"),
    ],
)
def test_wrong_settings_are_rejected(words, message):
    with pytest.raises(UsageError, match=message):
        load_any_head_config(None, words)
