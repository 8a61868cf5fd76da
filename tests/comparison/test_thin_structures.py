"""Metrics of thin structures, of several classes and of objects: hand-made pairs, and slower definitions as oracles."""

from __future__ import annotations

from importlib.metadata import version
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import label

from nnunetv2.comparison.among_classes import among_classes, disjoint_classes
from nnunetv2.comparison.betti_numbers import num_holes, num_pieces
from nnunetv2.comparison.case_scores import score_arrays
from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.objects import matched_objects
from nnunetv2.comparison.skeletons import calibres, skeletons
from nnunetv2.evaluation.evaluate_predictions import confusion_of_pair

SKELETONISER = pytest.mark.skipif(
    version("scikit-image").split(".")[:2] != ["0", "26"], reason="the skeleton is that of scikit-image 0.26"
)


def drawn(*rows: str) -> np.ndarray:
    """Labels of a picture; a dot is background."""
    return np.array([[0 if sign == "." else int(sign) for sign in row] for row in rows])


LINE = drawn("." * 11, "..1111111..", "." * 11)
GAP = drawn("." * 11, "..111.111..", "." * 11)
SHIFTED = np.roll(LINE, 1, axis=0)
SMALL_BAR = np.pad(np.ones((3, 9), dtype=int), 3)
LARGE_BAR = np.pad(np.ones((5, 11), dtype=int), 2)
RING = np.pad(drawn("11111", "1...1", "1...1", "1...1", "11111"), 1)
OPEN_RING = np.pad(drawn("11.11", "1...1", "1...1", "1...1", "11111"), 1)
SKELETON_OF_BAR = skeletons(SMALL_BAR > 0, SMALL_BAR > 0).reference.astype(int)


def scores(prediction: np.ndarray, reference: np.ndarray, *names: str, **kwargs) -> dict[str, float]:
    """Values of label 1 in 2D arrays; NaN where the rule for empty masks replaces them."""
    found = score_arrays(reference[None, None], prediction[None, None], (999, 1, 1), (1,), names, **kwargs)
    return {name: values[0] for name, values in found.values.items()}


@pytest.mark.parametrize(
    ("prediction", "reference", "dice", "cldice", "pieces", "holes"),
    [
        pytest.param(GAP, LINE, 12 / 13, 12 / 13, 1, 0, id="gap"),
        pytest.param(SHIFTED, LINE, 0, 0, 0, 0, id="shifted"),
        pytest.param(SKELETON_OF_BAR, SMALL_BAR, 16 / 35, 1, 0, 0, id="skeleton", marks=SKELETONISER),
        pytest.param(LARGE_BAR, SMALL_BAR, 27 / 41, 1, 0, 0, id="bars"),
        pytest.param(OPEN_RING, RING, 30 / 31, 22 / 23, 0, 1, id="ring", marks=SKELETONISER),
    ],
)
def test_hand_made_pairs(prediction, reference, dice, cldice, pieces, holes):
    found = scores(prediction, reference, "Dice", "clDice", "Betti0", "Betti1")
    assert found == pytest.approx({"Dice": dice, "clDice": cldice, "Betti0": pieces, "Betti1": holes}, abs=1e-12)


@SKELETONISER
def test_skeletons_of_the_hand_made_pairs_have_these_sizes():
    sizes = [skeletons(each > 0, each > 0).reference.sum() for each in (SMALL_BAR, RING, OPEN_RING)]
    assert sizes == [8, 12, 11]


