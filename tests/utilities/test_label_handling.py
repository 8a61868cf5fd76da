import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.utilities.label_handling.label_handling import (
    LabelManager,
    convert_labelmap_to_one_hot,
    determine_num_input_channels,
    get_labelmanager_class_from_plans,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.recorded.make_utilities_imageio import LABELS, label_managers
from tests.utilities.recorded_answers import recorded

PLAIN = {"background": 0, "liver": 1, "tumor": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


@pytest.mark.parametrize("name", LABELS)
def test_label_manager_answers_as_upstream(name):
    ours, theirs = label_managers()[name], recorded("label_managers")[name]
    assert ours.pop("scores_sum") == pytest.approx(theirs.pop("scores_sum"))
    assert ours == theirs


def test_all_labels_are_plain_integers():
    assert all(type(label) is int for label in LabelManager(PLAIN, None).all_labels)


@pytest.mark.parametrize("kind", ["numpy", "torch", "half", "bfloat16"])
def test_plain_labels_take_the_largest_score(kind):
    scores = np.array([[[0.1, 0.7]], [[0.6, 0.2]], [[0.3, 0.1]]], dtype=np.float32)  # (3, 1, 2)
    if kind != "numpy":
        scores = torch.from_numpy(scores).to({"half": torch.half, "bfloat16": torch.bfloat16}.get(kind, torch.float))
    segmentation = LabelManager(PLAIN, None).convert_probabilities_to_segmentation(scores)
    assert type(segmentation) is type(scores)
    assert segmentation.tolist() == [[1, 0]]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_later_regions_overwrite_earlier_ones(as_tensor):
    scores = np.array([[0.9, 0.9, 0.5, 0.2], [0.1, 0.8, 0.5, 0.6]])
    scores = torch.from_numpy(scores) if as_tensor else scores
    segmentation = LabelManager(REGIONS, [1, 2]).convert_probabilities_to_segmentation(scores)
    assert segmentation.tolist() == [1, 2, 0, 2]


def test_region_logits_above_zero_count():
    logits = torch.tensor([[3.0, -1.0, 0.0], [-3.0, 2.0, 0.0]])
    assert LabelManager(REGIONS, [7, 9], allow_lost_regions=True).convert_logits_to_segmentation(logits).tolist() == [
        7,
        9,
        0,
    ]


def test_scores_of_the_wrong_number_of_outputs_are_refused():
    with pytest.raises(ValueError, match="one entry per output, that is 3"):
        LabelManager(PLAIN, None).convert_probabilities_to_segmentation(np.zeros((2, 4, 4)))


def test_scores_have_no_gradient():
    scores = LabelManager(PLAIN, None).apply_inference_nonlin(torch.zeros(3, 2, requires_grad=True))
    assert not scores.requires_grad
    torch.testing.assert_close(scores, torch.full((3, 2), 1 / 3))


def test_own_nonlinearity_is_used():
    manager = LabelManager(PLAIN, None, inference_nonlin=lambda logits: logits * 2)
    assert manager.apply_inference_nonlin(np.ones((3, 1), np.float16)).tolist() == [[2.0]] * 3


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("labels", "order", "outside"), [(PLAIN, None, [1, 0, 0]), (REGIONS, [1, 2], [0, 0])])
def test_outside_the_crop_is_background(labels, order, outside, as_tensor):
    crop = np.full((len(outside), 1, 2), 0.25, dtype=np.float32)
    crop = torch.from_numpy(crop) if as_tensor else crop
    whole = LabelManager(labels, order).revert_cropping_on_probabilities(crop, [[1, 2], [0, 2]], (3, 4))
    assert tuple(whole.shape) == (len(outside), 3, 4)
    assert whole.dtype == crop.dtype
    assert whole[:, 1, :2].tolist() == [[0.25, 0.25]] * len(outside)
    assert whole[:, 0, 0].tolist() == outside
    assert whole[:, 1, 2].tolist() == outside


def test_regions_can_be_used_as_labels():
    manager = LabelManager(REGIONS, None, force_use_labels=True)
    assert not manager.has_regions
    assert manager.all_regions is None
    assert manager.num_segmentation_heads == 3


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"liver": 1}, None, '"labels" does not declare "background"; it must be 0'),
        ({"background": 1, "liver": 2}, None, '"background" in "labels" is 1; it must be 0'),
        ({"background": [0, 1], "liver": 2}, None, r'"background" in "labels" is \[0, 1\]; it must be 0'),
        ({"background": 0, "liver": 2}, None, r"uses the integers \[0, 2\], without \[1\]; .*renumber"),
        ({"background": 0, "liver": 1, "ignore": 5}, None, '"ignore" in "labels" is 5; .* highest of all: 2'),
        ({"background": 0, "liver": 1, "ignore": [2]}, None, r'"ignore" in "labels" is \[2\]; it must be one integer'),
        ({"background": 0, "liver": 1, "ignore": None}, None, "label 'ignore' .* is None; a label is an integer"),
        ({"0": "background", "1": "liver"}, None, "label '0' in \"labels\" is 'background'; .*nnU-Net v1"),
        ({"background": 0, "liver": 1.5}, None, "label 'liver' in \"labels\" is 1.5"),
        ({"background": 0, "liver": -1}, None, "label 'liver' in \"labels\" is -1"),
        ({"background": 0, "liver": []}, None, r"label 'liver' in \"labels\" is \[\]"),
        (["background", "liver"], None, '"labels" is .*; it must map names to integers'),
        (REGIONS, None, 'no "regions_class_order"; .* whole, core writes'),
        (REGIONS, [1], '"regions_class_order" has 1 entries; it needs one for each of the 2 regions whole, core'),
    ],
)
def test_wrong_declarations_are_refused_with_the_cure(labels, order, message):
    with pytest.raises(DataError, match=message):
        LabelManager(labels, order)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_one_hot_masks_partition_the_image(as_tensor):
    labels = np.random.default_rng(0).integers(0, 4, (3, 5))
    segmentation = torch.from_numpy(labels) if as_tensor else labels
    masks = convert_labelmap_to_one_hot(segmentation, [0, 1, 2, 3])
    assert str(masks.dtype).endswith("uint8")
    assert (masks.sum(0) == 1).all()
    assert (masks.argmax(0) == segmentation).all()


