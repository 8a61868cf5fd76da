"""What is compared when a training is resumed."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.protocol.training_record import RECORD, record_differences, record_of, require_same_training
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.training.tiny_dataset import DATASET_JSON, tiny_plans

SETTINGS = {"training": {"lr": 0.01, "num_epochs": 5, "save_every": 2, "num_iterations_per_epoch": 7}, "loss": {}}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def record(
    settings: dict[str, Any] | None = None, split: tuple = (["a", "b"], ["c"]), **dataset: Any
) -> dict[str, Any]:
    return record_of(PlansManager(tiny_plans()), "2d", {**DATASET_JSON, **dataset}, split, settings)


def test_the_order_of_cases_and_keys_is_no_difference() -> None:
    labels = dict(reversed(DATASET_JSON["labels"].items()))
    assert record_differences(record(), record(split=(["b", "a"], ["c"]), labels=labels)) == []
    assert [line.partition(":")[0] for line in record_differences(record(), record(split=(["a", "c"], ["b"])))] == [
        "split.train",
        "split.val",
    ]


def test_the_order_of_regions_is_that_of_the_outputs() -> None:
    before = record(labels=REGIONS, regions_class_order=[1, 2])
    now = record(labels=dict(reversed(REGIONS.items())), regions_class_order=[1, 2])
    assert record_differences(before, now) == [
        "dataset.order_of_regions: ['background', 'whole', 'core'] -> ['core', 'whole', 'background']"
    ]


def test_settings_of_length_and_interval_may_change_and_others_may_not() -> None:
    now = copy.deepcopy(SETTINGS)
    now["training"].update(num_epochs=9, save_every=1, lr=0.02)
    assert record_differences(record(SETTINGS), record(now)) == ["settings.training.lr: 0.01 -> 0.02"]


def test_a_setting_of_a_later_version_is_no_difference_and_a_new_label_is() -> None:
    later = {**SETTINGS, "training": {**SETTINGS["training"], "new": 1}}
    assert record_differences(record(SETTINGS), record(later)) == []
    named_as_a_setting = record(labels={**DATASET_JSON["labels"], "checkpoint": 3})
    assert record_differences(record(), named_as_a_setting) == ["dataset.labels.checkpoint: absent -> 3"]


def test_what_the_command_of_the_start_has_set_is_not_a_change(caplog: pytest.LogCaptureFixture) -> None:
    started = {**SETTINGS, "training": {**SETTINGS["training"], "num_iterations_per_epoch": 3}}
    content = {RECORD: record(started), "budget": {"num_iterations_per_epoch": 3}}
    require_same_training(content, record(SETTINGS), "latest.pth", allowed=False)
    with pytest.raises(UsageError, match=r"latest\.pth was started with something else: .*num_iterations.*: 3 -> 7"):
        require_same_training({RECORD: record(started)}, record(SETTINGS), "latest.pth", allowed=False)
    with caplog.at_level(logging.WARNING):
        require_same_training({RECORD: record(started)}, record(SETTINGS), "latest.pth", allowed=True)
    assert "goes on with changes: settings.training.num_iterations_per_epoch: 3 -> 7" in caplog.text
