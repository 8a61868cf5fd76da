"""Calibres and ceilings of drawn structures, and the scale that they ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetv2.utilities.label_handling.thin_structures import (
    ceilings,
    labelled_slice,
    median_calibres,
    scale_for,
    structures_of,
)

MEMBERS = {"thin": [1], "wide": [2], "absent": [3], "both": [1, 2]}


def slices() -> list[np.ndarray]:
    """Lines of 1 and 3 pixels (class 1) and a disc of 41 pixels (class 2), on 128 x 128."""
    labels = np.zeros((128, 128), dtype=np.int16)
    labels[8:120, 10] = 1
    labels[8:120, 20:23] = 1
    rows, columns = np.ogrid[:128, :128]
    labels[(rows - 64) ** 2 + (columns - 84) ** 2 <= 20**2] = 2
    other = np.zeros_like(labels)
    other[8:120, 40] = 1
    return [labels, other]


def test_the_calibre_is_the_width_of_a_line():
    found = median_calibres(slices(), {"thin": [1]}, 6.0)
    assert found == {"thin": 1.0}
    assert median_calibres(slices()[:1] * 2, {"thin": [1]}, 6.0)["thin"] in (1.0, 2.0, 3.0)


def test_wide_structures_and_absent_ones_are_left_out():
    assert set(median_calibres(slices(), MEMBERS, 6.0)) <= {"thin", "both"}
    assert "wide" in median_calibres(slices(), MEMBERS, 1000.0)


def test_wide_structures_cost_no_skeleton(monkeypatch):
    import skimage.morphology

    def fail(mask: np.ndarray) -> None:
        raise AssertionError("a skeleton of a wide structure is computed")

    monkeypatch.setattr(skimage.morphology, "skeletonize", fail)
    assert median_calibres(slices(), {"wide": [2]}, 6.0) == {}


def test_structures_at_the_border_are_not_thinner_than_inside():
    labels = np.zeros((32, 32), dtype=np.int16)
    labels[:, :5] = 1
    assert median_calibres([labels], {"thin": [1]}, 1000.0)["thin"] >= 4


def test_a_grid_as_fine_as_the_pixels_draws_everything():
    assert ceilings(slices(), {"thin": [1], "wide": [2]}, 1.0) == {"thin": 1.0, "wide": 1.0}


def test_a_coarse_grid_loses_thin_structures_only():
    by_stride = {stride: ceilings(slices(), {"thin": [1], "wide": [2]}, stride) for stride in (2.0, 4.0, 8.0)}
    thin = [each["thin"] for each in by_stride.values()]
    assert thin == sorted(thin, reverse=True)
    assert thin[-1] < 0.1
    assert all(each["wide"] > 0.9 for each in by_stride.values())


def test_the_ceiling_is_that_of_shares_per_cell():
    """Against shares averaged by hand, on a size that the stride divides."""
    labels = (np.random.default_rng(0).random((32, 48)) < 0.4).astype(np.int16)
    shares = torch.from_numpy(labels.reshape(8, 4, 12, 4).mean((1, 3)))[None, None]
    enlarged = torch.nn.functional.interpolate(shares, size=(32, 48), mode="bilinear", align_corners=False)[0, 0]
    drawn = enlarged.numpy() > 0.5
    expected = 2 * (drawn & (labels == 1)).sum() / (drawn.sum() + labels.sum())
    assert ceilings([labels], {"noise": [1]}, 4.0)["noise"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("calibre", "stride", "scale"),
    [(1.0, 4.0, 4), (3.0, 4.0, 2), (2.0, 4.0, 3), (1.0, 3.5, 4), (6.0, 4.0, 1), (2.5, 16.0, 10)],
)
def test_the_scale_makes_structures_as_wide_as_the_margin(calibre, stride, scale):
    assert scale_for(calibre, stride, 1.5) == scale


def test_ignored_pixels_and_those_outside_are_background():
    labels = np.array([[[1, 4, -1], [0, 1, 4]]])
    assert labelled_slice(labels, 4).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert labelled_slice(labels, None).tolist() == [[1, 4, 0], [0, 1, 4]]


def test_the_labelled_part_of_the_fullest_slice_is_measured():
    labels = np.zeros((3, 1000, 1200), dtype=np.int16)
    labels[0, 0, 0] = 1
    labels[2, 900:, 1100:] = 1
    part = labelled_slice(labels, None)
    assert part.shape == (768, 768)
    assert part.sum() == 100 * 100


def test_structures_are_the_foreground_classes_and_regions():
    labels = {"background": 0, "whole": [1, 2], "right": 2, "ignore": 3}
    assert structures_of(labels) == {"whole": (1, 2), "right": (2,)}
