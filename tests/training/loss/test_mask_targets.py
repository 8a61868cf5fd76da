"""Label maps of nnU-Net as sets of masks."""

from __future__ import annotations

import pytest
import torch

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from nnunetv2.training.loss.mask_targets import mask_targets, occurring_classes


def test_every_label_that_occurs_gets_one_mask_and_background_is_one():
    segmentation = torch.tensor([[[[0, 0, 2], [0, 2, 2]]], [[[1, 1, 1], [1, 1, 1]]]], dtype=torch.int16)
    targets, valid = mask_targets(segmentation, 3, regions=False, ignore_label=None)
    assert valid is None
    assert targets[0]["labels"].tolist() == [0, 2]
    assert targets[0]["masks"].int().tolist() == [[[1, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 1, 1]]]
    assert targets[1]["labels"].tolist() == [1]
    assert targets[1]["masks"].all()


def test_ignored_pixels_belong_to_no_mask_and_do_not_count():
    segmentation = torch.tensor([[[[0, 1], [3, 3]]]], dtype=torch.int16)
    targets, valid = mask_targets(segmentation, 3, regions=False, ignore_label=3)
    assert valid.tolist() == [[[True, True], [False, False]]]
    assert targets[0]["labels"].tolist() == [0, 1]
    assert targets[0]["masks"].sum() == 2


def test_regions_overlap_and_have_no_background():
    whole, core = torch.tensor([[1, 1], [1, 0]]), torch.tensor([[0, 1], [0, 0]])
    segmentation = torch.stack([whole, core, torch.zeros(2, 2)])[None].bool()
    targets, valid = mask_targets(segmentation, 3, regions=True, ignore_label=None)
    assert valid is None
    assert targets[0]["labels"].tolist() == [0, 1]
    torch.testing.assert_close(targets[0]["masks"], torch.stack([whole, core]).bool())


def test_the_last_channel_of_regions_with_an_ignore_label_says_what_is_ignored():
    segmentation = torch.tensor([[[[1, 1], [0, 0]], [[0, 1], [0, 1]]]]).bool()  # one region, then the ignored pixels
    targets, valid = mask_targets(segmentation, 1, regions=True, ignore_label=4)
    assert valid.int().tolist() == [[[1, 0], [1, 0]]]
    assert targets[0]["masks"].int().tolist() == [[[1, 0], [0, 0]]]


def test_an_image_without_any_region_or_with_everything_ignored_has_no_target():
    targets, _ = mask_targets(torch.zeros(1, 2, 4, 4).bool(), 2, regions=True, ignore_label=None)
    assert targets[0]["labels"].shape == (0,)
    assert targets[0]["masks"].shape == (0, 4, 4)
    targets, valid = mask_targets(torch.full((1, 1, 4, 4), 2), 2, regions=False, ignore_label=2)
    assert targets[0]["labels"].shape == (0,)
    assert not valid.any()


@pytest.mark.parametrize("ignore_label", [None, 1, 4, 7])
@pytest.mark.parametrize("regions", [False, True])
def test_classes_that_occur_are_those_with_a_pixel(regions, ignore_label, seeded):
    if regions:
        segmentation = torch.rand(5, 5, 2, 3) < 0.15  # four regions, and the ignored pixels
    else:
        segmentation = torch.randint(-1, 6, (5, 1, 2, 3), dtype=torch.int16)
    kind = {"regions": regions, "ignore_label": ignore_label}
    targets, valid = mask_targets(segmentation, 4, **kind)
    valid = torch.ones(5, 2, 3, dtype=torch.bool) if valid is None else valid
    for image, target, occurring, counts in zip(
        segmentation, targets, occurring_classes(segmentation, 4, **kind), valid, strict=True
    ):
        masks = torch.stack([(image[k].bool() if regions else image[0] == k) & counts for k in range(4)])
        assert target["labels"].tolist() == occurring == [k for k in range(4) if masks[k].any()]
        assert torch.equal(target["masks"], masks[occurring])


def test_with_a_copy_on_the_host_nothing_is_read_from_the_device():
    segmentation = torch.tensor([[[[0, 2]]], [[[1, 1]]]], dtype=torch.int16)
    on_device = segmentation.to("meta")  # which holds no values
    targets, _ = mask_targets(on_device, 3, regions=False, ignore_label=None, on_host=segmentation)
    assert [target["masks"].shape for target in targets] == [(2, 1, 2), (1, 1, 2)]
    assert {target["masks"].device.type for target in targets} == {"meta"}


def test_padding_does_not_count_and_belongs_to_no_mask():
    targets, valid = mask_targets(torch.zeros(1, 1, 2, 3).int(), 2, regions=False, ignore_label=None, size=(4, 4))
    expected = torch.zeros(1, 4, 4, dtype=torch.bool)
    expected[:, :2, :3] = True
    torch.testing.assert_close(valid, expected)
    torch.testing.assert_close(targets[0]["masks"], expected)


def test_what_lies_under_ignored_pixels_does_not_change_the_loss(seeded):
    segmentation = torch.randint(0, 2, (1, 1, 32, 32))
    segmentation[..., :16] = 2
    outputs = {"pred_logits": torch.randn(1, 4, 3), "pred_masks": torch.randn(1, 4, 8, 8)}
    loss = MaskClassificationLoss(2, num_points=200)

    def total(predictions: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(3)
        targets, valid = mask_targets(segmentation, 2, regions=False, ignore_label=2)
        return loss.total(loss(predictions, targets, valid))

    elsewhere = {**outputs, "pred_masks": outputs["pred_masks"].clone()}
    elsewhere["pred_masks"][..., :3] += 5.0  # a pixel of the masks away from the border, which is interpolated across
    torch.testing.assert_close(total(elsewhere), total(outputs))
    elsewhere["pred_masks"][..., 5:] += 5.0
    assert not torch.isclose(total(elsewhere), total(outputs))


@pytest.mark.parametrize("regions", [False, True])
def test_classes_of_a_volume_have_one_mask_through_its_slices(regions):
    labels = torch.zeros(2, 1, 3, 4, 5, dtype=torch.int16)
    labels[0, 0, 1, 2:, 1:3] = 1
    labels[0, 0, 2, 0, 4] = 2
    labels[1, 0, 0] = 3  # ignored
    segmentation = labels
    if regions:
        segmentation = torch.cat([labels.eq(1) | labels.eq(2), labels.eq(2), labels.eq(3)], dim=1)
    settings = {"regions": regions, "ignore_label": 3, "size": (4, 8)}
    targets, valid = mask_targets(segmentation, 2 if regions else 3, **settings)
    padded = torch.nn.functional.pad(labels[:, 0], (0, 3), value=3)
    assert torch.equal(valid, padded != 3)
    assert [target["labels"].tolist() for target in targets] == ([[0, 1], []] if regions else [[0, 1, 2], [0]])
    assert torch.equal(targets[0]["masks"][-1], padded[0] == 2)
    assert targets[0]["masks"].shape[1:] == (3, 4, 8)
