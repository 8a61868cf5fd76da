"""Losses that settings choose by name: one contract for all of them, and the trainers whose losses they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nnunetv2.errors import UsageError
from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.loss.loss_config import LabelTask
from nnunetv2.training.loss.mask_targets import mask_targets
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerTopkLoss import (
    nnUNetTrainerDiceTopK10Loss,
    nnUNetTrainerTopk10Loss,
    nnUNetTrainerTopk10LossLS01,
)
from nnunetv2.utilities import extensions
from tests.training.tiny_dataset import tiny_plans

LABELS = {
    "labels": {"background": 0, "left": 1, "right": 2},
    "ignore": {"background": 0, "left": 1, "right": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2], "right": [2]},
    "regions_ignore": {"background": 0, "whole": [1, 2], "right": [2], "ignore": 3},
}
LABELS_ONLY = {"ce", "topk", "dice_topk"}
NAMES = extensions.names("loss")
IGNORED = 3
SIZE = (12, 10)


def task_of(labels: str, *, batch_dice: bool = False) -> LabelTask:
    return LabelTask(
        num_outputs=2 if "regions" in labels else 3,
        has_regions="regions" in labels,
        ignore_label=IGNORED if "ignore" in labels else None,
        batch_dice=batch_dice,
        is_ddp=False,
    )


def make_loss(name: str, task: LabelTask, **settings: object) -> torch.nn.Module:
    extension = extensions.find("loss", name)
    return extension.load()(extension.config()(**settings), task)


def target_of(labels: str) -> Tensor:
    """Labels (B, 1, H, W), or regions with a channel of ignored pixels if there are any."""
    maps = torch.randint(0, 4 if "ignore" in labels else 3, (2, 1, *SIZE))
    if "regions" not in labels:
        return maps
    regions = [torch.isin(maps, torch.tensor(each)) for each in ([1, 2], [2])]
    return torch.cat([*regions, *([maps == IGNORED] if "ignore" in labels else [])], dim=1)


def value_of(loss: torch.nn.Module, logits: Tensor, target: Tensor, labels: str) -> Tensor:
    """The loss of dense logits, or of queries whose masks they are."""
    if not hasattr(loss, "total"):
        return loss(logits, target)
    task = task_of(labels)
    targets, valid = mask_targets(
        target, task.num_outputs, regions=task.has_regions, ignore_label=task.ignore_label, size=SIZE
    )
    classes = logits.mean((2, 3))[:, :, None] * torch.ones(task.num_outputs + 1)
    output = {"pred_logits": classes, "pred_masks": logits, "aux_outputs": []}
    return loss.total(loss(output, targets, valid))


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_finite_and_has_a_gradient_or_rejects_the_labels(name, labels, seeded):
    task = task_of(labels)
    if name in LABELS_ONLY and task.has_regions:
        with pytest.raises(UsageError, match=f"training.loss={name} trains labels, and those of this dataset are reg"):
            make_loss(name, task)
        return
    if task.has_regions and extensions.find("loss", name).is_external:  # a user's loss may be one of labels
        try:
            make_loss(name, task)
        except UsageError:
            return
    logits = torch.randn(2, task.num_outputs, *SIZE, requires_grad=True)
    loss = value_of(make_loss(name, task), logits, target_of(labels), labels)
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_do_not_matter(name, seeded):
    if name == "mask_classification":
        pytest.skip("compares random points; tests/contracts/test_ignored_pixels.py holds it to this")
    task = task_of("ignore")
    logits, target = torch.randn(2, 3, *SIZE), target_of("ignore")
    changed = torch.where(target == IGNORED, torch.randn(2, 3, *SIZE), logits)
    loss = make_loss(name, task)
    assert (target == IGNORED).any()
    torch.testing.assert_close(loss(logits, target), loss(changed, target))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_annotated_pixel_has_a_finite_loss(name, seeded):
    logits = torch.randn(2, 3, *SIZE, requires_grad=True)
    loss = value_of(make_loss(name, task_of("ignore")), logits, torch.full((2, 1, *SIZE), IGNORED), "ignore")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_makes_its_section_of_the_settings(name):
    head = "upernet" if extensions.find("loss", name).config().kind == "dense" else "eomt"
    config, _ = AnyHeadConfig.load(None, [f"model.head={head}", f"training.loss={name}"])
    assert isinstance(config.loss_settings, extensions.find("loss", name).config())


def trainer_loss(trainer_class: type[nnUNetTrainer], labels: str, batch_dice: bool) -> torch.nn.Module:
    """The loss of one output of a trainer."""
    plans = tiny_plans()
    plans["configurations"]["2d"]["batch_dice"] = batch_dice
    dataset_json = {"channel_names": {"0": "gray"}, "labels": LABELS[labels], "file_ending": ".png"}
    dataset_json |= {"regions_class_order": [1, 2]} if "regions" in labels else {}
    trainer = trainer_class(plans, "2d", 0, dataset_json, torch.device("cpu"))
    trainer.enable_deep_supervision = False
    return trainer._build_loss()


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(
    ("name", "settings", "trainer"),
    [
        ("dice_ce", {}, nnUNetTrainer),
        ("ce", {}, nnUNetTrainerCELoss),
        ("dice", {}, nnUNetTrainerDiceLoss),
        ("topk", {}, nnUNetTrainerTopk10Loss),
        ("topk", {"label_smoothing": 0.1}, nnUNetTrainerTopk10LossLS01),
        ("dice_topk", {}, nnUNetTrainerDiceTopK10Loss),
    ],
)
def test_a_loss_is_that_of_the_trainer(name, settings, trainer, labels, batch_dice, nnunet_folders, seeded):
    task = task_of(labels, batch_dice=batch_dice)
    if name in LABELS_ONLY and task.has_regions:
        with pytest.raises(UsageError, match="regions, which may overlap"):
            trainer_loss(trainer, labels, batch_dice)
        return
    target = target_of(labels)
    ours = torch.randn(2, task.num_outputs, *SIZE, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    values = make_loss(name, task, **settings)(ours, target), trainer_loss(trainer, labels, batch_dice)(theirs, target)
    for value in values:
        value.backward()
    assert torch.equal(*values)
    assert torch.equal(ours.grad, theirs.grad)


def test_weights_of_classes_and_smoothing_are_those_of_torch(seeded):
    logits, target = torch.randn(2, 3, *SIZE), target_of("labels")
    loss = make_loss("ce", task_of("labels"), class_weights=[0.5, 1.0, 3.0], label_smoothing=0.2)
    weights = torch.tensor([0.5, 1.0, 3.0])
    theirs = torch.nn.functional.cross_entropy(logits, target[:, 0], weights, label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, target), theirs)


def test_the_hardest_pixels_are_chosen_by_their_share(seeded):
    logits, target = torch.randn(2, 3, *SIZE), target_of("labels")
    per_pixel = torch.nn.functional.cross_entropy(logits, target[:, 0], reduction="none").flatten()
    hardest = per_pixel.sort(descending=True).values[: int(0.25 * per_pixel.numel())]
    torch.testing.assert_close(make_loss("topk", task_of("labels"), k=25.0)(logits, target), hardest.mean())
    dice = base_loss(task_of("labels"), False, weight_ce=0)(logits, target)
    both = make_loss("dice_topk", task_of("labels"), k=25.0, weight_ce=2.0)(logits, target)
    torch.testing.assert_close(both, dice + 2 * hardest.mean())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.loss=ce", "loss.label_smoothing=1.5"], "loss.label_smoothing=1.5 is out of range"),
        (["training.loss=topk", "loss.k=0"], "loss.k=0.* leaves no pixel"),
        (["training.loss=dice_topk", "loss.k=101"], "loss.k=101.* is out of range"),
        (["training.loss=dice_topk", "loss.weight_ce=-1"], "loss.weight_ce=-1.* is out of range"),
        (["training.loss=dice", "loss.k=5"], "There is no setting 'loss.k'"),
    ],
)
def test_wrong_settings_are_rejected(words, message):
    with pytest.raises(UsageError, match=message):
        AnyHeadConfig.load(None, words)


def test_weights_for_another_number_of_classes_are_rejected():
    config, _ = AnyHeadConfig.load(None, ["training.loss=ce", "loss.class_weights=[1,2]"])
    with pytest.raises(UsageError, match="must be 3 numbers of at least 0, one per class"):
        extensions.find("loss", "ce").load()(config.loss_settings, task_of("labels"))
