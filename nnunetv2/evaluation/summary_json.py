"""Read and write `summary.json`, whose keys are labels and regions as text."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.evaluation.confusion import LabelOrRegion


def label_or_region_to_key(label_or_region: LabelOrRegion) -> str:
    """`2` becomes "2", `(1, 3)` becomes "(1, 3)"."""
    return str(label_or_region)


def key_to_label_or_region(key: str) -> LabelOrRegion:
    """The inverse of `label_or_region_to_key`: "2" becomes `2`, "(1, 3)" becomes `(1, 3)`, "(1,)" becomes `(1,)`."""
    if key.startswith("("):
        return tuple(int(label) for label in key.strip("()").split(",") if label.strip())
    return int(key)


def save_summary_json(results: dict[str, Any], output_file: str | os.PathLike) -> None:
    """Writes the result of `compute_metrics_on_folder`; keys are sorted, so that `foreground_mean` stands first."""
    write_json(_with_keys(results, label_or_region_to_key), output_file, sort_keys=True)


def load_summary_json(filename: str | os.PathLike) -> dict[str, Any]:
    """Reads what `save_summary_json` wrote; labels are `int` again and regions tuples."""
    return _with_keys(read_json(filename), key_to_label_or_region)


def _with_keys(results: dict[str, Any], rename: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns a copy in which the keys that stand for labels or regions are renamed."""

    def renamed(metrics: dict[Any, Any]) -> dict[Any, Any]:
        return {rename(key): value for key, value in metrics.items()}

    cases = [{**case, "metrics": renamed(case["metrics"])} for case in results["metric_per_case"]]
    return {**results, "mean": renamed(results["mean"]), "metric_per_case": cases}