def test_nothing_against_a_line_is_one_piece_missing_and_the_rule_of_overlaps():
    nothing = np.zeros_like(LINE)
    found = scores(nothing, LINE, "clDice", "Betti0", "Betti1", "Sens", "Spec", "Acc", "RecallThin", "ObjectF1")
    assert np.isnan([found["clDice"], found["Sens"], found["ObjectF1"]]).all()  # 0 by the rule for empty masks
    rest = {name: found[name] for name in ("Betti0", "Betti1", "Spec", "Acc", "RecallThin")}
    assert rest == {"Betti0": 1, "Betti1": 0, "Spec": 1, "Acc": 26 / 33, "RecallThin": 0}
    assert METRICS["clDice"].compute(MaskPair.of_masks(nothing > 0, LINE > 0, (1.0, 1.0))) == 0
    assert all(METRICS[name].empty_masks.missed == 0 for name in ("clDice", "Sens", "ObjectF1", "PQ"))


def test_voxels_of_the_whole_image_count_in_sensitivity_specificity_and_accuracy():
    found = scores(drawn("1100", "1100", "0000"), drawn("0100", "0110", "0010"), "Sens", "Spec", "Acc")
    assert found == {"Sens": 2 / 4, "Spec": 6 / 8, "Acc": 8 / 12}


def test_ignored_voxels_are_removed_before_skeletons_are_made():
    reference, prediction = np.pad(np.ones((5, 9), dtype=int), 2), np.pad(np.ones((5, 9), dtype=int), 2)
    reference[:, 6:] = 7
    prediction[2:4, 6:] = 0
    found = scores(prediction, reference, "clDice", "Betti0", "Sens", "Spec", ignore_label=7)
    assert found == {"clDice": 1, "Betti0": 0, "Sens": 1, "Spec": 1}


def test_outside_of_the_field_of_view_nothing_counts():
    is_inside = np.ones((1, *LINE.shape), dtype=bool)
    is_inside[..., 5] = False  # the gap lies outside
    found = scores(GAP, LINE, "Dice", "clDice", "Betti0", "Acc", is_inside=is_inside)
    assert found == {"Dice": 1, "clDice": 1, "Betti0": 0, "Acc": 1}


@pytest.mark.parametrize("shape", [(24, 31), (9, 11, 10)])
def test_cropping_changes_no_skeleton_and_no_number_of_pieces_or_holes(shape):
    mask = np.random.default_rng(3).random(shape) < 0.55
    mask[:2], mask[:, -1:] = False, False
    padded = np.pad(mask, 4)
    inner = tuple(slice(4, -4) for _ in shape)
    assert np.array_equal(skeletons(mask, mask).reference, skeletons(padded, padded).reference[inner])
    assert (num_pieces(mask), num_holes(mask)) == (num_pieces(padded), num_holes(padded))


@pytest.mark.parametrize("seed", range(5))
def test_holes_of_a_2d_mask_are_the_background_that_it_encloses(seed):
    mask = np.random.default_rng(seed).random((19, 23)) < 0.6
    enclosed = label(~np.pad(mask, 1))[1] - 1  # 4 neighbours
    assert num_holes(mask) == enclosed > 0


