"""The matcher: costs against transformers, permutations, numbers that are not finite, more targets than queries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from dinov3.eval.segmentation.loss.hungarian_matcher import HungarianMatcher, assign, cross_entropy_cost, dice_cost
from dinov3.eval.segmentation.loss.point_sampling import WholeImage

CPU = torch.device("cpu")


def make_case(num_predictions=2, counts=(2, 3), queries=5, classes=4):
    logits = torch.randn(num_predictions, len(counts), queries, classes + 1)
    masks = [torch.randn(len(counts), queries, 8, 8) * 3 for _ in range(num_predictions)]
    targets = [
        {"labels": torch.randint(classes, (count,)), "masks": torch.rand(count, 16, 16) > 0.5} for count in counts
    ]
    return logits, masks, targets


def match(logits, masks, targets, seed=0, **settings):
    torch.manual_seed(seed)
    return HungarianMatcher(num_points=64, **settings)(logits, masks, targets, WholeImage(len(targets), CPU))


def test_costs_equal_transformers(seeded):
    from transformers.models.mask2former.modeling_mask2former import (
        pair_wise_dice_loss,
        pair_wise_sigmoid_cross_entropy_loss,
    )

    logits, labels = torch.randn(1, 5, 40) * 4, torch.rand(1, 3, 40)
    assert_close(cross_entropy_cost(logits, labels)[0], pair_wise_sigmoid_cross_entropy_loss(logits[0], labels[0]))
    assert_close(dice_cost(logits, labels)[0], pair_wise_dice_loss(logits[0], labels[0]))


@pytest.mark.parametrize(
    ("coefficient", "query"), [("class_coefficient", 0), ("mask_coefficient", 1), ("dice_coefficient", 2)]
)
def test_each_coefficient_weighs_its_own_cost(seeded, coefficient, query):
    """The target is a quarter of the image. Each query has the least of one cost, and that one alone is weighed.

    Query 0 is sure of the class and masks the other half (cross entropy 20 * 3/4, Dice cost 1). Query 1 says 1/4
    everywhere (0.56 and 3/4). Query 2 masks the half that the target is in (20 * 1/4 and 1/3).
    """
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, :, :4] = True
    masks = torch.full((1, 3, 16, 16), -20.0)
    masks[0, 0, :, 8:] = 20.0
    masks[0, 1] = -math.log(3.0)
    masks[0, 2, :, :8] = 20.0
    logits = torch.tensor([[[[5.0, 0.0], [0.0, 5.0], [0.0, 5.0]]]])
    settings = {"class_coefficient": 0.0, "mask_coefficient": 0.0, "dice_coefficient": 0.0, coefficient: 1.0}
    targets = [{"labels": torch.tensor([0]), "masks": mask}]
    matcher = HungarianMatcher(**settings, num_points=512)
    assert matcher(logits, [masks], targets, WholeImage(1, CPU)).queries.tolist() == [[query]]


def test_queries_that_are_the_targets_are_matched_to_them(seeded):
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, 4:, :4], masks[2, 4:, 4:] = True, True, True
    targets = [{"labels": torch.tensor([0, 1, 2]), "masks": masks}]
    order = torch.tensor([2, 0, 1])  # query q predicts target order[q]
    logits = torch.nn.functional.one_hot(order, 4)[None, None] * 10.0
    matching = match(logits, [(masks[order].float() * 20 - 10)[None]], targets)
    assert matching.queries.tolist() == [[1, 2, 0]]
    assert matching.images.tolist() == [0, 0, 0]
    assert matching.num_nonfinite == 0


def test_permuting_queries_and_targets_permutes_the_matching(seeded):
    logits, masks, targets = make_case()
    expected = match(logits, masks, targets).queries
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = match(logits[:, :, order], [mask[:, order] for mask in masks], targets).queries
    assert_close(order[permuted], expected)
    turned = [{key: value.flip(0) for key, value in target.items()} for target in targets]
    assert_close(match(logits, masks, turned).queries, expected[:, [1, 0, 4, 3, 2]])


def test_all_predictions_are_matched_at_the_same_points(seeded):
    logits, masks, targets = make_case(num_predictions=1)
    matching = match(logits.repeat(3, 1, 1, 1), masks * 3, targets)
    assert (matching.queries == matching.queries[0]).all()


def test_images_without_targets_are_left_out(seeded):
    logits, masks, targets = make_case(counts=(0, 2, 0))
    matching = match(logits, masks, targets)
    assert matching.images.tolist() == [1, 1]
    assert matching.queries.shape == (2, 2)


def test_batch_without_targets_needs_no_matching(seeded):
    matching = match(*make_case(counts=(0, 0)))
    assert matching.images.shape == (0,)
    assert matching.queries.shape == (2, 0)


def test_targets_beyond_the_number_of_queries_get_none(seeded):
    matching = match(*make_case(num_predictions=1, counts=(7,), queries=3))
    assert sorted(matching.queries[0].tolist()) == [0, 1, 2, 3, 3, 3, 3]  # 3 stands for no query


def test_assignment_equals_scipy_for_each_image(seeded):
    costs = np.random.default_rng(0).normal(size=(2, 3, 6, 4)).astype(np.float32)
    queries, num_nonfinite = assign(costs, [4, 1, 3])
    assert num_nonfinite == 0
    for prediction in range(2):
        for image, part in enumerate((slice(0, 4), slice(4, 5), slice(5, 8))):
            rows, columns = linear_sum_assignment(costs[prediction, image, :, : part.stop - part.start])
            assert queries[prediction, part].tolist() == rows[np.argsort(columns)].tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_costs_that_are_not_finite_are_matched_last(bad):
    cost = np.array([[0.0, 0.0], [5.0, 9.0], [9.0, 5.0]])
    cost[0] = bad
    queries, num_nonfinite = assign(cost[None, None], [2])
    assert queries.tolist() == [[1, 2]]
    assert num_nonfinite == 2


@pytest.mark.parametrize(
    ("beside_the_bad_one", "diagonal"),
    [
        ((9.0, 10.0), -10.0),  # 9 + 10 without the bad cost, -10 and the bad cost with it
        ((-1.0, -2.0), -10.0),  # all costs below zero
        ((0.0, 0.0), 0.0),
    ],
)
def test_no_gain_of_other_pairs_pays_for_a_cost_that_is_not_finite(beside_the_bad_one, diagonal):
    right, below = beside_the_bad_one
    cost = np.array([[np.nan, right], [below, diagonal]])
    queries, _ = assign(cost[None, None], [2])
    assert queries.tolist() == [[1, 0]]


def test_differences_of_finite_costs_survive_beside_others():
    """With the largest float as the price of a bad pair, all other differences would be rounded away."""
    cost = np.array([[np.nan, np.nan, np.nan], [1.0, 1.001, 1.0], [1.001, 1.0, 1.002]])
    queries, _ = assign(cost[None, None], [3])
    assert queries[0, 1] == 2
    assert queries[0, 0] + queries[0, 2] == 1


def test_nothing_finite_is_still_matched():
    queries, num_nonfinite = assign(np.full((1, 1, 3, 2), np.nan), [2])
    assert len(set(queries[0].tolist())) == 2
    assert num_nonfinite == 6


def test_padding_of_smaller_images_is_not_counted(seeded):
    logits, masks, targets = make_case(num_predictions=1, counts=(1, 3))
    logits[0, 0, 2] = float("nan")
    assert match(logits, masks, targets).num_nonfinite == 1


@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (5, 5)])
@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_matching_on_the_device_is_the_same(seeded, counts, bad):
    logits, masks, targets = make_case(counts=counts)
    if bad is not None:
        logits[0, 1, 2] = bad
        masks[1][1, 0] = bad
    there, here = (match(logits, masks, targets, on_device=on_device) for on_device in (True, False))
    assert torch.equal(there.images, here.images)
    assert torch.equal(there.queries, here.queries)
    assert int(there.num_nonfinite) == here.num_nonfinite


def test_more_targets_than_queries_are_matched_on_the_host(seeded):
    case = make_case(num_predictions=1, counts=(7, 2), queries=3)
    assert torch.equal(match(*case, on_device=True).queries, match(*case).queries)