def test_one_hot_keeps_the_order_of_labels_with_gaps_and_ignores_others():
    masks = convert_labelmap_to_one_hot(np.array([-1, 2, 5, 0]), [5, 2], np.float32)
    assert masks.dtype == np.float32
    assert masks.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


def test_one_hot_of_many_labels_is_wide():
    assert convert_labelmap_to_one_hot(np.array([300]), [0, 300]).dtype == np.uint16


def test_cascade_gets_a_channel_for_each_foreground_label():
    plans = PlansManager({"configurations": {"low": {}, "full": {"previous_stage": "low"}}})
    for name in ("low", "full"):
        plans.plans["configurations"][name]["architecture"] = {}
    dataset = {"channel_names": {"0": "CT", "1": "PET"}, "labels": PLAIN}
    assert determine_num_input_channels(plans, "low", dataset) == 2
    assert determine_num_input_channels(plans, plans.get_configuration("full"), dataset) == 4


def test_channel_names_may_be_called_modality():
    plans = PlansManager({"configurations": {"2d": {"architecture": {}}}})
    assert determine_num_input_channels(plans, "2d", {"modality": {"0": "CT"}, "labels": PLAIN}) == 1
    with pytest.raises(DataError, match='no key "channel_names"'):
        determine_num_input_channels(plans, "2d", {"labels": PLAIN})


def test_plans_name_the_label_manager():
    assert get_labelmanager_class_from_plans({}) is LabelManager
    assert get_labelmanager_class_from_plans({"label_manager": "LabelManager"}) is LabelManager
