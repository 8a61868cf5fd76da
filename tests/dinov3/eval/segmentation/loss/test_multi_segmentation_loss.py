"""Loss of the linear head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dinov3.eval.segmentation.loss import MultiSegmentationLoss, dice_loss


@pytest.mark.usefixtures("seeded")
def test_cross_entropy_is_torchs_over_labelled_pixels() -> None:
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    labels[0, :3] = 255
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(MultiSegmentationLoss()(logits, labels), expected)


@pytest.mark.usefixtures("seeded")
def test_logits_are_resized_to_the_labels_in_float32() -> None:
    logits, labels = torch.randn(1, 3, 4, 4, dtype=torch.bfloat16), torch.randint(0, 3, (1, 8, 8))
    loss = MultiSegmentationLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, labels)
    resized = F.interpolate(logits.float(), size=(8, 8), mode="bilinear", align_corners=False)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(resized, labels))


def test_dice_by_hand() -> None:
    # two pixels, probabilities (3/4, 1/4) and (1/4, 3/4); the first belongs to class 0, the second is ignored
    logits = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, math.log(3.0)]]]])
    labels = torch.tensor([[[0, 255]]])
    class_0 = 1 - (2 * 0.75 + 1) / (0.75 + 1 + 1)
    class_1 = 1 - (0 + 1) / (0.25 + 0 + 1)
    torch.testing.assert_close(dice_loss(logits, labels), torch.tensor((class_0 + class_1) / 2))


def test_dice_counts_each_image_alike() -> None:
    """In the first image one of four pixels belongs to class 1, in the second three; all probabilities are 1/4, 3/4."""
    logits = torch.zeros(2, 2, 2, 2)
    logits[:, 1] = math.log(3.0)
    labels = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [1, 0]]])
    overlaps_and_sizes = [(3 / 4, 1 + 3), (3 / 4, 3 + 1), (1 / 4, 1 + 1), (9 / 4, 3 + 3)]  # class 0 and 1 of each image
    expected = [1 - (2 * overlap + 1) / (size + 1) for overlap, size in overlaps_and_sizes]
    torch.testing.assert_close(dice_loss(logits, labels), torch.tensor(sum(expected) / 4))


def test_terms_are_weighted_and_only_those_with_a_weight_computed() -> None:
    logits, labels = torch.randn(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    both = MultiSegmentationLoss(diceloss_weight=2.0, celoss_weight=3.0)
    terms = both.terms(logits, labels)
    torch.testing.assert_close(both(logits, labels), 2 * terms["loss_dice"] + 3 * terms["loss_ce"])
    assert list(MultiSegmentationLoss(diceloss_weight=1.0, celoss_weight=0.0).terms(logits, labels)) == ["loss_dice"]


def test_images_without_labels_give_a_loss_and_gradient_of_zero() -> None:
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    value = MultiSegmentationLoss(diceloss_weight=1.0)(logits, torch.full((1, 2, 2), 255))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 1.0)])
def test_weights_that_make_no_loss_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"A diceloss_weight of {weights[0]} and a celoss_weight of {weights[1]}"):
        MultiSegmentationLoss(*weights)
