"""Points: where they lie, what is read there, and that ignored pixels lend nothing."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.loss.point_sampling import (
    ValidPixels,
    WholeImage,
    sample_labels,
    sample_points,
    uncertain_points,
)

CPU = torch.device("cpu")


def pixel_centres(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(((columns + 0.5) / width, (rows + 0.5) / height), dim=-1).view(1, -1, 2)


def test_sampling_at_pixel_centres_returns_the_pixels(seeded):
    maps = torch.randn(2, 3, 4, 5)
    assert_close(sample_points(maps, pixel_centres(4, 5).expand(2, -1, -1)), maps.flatten(2))


def test_sampling_equals_transformers(seeded):
    from transformers.models.mask2former.modeling_mask2former import sample_point

    maps, points = torch.randn(2, 3, 4, 5), torch.rand(2, 9, 2)
    assert_close(sample_points(maps, points), sample_point(maps, points, align_corners=False))


def test_labels_at_shared_and_at_own_points_agree(seeded):
    masks, points = torch.rand(3, 4, 5) > 0.5, torch.rand(1, 7, 2)
    assert_close(sample_labels(masks, points), sample_labels(masks, points.repeat(3, 1, 1)))


def test_labels_are_soft_between_pixels():
    masks = torch.tensor([[[True, False]]])
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.625, 0.5]]])
    assert_close(sample_labels(masks, points), torch.tensor([[1.0, 0.5, 0.25]]))


def test_ignored_pixels_lend_nothing_to_the_labels_beside_them():
    masks = torch.tensor([[[True, True, False]], [[False, True, False]]])
    valid = torch.tensor([[True, False, True]])
    points = torch.tensor([[[0.3, 0.5], [0.7, 0.5]]])  # in the first and the last pixel, near the ignored one
    assert_close(sample_labels(masks, points, valid), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_labels_do_not_depend_on_what_the_mask_says_in_ignored_pixels(seeded):
    masks, valid = torch.rand(2, 6, 7) > 0.5, torch.rand(6, 7) > 0.4
    points = ValidPixels(valid[None]).draw(torch.tensor([0, 0]), 50)
    assert_close(sample_labels(masks | ~valid, points, valid), sample_labels(masks & valid, points, valid))


def test_labels_with_all_pixels_valid_are_the_plain_ones(seeded):
    masks, points = torch.rand(2, 6, 7) > 0.5, torch.rand(2, 50, 2)
    assert_close(sample_labels(masks, points, torch.ones(6, 7, dtype=torch.bool)), sample_labels(masks, points))


def test_points_lie_in_valid_pixels_and_are_uniform_there(seeded):
    valid = torch.zeros(2, 4, 5, dtype=torch.bool)
    valid[0, 1, 2] = valid[0, 3, 4] = True
    valid[1] = True
    area = ValidPixels(valid)
    points = area.draw(torch.tensor([1, 0, 0]), 6000)
    assert points.shape == (3, 6000, 2)
    pixel = (points[..., 1] * 4).long() * 5 + (points[..., 0] * 5).long()
    assert set(pixel[1:].unique().tolist()) == {7, 19}
    assert_close((pixel[1] == 7).double().mean().item(), 0.5, atol=0.03, rtol=0)
    assert_close(pixel[0].bincount(minlength=20) / 6000, torch.full((20,), 0.05), atol=0.015, rtol=0)
    within = points[1] * torch.tensor([5.0, 4.0]) % 1
    assert_close(within.mean(dim=0), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)
    assert torch.corrcoef(within.T)[0, 1].abs() < 0.1  # the place within a pixel has two coordinates of its own


def test_image_without_valid_pixels_is_reported_and_still_gets_points():
    valid = torch.zeros(2, 3, 3, dtype=torch.bool)
    valid[1, 0, 0] = True
    area = ValidPixels(valid)
    assert area.has_pixels.tolist() == [False, True]
    points = area.draw(torch.tensor([0]), 10)
    assert ((points >= 0) & (points <= 1)).all()
    assert sample_labels(torch.ones(1, 3, 3, dtype=torch.bool), points, valid[0]).isfinite().all()


def test_points_of_a_whole_image_fill_it(seeded):
    points = WholeImage(2, CPU).draw(torch.tensor([0, 1, 1]), 4000)
    assert_close(points.flatten(0, 1).mean(dim=0), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)
    assert points.min() < 0.01
    assert points.max() > 0.99


@pytest.mark.parametrize("chunk", [512, 2])
def test_uncertain_points_lie_where_the_logit_is_near_zero(seeded, monkeypatch, chunk):
    from dinov3.eval.segmentation.loss import point_sampling

    monkeypatch.setattr(point_sampling, "MAPS_PER_CHUNK", chunk)
    ramp = torch.linspace(-4, 4, 64).expand(3, 64, 64)  # certain at the left and right, uncertain in the middle
    points = uncertain_points(
        ramp,
        torch.zeros(3, dtype=torch.long),
        WholeImage(1, CPU),
        num_points=100,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
    )
    assert points.shape == (3, 100, 2)
    distance = (points[..., 0] - 0.5).abs()
    # the nearest 75 of 300 uniform candidates; at the very border every map fades to the uncertain 0
    assert (distance[:, :75] < 0.2).float().mean() > 0.95
    assert (distance[:, 75:] > 0.25).any(dim=1).all()


def test_the_part_of_uncertain_points_is_rounded_down(seeded):
    """Three quarters of ten points are seven; the eighth is as far from the uncertain middle as any uniform one."""
    ramp = torch.linspace(-4, 4, 64).expand(400, 64, 64)
    points = uncertain_points(
        ramp,
        torch.zeros(400, dtype=torch.long),
        WholeImage(1, CPU),
        num_points=10,
        oversample_ratio=6.0,
        importance_sample_ratio=0.75,
    )
    distance = (points[..., 0] - 0.5).abs().mean(dim=0)  # of each of the ten, over the maps
    assert distance[:7].max() < 0.15
    assert distance[7:].min() > 0.2  # a uniform one is 1/4 away
