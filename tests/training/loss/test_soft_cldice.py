"""soft-clDice: values computed by hand, gradients, ignored pixels, batches and processes.

MONAI 1.6's `SoftclDiceLoss` gives the same values up to the 1e-4 that it adds.
"""

from __future__ import annotations

import pytest
import torch

from nnunetv2.training.loss import dice
from nnunetv2.training.loss.soft_cldice import SoftClDiceTerm, dilated, eroded, soft_skeleton
from tests.training.loss.test_distributed_dice import SHARES, _Exchange
from tests.training.loss.thin_structures import bars, line, logits_of, ring, task_of

OUTER, INNER = bars()
CASES = {
    "a line with a gap": (line(missing=5), line(), 1 / 15),
    "a line shifted by a row": (line(row=3), line(), 7 / 8),
    "nothing": (torch.zeros(5, 11), line(), 7 / 9),
    "one half everywhere": (torch.full((5, 11), 0.5), line(), 0.28),
    "one half on the line": (line() / 2, line(), 0.28),
    "a bar and itself": (INNER, INNER, 0),
    "a thicker bar": (OUTER, INNER, 0),
    "an open ring": (ring(is_open=True), ring(), 1 / 33),
}


def term_of(probabilities: torch.Tensor, mask: torch.Tensor, **task: object) -> torch.Tensor:
    return SoftClDiceTerm(task_of(2, **task), 3)(logits_of(probabilities), mask[None, None])


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_computed_by_hand(name):
    probabilities, mask, expected = CASES[name]
    assert term_of(probabilities, mask).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("iterations", "expected"), [(0, 0), (1, 7), (2, 7), (10, 7)])
def test_the_soft_skeleton_of_a_bar_is_its_centreline(iterations, expected):
    skeleton = soft_skeleton(INNER[None, None], iterations)
    assert skeleton.sum() == expected
    assert not skeleton[0, 0, [3, 5]].any()


@pytest.mark.parametrize("axes", [2, 3])
def test_the_border_neither_erodes_nor_dilates(axes):
    full = torch.ones(1, 1, *[5] * axes)
    assert torch.equal(eroded(full), full)
    assert torch.equal(dilated(-full), -full)


def test_volumes_are_eroded_along_three_axes():
    cube = torch.zeros(1, 1, 7, 7, 7)
    cube[..., 1:6, 1:6, 1:6] = 1
    assert eroded(cube).sum() == 27
    point = torch.zeros(1, 1, 7, 7, 7)
    point[..., 3, 3, 3] = 1
    assert dilated(point).sum() == 27
    logits = torch.stack((-cube[0, 0], cube[0, 0]))[None] * 100
    assert SoftClDiceTerm(task_of(2), 3)(logits, cube).item() == pytest.approx(0, abs=1e-6)


def test_ignored_pixels_count_for_nothing(seeded):
    target = torch.randint(0, 2, (1, 1, 12, 12))
    target[..., 7:] = 3
    logits = torch.randn(1, 2, 12, 12)
    changed = torch.where(target == 3, torch.randn(1, 2, 12, 12), logits)
    term = SoftClDiceTerm(task_of(2, ignore=3), 3)
    assert torch.equal(term(logits, target), term(changed, target))
    empty = torch.where(target == 3, 0, target)
    assert term(logits, empty) != term(logits, target)


def test_regions_are_scored_by_their_sigmoid():
    masks = torch.stack([line(), line(row=3)])
    logits = torch.where(masks > 0, 1e4, -1e4)[None]
    logits[:, 1] = -1e4
    value = SoftClDiceTerm(task_of(2, regions=True), 3)(logits, masks[None].bool())
    assert value.item() == pytest.approx((0 + 7 / 9) / 2, abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_is_that_of_the_value(regions, seeded):
    task = task_of(2 if regions else 3, regions=regions)
    labels = torch.randint(0, 3, (2, 1, 6, 6))
    target = torch.cat([labels > 0, labels == 2], dim=1) if regions else labels
    logits = torch.randn(2, task.num_outputs, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SoftClDiceTerm(task, 3), (logits, target))


def test_a_batch_is_the_mean_of_its_samples(seeded):
    logits, target = torch.randn(2, 3, 9, 9, dtype=torch.float64), torch.randint(0, 3, (2, 1, 9, 9))
    term = SoftClDiceTerm(task_of(3), 3)
    separate = [term(logits[index, None], target[index, None]) for index in range(2)]
    torch.testing.assert_close(term(logits, target), sum(separate) / 2)


def test_half_precision_is_computed_in_single(seeded):
    logits, target = torch.randn(2, 3, 9, 9).bfloat16(), torch.randint(0, 3, (2, 1, 9, 9))
    value = SoftClDiceTerm(task_of(3), 3)(logits, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, SoftClDiceTerm(task_of(3), 3)(logits.float(), target))


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_sum_over_all(seeded, monkeypatch, rank):
    logits, target = torch.randn(3, 3, 9, 9), torch.randint(0, 3, (3, 1, 9, 9))
    whole = SoftClDiceTerm(task_of(3, batch_dice=True), 3)(logits, target)
    term = SoftClDiceTerm(task_of(3, batch_dice=True, ddp=True), 3)
    # All sums of one rank are exchanged before any result depends on those of the other.
    other = _Exchange([])
    monkeypatch.setattr(dice, "AllGatherGrad", other)
    term(logits[SHARES[1 - rank]], target[SHARES[1 - rank]])
    monkeypatch.setattr(dice, "AllGatherGrad", _Exchange(other.given))
    torch.testing.assert_close(term(logits[SHARES[rank]], target[SHARES[rank]]), whole)
