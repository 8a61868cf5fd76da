"""The mask loss on volumes: points lie in slices, and a volume of one slice is an image."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dinov3.eval.segmentation.loss.point_sampling import ValidPixels, WholeImage, sample_labels, sample_points
from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss

CPU = torch.device("cpu")
CLASSES, QUERIES, DEPTH, SIZE, BATCH = 3, 6, 4, (12, 10), 2


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(5 + image) for image in range(BATCH)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(masks: Tensor, others: Sequence[Tensor] = ()) -> dict:
    layers = [
        {"pred_logits": random(BATCH, QUERIES, CLASSES + 1, seed=7 + number), "pred_masks": of_layer}
        for number, of_layer in enumerate((masks, *others))
    ]
    return {**layers[0], "aux_outputs": layers[1:]}


def targets(*size: int) -> list[dict[str, Tensor]]:
    return [
        {"labels": torch.tensor([0, 2]), "masks": random(2, *size, seed=20) > 0},
        {"labels": torch.tensor([1]), "masks": random(1, *size, seed=21) > 0.3},
    ]


@pytest.mark.parametrize("has_ignored", [False, True])
def test_a_volume_of_one_slice_is_an_image_bit_by_bit(has_ignored: bool) -> None:
    loss = MaskClassificationLoss(CLASSES, num_points=50)
    masks = [random(BATCH, QUERIES, 6, 5, seed=seed).requires_grad_() for seed in (1, 2)]
    valid = random(BATCH, *SIZE, seed=30) > 0 if has_ignored else None
    flat = loss(outputs(masks[0], masks[1:]), targets(*SIZE), valid, generators())
    deep = loss(
        outputs(masks[0][:, :, None], [masks[1][:, :, None]]),
        targets(1, *SIZE),
        None if valid is None else valid[:, None],
        generators(),
    )
    assert flat.keys() == deep.keys()
    for term in flat:
        assert torch.equal(flat[term], deep[term])
    gradients = [torch.autograd.grad(loss.total(terms), masks, retain_graph=True) for terms in (flat, deep)]
    for of_image, of_volume in zip(*gradients, strict=True):
        assert torch.equal(of_image, of_volume)


@pytest.mark.parametrize("annotated", range(DEPTH))
def test_of_a_volume_with_one_annotated_slice_that_slice_counts(annotated: int) -> None:
    loss = MaskClassificationLoss(CLASSES, num_points=80)
    masks = random(BATCH, QUERIES, DEPTH, 6, 5, seed=3)
    of_volume = targets(DEPTH, *SIZE)
    of_slice = [{**target, "masks": target["masks"][:, annotated]} for target in of_volume]
    valid = torch.zeros(BATCH, DEPTH, *SIZE, dtype=torch.bool)
    valid[:, annotated] = True
    found = loss(outputs(masks), of_volume, valid, generators())
    expected = loss(outputs(masks[:, :, annotated]), of_slice, valid[:, annotated], generators())
    for term in expected:
        torch.testing.assert_close(found[term], expected[term], rtol=1e-5, atol=1e-6)


def test_points_lie_in_the_middle_of_slices_and_in_all_of_them() -> None:
    points = WholeImage(1, CPU, depth=4).draw(torch.zeros(1, dtype=torch.long), 4000)
    heights, counts = points[0, :, 2].unique(return_counts=True)
    assert heights.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert counts.min() > 900  # of 1000; a standard deviation is 27
    assert points[..., :2].min() >= 0
    assert points[..., :2].max() < 1


def test_points_of_valid_voxels_lie_in_them() -> None:
    valid = torch.zeros(1, 3, 4, 5, dtype=torch.bool)
    valid[0, 1, 3, 2] = valid[0, 2, 0, 4] = True
    points = ValidPixels(valid).draw(torch.zeros(1, dtype=torch.long), 200)[0]
    voxels = {(int(z * 3), int(y * 4), int(x * 5)) for x, y, z in points.tolist()}
    assert voxels == {(1, 3, 2), (2, 0, 4)}


def test_sampling_a_volume_is_sampling_its_slice() -> None:
    maps, flat = random(2, 3, 5, 7, 6), torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(1))
    numbers = torch.randint(5, (2, 40), generator=torch.Generator().manual_seed(2))
    points = torch.cat((flat, ((numbers + 0.5) / 5)[..., None]), dim=-1)
    found = sample_points(maps, points)
    for number in range(5):
        expected = sample_points(maps[:, :, number], flat)
        here = (numbers == number)[:, None].expand_as(expected)
        torch.testing.assert_close(found[here], expected[here], rtol=0, atol=1e-5)


def test_labels_between_ignored_voxels_come_from_the_same_slice() -> None:
    """By hand: at a quarter of the way from a valid 1 to an ignored pixel, the label is 1, whatever is above."""
    masks = torch.zeros(1, 2, 1, 4)
    masks[0, 0] = torch.tensor([[1.0, 0, 0, 0]])
    masks[0, 1] = 1
    valid = torch.tensor([[[True, False, True, True]], [[True] * 4]])
    point = torch.tensor([[[0.1875, 0.5, 0.25]]])  # x: 0.75 of the pixel 0, in the slice 0
    assert sample_labels(masks, point, valid).item() == pytest.approx(1.0)
    between = torch.tensor([[[0.6875, 0.5, 0.25]]])
    assert sample_labels(masks, between, valid).item() == pytest.approx(0.0)
