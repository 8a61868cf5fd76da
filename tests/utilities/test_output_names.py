"""Names of what is scored."""

from __future__ import annotations

from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.label_handling.output_names import foreground_names


def test_labels_are_named_in_the_order_of_their_values():
    labels = LabelManager({"background": 0, "tumour": 2, "liver": 1, "ignore": 3}, None)
    assert list(foreground_names(labels).items()) == [(1, "liver"), (2, "tumour")]


def test_regions_are_named_in_the_order_of_dataset_json():
    declared = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    names = foreground_names(LabelManager(declared, [1, 2, 3]))
    assert list(names.items()) == [((1, 2, 3), "whole"), ((2, 3), "core"), (3, "enhancing")]


def test_where_regions_are_split_into_labels_these_have_their_own_names_or_none():
    declared = {"background": 0, "whole": [1, 2], "core": [2]}
    assert foreground_names(LabelManager(declared, [1, 2], force_use_labels=True)) == {1: "1", 2: "core"}


def test_a_list_of_one_is_a_region_among_regions():
    names = foreground_names(LabelManager({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2]))
    assert names == {(1, 2): "whole", (2,): "core"}
