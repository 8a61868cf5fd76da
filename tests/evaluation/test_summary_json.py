from __future__ import annotations

import json
import math

import pytest

from nnunetv2.evaluation.evaluate_predictions import (
    key_to_label_or_region,
    label_or_region_to_key,
    load_summary_json,
    save_summary_json,
)


@pytest.mark.parametrize(("region", "key"), [(3, "3"), ((1, 3), "(1, 3)"), ((2,), "(2,)"), ((1, 2, 3), "(1, 2, 3)")])
def test_keys_stand_for_labels_and_regions(region, key):
    assert label_or_region_to_key(region) == key
    assert key_to_label_or_region(key) == region


def test_summary_is_read_as_it_was_written(tmp_path):
    summary = {
        "metric_per_case": [{"metrics": {1: {"TP": 3}, (1, 2): {"TP": 4}}, "prediction_file": "p"}],
        "mean": {1: {"TP": 3.0}, (1, 2): {"TP": 4.0}},
        "foreground_mean": {"TP": 3.5},
    }
    save_summary_json(summary, tmp_path / "summary.json")
    assert load_summary_json(tmp_path / "summary.json") == summary
    assert list(json.loads((tmp_path / "summary.json").read_text())) == ["foreground_mean", "mean", "metric_per_case"]


def test_undefined_metrics_are_kept(tmp_path):
    summary = {"metric_per_case": [], "mean": {1: {"Dice": math.nan}}, "foreground_mean": {"Dice": math.nan}}
    save_summary_json(summary, tmp_path / "summary.json")
    assert math.isnan(load_summary_json(tmp_path / "summary.json")["mean"][1]["Dice"])
