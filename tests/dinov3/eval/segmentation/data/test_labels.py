"""Label maps as sets of masks."""

from __future__ import annotations

import pytest
import torch

from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.utils.errors import DataError


def test_every_class_that_occurs_gets_one_mask_in_ascending_order() -> None:
    target = SemanticToM2FTargets(4)(torch.tensor([[3, 0, 3], [255, 0, 3]]))
    assert target["labels"].tolist() == [0, 3]
    assert target["labels"].dtype == torch.int64
    assert target["masks"].dtype == torch.bool
    assert target["masks"].int().tolist() == [[[0, 1, 0], [0, 1, 0]], [[1, 0, 1], [0, 0, 1]]]
    assert target["valid"].int().tolist() == [[1, 1, 1], [0, 1, 1]]


def test_masks_share_out_the_valid_pixels(seeded: int) -> None:
    label = torch.randint(0, 7, (20, 30))
    label[label == 6] = 255
    target = SemanticToM2FTargets(6)(label)
    torch.testing.assert_close(target["masks"].sum(dim=0).bool(), target["valid"])
    assert target["masks"].sum() == target["valid"].sum()
    back = torch.full_like(label, 255)
    for value, mask in zip(target["labels"], target["masks"], strict=True):
        back[mask] = value
    torch.testing.assert_close(back, label)


def test_an_image_with_everything_ignored_has_no_mask() -> None:
    target = SemanticToM2FTargets(4)(torch.full((2, 3), 255))
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert target["masks"].shape == (0, 2, 3)
    assert target["masks"].dtype == torch.bool
    assert not target["valid"].any()


def test_another_number_may_mark_ignored_pixels() -> None:
    target = SemanticToM2FTargets(2, ignore_index=-100)(torch.tensor([[0, 1, -100]]))
    assert target["labels"].tolist() == [0, 1]
    assert target["valid"].tolist() == [[True, True, False]]


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_a_label_out_of_range_is_refused(wrong: int) -> None:
    with pytest.raises(DataError, match=rf"holds \[{wrong}\]; with 3 classes the labels are 0 to 2, and 255"):
        SemanticToM2FTargets(3)(torch.tensor([[0, wrong, 255]]))
