"""Tubes and Skeleton Recall: values computed by hand, ignored pixels, regions, volumes, batches and processes."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.training.loss import dice
from nnunetv2.training.loss.skeleton_recall import SkeletonRecall, SkeletonRecallTerm
from nnunetv2.training.loss.tubes import tubes_of, with_tubes, without_tubes
from tests.training.loss.test_distributed_dice import SHARES, _Exchange
from tests.training.loss.thin_structures import CERTAIN, line, task_of, two_classes

LABELS = task_of(3)


def logits_for(first: float, second: float) -> torch.Tensor:
    """(1, 3, 7, 13): class 1 has the first probability on its half of the bar, class 2 the second one on the other."""
    labels = two_classes()[0]
    probabilities = torch.zeros(3, 7, 13, dtype=torch.float64)
    probabilities[1][labels == 1], probabilities[2][labels == 2] = first, second
    probabilities[0] = 1 - probabilities[1:].sum(0)
    return probabilities.log().clamp_min(-CERTAIN)[None]


def test_each_class_has_its_part_of_the_common_tube():
    target = with_tubes(two_classes(), LABELS)
    assert target.shape == (2, 7, 13)
    assert target.dtype == torch.int16
    assert [int((target[1] == label).sum()) for label in (1, 2)] == [15, 11]
    assert torch.equal(target[0], two_classes()[0])


def test_a_line_is_its_own_tube():
    labels = line().to(torch.int16)[None]
    assert torch.equal(with_tubes(labels, LABELS)[1], labels[0])


def test_ignored_pixels_are_neither_skeleton_nor_tube():
    labels = two_classes()
    labels[:, :, 7:] = 3
    tube = with_tubes(labels, task_of(3, ignore=3))[1]
    assert int((tube == 1).sum()) == 14  # 15 if the ignored pixels were part of the structure
    assert tube.unique().tolist() == [0, 1]


def test_every_region_has_a_tube_of_its_own():
    labels = two_classes()
    regions = torch.cat([labels > 0, labels == 2, labels == 9])
    target = with_tubes(regions, task_of(2, regions=True, ignore=9))
    assert target.shape == (5, 7, 13)
    assert target.dtype == torch.bool
    whole = with_tubes((labels > 0).to(torch.int16), LABELS)[1]
    right = with_tubes((labels == 2).to(torch.int16), LABELS)[1]
    assert torch.equal(target[3], whole > 0)
    assert torch.equal(target[4], right > 0)
    assert int(target[4].sum()) < int((target[3] & regions[1]).sum()) or not torch.equal(target[4], target[3])


def test_ignored_pixels_of_regions_have_no_tube():
    regions = torch.zeros(2, 7, 13, dtype=torch.bool)
    regions[0, 2:5, 2:11] = True
    regions[1, :, 7:] = True
    tube = with_tubes(regions, task_of(1, regions=True, ignore=1))[2]
    assert int(tube.sum()) == 14


def test_volumes_have_tubes():
    labels = torch.zeros(1, 9, 9, 15, dtype=torch.int16)
    labels[0, 2:7, 2:7, 2:13] = 1
    tube = with_tubes(labels, task_of(2))[1]
    assert 0 < int(tube.sum()) < int(labels.sum())
    assert tube[4, 4, 7] == 1
    assert tube[2, 2].sum() == 0


@pytest.mark.parametrize(("smooth", "expected"), [(0.0, 0.625), (1.0, 0.65625)])
def test_recall_is_the_mean_over_the_classes(smooth, expected):
    target = with_tubes(two_classes(), LABELS)[None]
    assert SkeletonRecallTerm(LABELS, smooth)(logits_for(1, 0.25), target).item() == pytest.approx(-expected, abs=1e-9)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_class_without_tube_is_left_out(batch_dice):
    labels = torch.where(two_classes() == 1, 1, 0).to(torch.int16)
    task = task_of(3, batch_dice=batch_dice)
    target = with_tubes(labels, task)[None]
    term = SkeletonRecallTerm(task, 0.0)
    assert term(logits_for(1, 0.25), target).item() == pytest.approx(-1)
    assert term(logits_for(0.5, 0), target).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_without_any_tube_the_term_is_zero_and_has_a_gradient(batch_dice):
    logits = torch.randn(2, 3, 7, 13, requires_grad=True)
    task = task_of(3, batch_dice=batch_dice)
    term = SkeletonRecallTerm(task)(logits, torch.zeros(2, 2, 7, 13, dtype=torch.int16))
    term.backward()
    assert term.item() == 0
    assert not logits.grad.any()


def test_tubes_are_made_where_the_loader_made_none(seeded):
    logits = torch.randn(2, 3, 7, 13)
    labels = torch.stack([two_classes(), two_classes().flip(2)])
    target = torch.stack([with_tubes(sample, LABELS) for sample in labels])
    assert torch.equal(tubes_of(labels, LABELS), target[:, 1:])
    assert torch.equal(without_tubes(target, LABELS), labels)
    loss = SkeletonRecall(SkeletonRecall.Config(), LABELS)
    assert torch.equal(loss(logits, labels), loss(logits, target))


def test_a_batch_is_the_mean_of_its_samples(seeded):
    logits = torch.randn(2, 3, 7, 13, dtype=torch.float64)
    only_one = torch.where(two_classes() == 1, 1, 0).to(torch.int16)
    target = torch.stack([with_tubes(sample, LABELS) for sample in (two_classes(), only_one)])
    term = SkeletonRecallTerm(LABELS)
    separate = [term(logits[index, None], target[index, None]) for index in range(2)]
    torch.testing.assert_close(term(logits, target), sum(separate) / 2)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_is_that_of_the_value(regions, batch_dice, seeded):
    task = task_of(2 if regions else 3, regions=regions, batch_dice=batch_dice)
    labels = torch.randint(0, 3, (2, 1, 6, 6), dtype=torch.int16)
    target = torch.cat([labels > 0, labels == 2], dim=1) if regions else labels
    target = torch.stack([with_tubes(sample, task) for sample in target])
    logits = torch.randn(2, task.num_outputs, 6, 6, dtype=torch.float64, requires_grad=True)
    # The sums of probabilities are double, too.
    assert torch.autograd.gradcheck(SkeletonRecallTerm(task), (logits, target))


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_count_the_tubes_of_all(seeded, monkeypatch, rank):
    logits = torch.randn(3, 3, 7, 13)
    samples = (two_classes(), two_classes().flip(1), torch.where(two_classes() == 1, 1, 0).to(torch.int16))
    target = torch.stack([with_tubes(sample, LABELS) for sample in samples])
    whole = SkeletonRecallTerm(task_of(3, batch_dice=True))(logits, target)
    term = SkeletonRecallTerm(task_of(3, batch_dice=True, ddp=True))
    other = _Exchange([])
    monkeypatch.setattr(dice, "AllGatherGrad", other)
    term(logits[SHARES[1 - rank]], target[SHARES[1 - rank]])
    monkeypatch.setattr(dice, "AllGatherGrad", _Exchange(other.given))
    torch.testing.assert_close(term(logits[SHARES[rank]], target[SHARES[rank]]), whole)
