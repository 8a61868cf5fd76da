"""Scores of one case. Segmentations are kept in memory; the reader hands them out by their names."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.comparison.case_scores import PairScores, score_case
from nnunetv2.comparison.metric import METRICS
from nnunetv2.errors import DataError
from nnunetv2.imageio.channel_grid import ALLOW_MISMATCH
from tests.comparison.surface_scores import surface_scores


class MemoryReader:
    """A reader of arrays (Z, Y, X) and spacings; `reads` lists what was asked for."""

    def __init__(self, **segmentations: tuple[np.ndarray, tuple[float, ...]]) -> None:
        self.segmentations = segmentations
        self.origins: dict[str, tuple[float, ...]] = {}
        self.reads: list[str] = []

    def read_seg(self, path: str) -> tuple[np.ndarray, dict]:
        self.reads.append(path)
        array, spacing = self.segmentations[path]
        geometry = {"origin": self.origins.get(path, (0.0, 0.0, 0.0)), "direction": tuple(np.eye(3).ravel())}
        return array[None].astype(np.float32), {"spacing": list(spacing), "sitk_stuff": geometry}


def score(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    classes: tuple = (1,),
    tolerance: float | None = None,
    ignore_label: int | None = None,
) -> PairScores:
    reader = MemoryReader(reference=(reference, spacing), prediction=(prediction, spacing))
    metrics, tolerance = (("Dice", "IoU"), 1.0) if tolerance is None else (tuple(METRICS), tolerance)
    (found,) = score_case(Path("reference"), [Path("prediction")], reader, classes, metrics, tolerance, ignore_label)
    return found


def labels(*rows: list[int]) -> np.ndarray:
    """A volume of two slices, the second of which is empty."""
    slice_ = np.array(rows)
    return np.stack([slice_, np.zeros_like(slice_)])


def test_overlap_and_counts_of_labels_and_regions_by_hand():
    found = score(labels([1, 1, 2, 2], [0, 0, 0, 3]), labels([1, 2, 2, 0], [0, 0, 3, 3]), classes=(1, 2, (1, 2), 3, 4))
    assert found.num_reference == (2, 2, 4, 1, 0)
    assert found.num_predicted == (1, 2, 3, 2, 0)
    assert found.values["Dice"] == pytest.approx((2 / 3, 2 / 4, 6 / 7, 2 / 3, np.nan), nan_ok=True)
    assert found.values["IoU"] == pytest.approx((1 / 2, 1 / 3, 3 / 4, 1 / 2, np.nan), nan_ok=True)
    assert set(found.values) == {"Dice", "IoU"}


def test_values_that_are_no_labels_are_refused_and_named():
    mask = labels([1, 1, 2, 2], [0, 0, 0, 9])
    assert score(mask, mask, classes=((1, 2), 2), ignore_label=9).num_reference == (4, 2)
    for scaled, values in (
        (100 * mask, "100, 200, 900"),
        (mask - 3, "-3, -2, -1, 6"),
        (mask * 10**6, "1000000, 2000000"),
    ):
        with pytest.raises(DataError, match=rf"prediction has the values {values}.*; accepted are 0, 1, 2, 9$"):
            score(mask, scaled, classes=(1, 2), ignore_label=9)
    with pytest.raises(DataError, match="reference has the values 9, which are no labels of the dataset"):
        score(mask, np.zeros_like(mask), classes=(1, 2))


def test_volume_and_diagonal_come_from_the_spacing():
    found = score(np.zeros((3, 4, 5)), np.zeros((3, 4, 5)), (4.0, 0.75, 0.8))
    assert found.voxel_volume == pytest.approx(2.4) and found.num_dimensions == 3
    assert found.diagonal == pytest.approx((12**2 + 3**2 + 4**2) ** 0.5)


@pytest.mark.parametrize("spacing_of_slices", [999.0, 1.0])
def test_one_slice_is_an_image_with_two_dimensions(spacing_of_slices):
    found = score(np.zeros((1, 4, 5)), np.zeros((1, 4, 5)), (spacing_of_slices, 0.75, 0.8))
    assert found.voxel_volume == pytest.approx(0.6) and found.num_dimensions == 2
    assert found.diagonal == pytest.approx(5.0)


def test_ignored_voxels_take_no_part():
    reference, prediction = labels([1, 1, 9, 9], [0, 0, 0, 0]), labels([1, 0, 1, 1], [0, 0, 1, 0])
    found = score(reference, prediction, ignore_label=9)
    assert (found.num_reference, found.num_predicted) == ((2,), (2,))
    assert found.values["Dice"] == (0.5,)
    assert score(reference, prediction, classes=(1, 9)).num_predicted == (4, 0)


def test_reference_is_read_once():
    volume = (np.ones((2, 3, 3)), (1.0, 1.0, 1.0))
    reader = MemoryReader(reference=volume, a=volume, b=volume, c=volume)
    found = score_case(Path("reference"), [Path("c"), Path("a"), Path("b")], reader, (1,), ("Dice",))
    assert reader.reads == ["reference", "c", "a", "b"]
    assert [each.values["Dice"] for each in found] == [(1.0,)] * 3


def test_another_shape_is_refused_and_named():
    reader = MemoryReader(truth=(np.ones((2, 3, 3)), (1, 1, 1)), wrong=(np.ones((2, 3, 4)), (1, 1, 1)))
    with pytest.raises(DataError, match=r"prediction wrong .* reference truth: shape \(2, 3, 4\) against \(2, 3, 3\)"):
        score_case(Path("truth"), [Path("wrong")], reader, (1,), ("Dice",))


def test_another_spacing_is_refused_and_named_unless_it_is_allowed(monkeypatch, caplog):
    reader = MemoryReader(truth=(np.ones((2, 3, 3)), (2, 1, 1)), wrong=(np.ones((2, 3, 3)), (1, 1, 1)))
    message = r"prediction wrong .* reference truth: spacing \[1, 1, 1\] against \[2, 1, 1\] mm"
    with pytest.raises(DataError, match=f"{message}.*{ALLOW_MISMATCH}=1"):
        score_case(Path("truth"), [Path("wrong")], reader, (1,), ("Dice",))
    monkeypatch.setenv(ALLOW_MISMATCH, "1")
    with caplog.at_level(logging.WARNING):
        (found,) = score_case(Path("truth"), [Path("wrong")], reader, (1,), ("Dice",))
    assert "spacing [1, 1, 1] against [2, 1, 1] mm" in caplog.text
    assert found.voxel_volume == 2  # of the reference


def test_another_place_in_space_is_refused_and_named():
    volume = (np.ones((2, 3, 3)), (1, 1, 1))
    reader = MemoryReader(truth=volume, wrong=volume)
    reader.origins["wrong"] = (5.0, 0.0, 0.0)
    with pytest.raises(DataError, match=r"prediction wrong .*: origin \(5, 0, 0\) mm against \(0, 0, 0\) mm"):
        score_case(Path("truth"), [Path("wrong")], reader, (1,), ("Dice",))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_values_that_are_no_labels_are_refused_with_the_name_of_the_file(value):
    with pytest.raises(DataError, match="prediction has values that are not whole numbers"):
        score(np.ones((2, 3, 3)), np.full((2, 3, 3), value))


@pytest.mark.slow
def test_surfaces_of_a_region_and_with_ignored_voxels_are_those_of_the_masks():
    random = np.random.default_rng(3)
    reference, prediction = random.integers(0, 4, (2, 5, 9, 8)) * (random.random((2, 5, 9, 8)) < 0.2)
    found = score(reference, prediction, (3.0, 1.0, 0.5), classes=(2, (1, 2)), tolerance=1.0, ignore_label=3)
    is_counted = reference != 3
    for number, members in enumerate([(2,), (1, 2)]):
        masks = [np.isin(each, members) & is_counted for each in (prediction, reference)]
        for metric, value in surface_scores(*masks, (3.0, 1.0, 0.5), 1.0).items():
            assert found.values[metric][number] == value


def random_pair(random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Two masks that are not empty, and a spacing: every kind of masks in 2-D and 3-D, isotropic and not."""
    from scipy.ndimage import gaussian_filter

    shape = tuple(random.integers(8, 20, 3)) if number % 2 else (1, *random.integers(8, 40, 2))
    spacing = tuple(random.uniform(0.3, 4.0, 3)) if number % 4 < 2 else (1.0, 1.0, 1.0)
    kind = number // 4 % 10
    field = gaussian_filter(random.standard_normal(shape), 1.5)
    reference = field > np.quantile(field, random.uniform(0.05, 0.9))  # the large ones reach all borders
    change = gaussian_filter(random.standard_normal(shape), 1.5)
    prediction = field + random.uniform(0, 1) * change > np.quantile(field, 0.7)
    if kind == 5:
        reference[:] = True
    if kind in (6, 7):
        prediction = random.random(shape) < 0.05
    if kind in (7, 8):
        reference[:] = False
    prediction.ravel()[random.integers(prediction.size)] = True
    reference.ravel()[random.integers(reference.size)] = True
    return (reference.copy() if kind == 4 else prediction), reference, spacing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI calls its own deprecated arguments
def test_scores_equal_those_of_monai_on_200_random_masks():
    import torch
    from monai import metrics as monai

    random = np.random.default_rng(0)
    num_perfect = 0
    for number in range(200):
        prediction, reference, spacing = random_pair(random, number)
        tolerance = spacing[1] if number % 3 else random.uniform(0.5, 3)
        found = score(reference, prediction, spacing, tolerance=tolerance)
        volumes = [each[0] if len(each) == 1 else each for each in (prediction, reference)]
        pair = [torch.from_numpy(each)[None, None].float() for each in volumes]
        common = {"include_background": True, "spacing": list(spacing[-volumes[0].ndim :])}
        expected = {
            "Dice": monai.compute_dice(*pair),
            "IoU": monai.compute_iou(*pair),
            "HD95": monai.compute_hausdorff_distance(*pair, percentile=95, **common),
            "ASSD": monai.compute_average_surface_distance(*pair, symmetric=True, **common),
            "NSD": monai.compute_surface_dice(*pair, class_thresholds=[tolerance], **common),
        }
        for metric, value in expected.items():
            assert found.values[metric][0] == pytest.approx(value.item(), abs=1e-5), (number, metric)
        num_perfect += found.values["Dice"][0] == 1
    assert num_perfect == 20