def test_a_3d_mask_has_tunnels_and_cavities_are_none():
    torus, shell = np.zeros((5, 7, 7), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    torus[2, 1:6, 1:6], torus[2, 3, 3] = True, False
    shell[1:4, 1:4, 1:4], shell[2, 2, 2] = True, False
    assert [(num_pieces(mask), num_holes(mask)) for mask in (torus, shell)] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 2), (1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_the_smallest_blocks_agree_with_themselves(shape):
    """Some of them vanish when they are thinned."""
    mask = np.pad(np.ones(shape, dtype=bool), 1)
    assert METRICS["clDice"].compute(MaskPair.of_masks(mask, mask, (1.0,) * mask.ndim)) == 1


def test_calibre_is_the_width_of_bars():
    for width in (1, 3, 5, 7):
        bar = np.pad(np.ones((width, 30), dtype=bool), 1)
        skeleton = np.zeros_like(bar)
        skeleton[1 + width // 2, 10:20] = True
        assert np.unique(calibres(bar, skeleton)).tolist() == [width]


def test_centreline_recall_looks_at_its_own_calibre_and_skips_cases_without_it():
    reference = np.zeros((40, 60), dtype=int)
    reference[3, 5:55], reference[10:13, 5:55] = 1, 1
    prediction = np.zeros_like(reference)
    prediction[3, 5:25], prediction[10:13, 5:55] = 1, 1
    found = scores(prediction, reference, "RecallThin", "RecallMedium", "RecallThick")
    assert found["RecallThin"] == pytest.approx(20 / 50, abs=0.04)  # ends of the bar are thin as well
    assert found["RecallMedium"] == 1
    assert np.isnan(found["RecallThick"])


ARTERY_VEIN = ((1, 3), (2, 3))


def test_accuracy_among_classes_leaves_out_what_belongs_to_both():
    reference = drawn("11112222333300")
    prediction = drawn("11203222123312")
    among = among_classes(confusion_of_pair(reference, prediction, ARTERY_VEIN), ARTERY_VEIN)
    # artery: found at 3 of 4, right at 2; vein: found at 4 of 4 (once as a crossing), right at 3
    assert (among.num_reference, among.num_found, among.num_right) == ((4, 4), (3, 4), (2, 3))
    pairs = [MaskPair.of_masks(reference == 1, reference == 1, (1, 1), among=among.seen_from(own)) for own in (0, 1)]
    values = {name: [METRICS[name].compute(pair) for pair in pairs] for name in ("AccFound", "AccAll")}
    assert values == {"AccFound": [5 / 7, 5 / 7], "AccAll": [5 / 8, 5 / 8]}
    values = {name: [METRICS[name].compute(pair) for pair in pairs] for name in ("SensFound", "SensAll")}
    assert values == {"SensFound": [2 / 3, 3 / 4], "SensAll": [2 / 4, 3 / 4]}


def test_classes_that_contain_another_one_are_not_told_apart():
    assert disjoint_classes([(1, 3), (2, 3), (1, 2, 3)]) == [(1, 3), (2, 3)]
    assert disjoint_classes([1, 2, (4, 5)]) == [1, 2, (4, 5)]


def test_a_class_that_is_not_told_apart_has_no_accuracy_among_classes():
    reference, prediction = drawn("1122")[None, None], drawn("1212")[None, None]
    classes = (1, 2, (1, 2))
    found = score_arrays(reference, prediction, (999, 1, 1), classes, ("AccAll",), among=(1, 2)).values["AccAll"]
    assert found[:2] == (1 / 2, 1 / 2) and np.isnan(found[2])


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_matched_as_by_trying_all_pairs(seed):
    generator = np.random.default_rng(seed)
    reference = np.kron(generator.random((6, 6)) < 0.4, np.ones((5, 5), dtype=bool))
    prediction = np.roll(reference, 1, axis=0) & (generator.random(reference.shape) < 0.9)
    (predicted, num_predicted), (expected, num_reference) = (
        label(mask, np.ones((3, 3))) for mask in (prediction, reference)
    )
    ious = [
        ((predicted == i) & (expected == j)).sum() / ((predicted == i) | (expected == j)).sum()
        for i, j in product(range(1, num_predicted + 1), range(1, num_reference + 1))
    ]
    found = matched_objects(prediction, reference)
    assert sorted(found.ious) == sorted(iou for iou in ious if iou > 0.5) != []
    assert (found.num_predicted, found.num_reference) == (num_predicted, num_reference)


def test_object_scores_by_hand():
    reference = drawn("11..111", "11..111", ".......")
    prediction = drawn("11..11.", "1...11.", "..1....")
    # 3 of 4 and 4 of 6 pixels of two objects are found, and one object is false
    assert matched_objects(prediction > 0, reference > 0).ious == (3 / 4, 4 / 6)
    found = scores(prediction, reference, "ObjectF1", "PQ")
    assert found == pytest.approx({"ObjectF1": 4 / 5, "PQ": 17 / 30}, abs=1e-15)
