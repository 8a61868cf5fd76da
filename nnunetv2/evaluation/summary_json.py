"""`summary.json`: average metrics over cases, and read and write them with labels and regions as text keys."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.evaluation.confusion import LabelOrRegion


def label_or_region_to_key(label_or_region: LabelOrRegion) -> str:
    """Convert `2` to "2" and `(1, 3)` to "(1, 3)"."""
    return str(label_or_region)


def key_to_label_or_region(key: str) -> LabelOrRegion:
    """Inverse of `label_or_region_to_key`: "2" becomes `2`, "(1, 3)" becomes `(1, 3)`, "(1,)" becomes `(1,)`."""
    if key.startswith("("):
        return tuple(int(label) for label in key.strip("()").split(",") if label.strip())
    return int(key)


def save_summary_json(results: dict[str, Any], output_file: str | os.PathLike) -> None:
    """Write the result of `compute_metrics_on_folder`; keys are sorted, so `foreground_mean` comes first."""
    write_json(_with_keys(results, label_or_region_to_key), output_file, sort_keys=True)


def load_summary_json(filename: str | os.PathLike) -> dict[str, Any]:
    """Read the output of `save_summary_json`, restoring `int` labels and tuple regions."""
    return _with_keys(read_json(filename), key_to_label_or_region)


def _with_keys(results: dict[str, Any], rename: Callable[[Any], Any]) -> dict[str, Any]:
    """Copy with renamed keys for labels and regions."""

    def renamed(metrics: dict[Any, Any]) -> dict[Any, Any]:
        return {rename(key): value for key, value in metrics.items()}

    cases = [{**case, "metrics": renamed(case["metrics"])} for case in results["metric_per_case"]]
    return {**results, "mean": renamed(results["mean"]), "metric_per_case": cases}


def summary_of_cases(
    cases: Sequence[dict[str, Any]],
    regions: Sequence[LabelOrRegion],
    names: Mapping[str, LabelOrRegion] | None = None,
    primary: Sequence[LabelOrRegion] = (),
) -> dict[str, Any]:
    """Build the content of summary.json from the results of `compute_metrics` per case.

    Args:
        names: of the regions, added as `regions` if there are any.
        primary: regions whose mean is added as `primary_mean` if there are any.

    Returns:
        `metric_per_case`, the given cases; `mean`: for each region the mean over the cases in which a metric is
        defined; `foreground_mean`: their mean over all regions except background.
    """
    mean = {region: _mean_over_cases([case["metrics"][region] for case in cases]) for region in regions}
    summary = {"metric_per_case": list(cases), "mean": mean, "foreground_mean": _mean_over_foreground(mean)}
    if names:
        summary["regions"] = {name: label_or_region_to_key(region) for name, region in names.items()}
    if primary:
        summary["primary_mean"] = _mean_over_foreground({region: mean[region] for region in primary})
    return summary


def _mean_over_cases(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {}
    for name in metrics[0]:
        values = np.array([case[name] for case in metrics], dtype=float)
        # nanmean warns about input that is all NaN.
        means[name] = math.nan if np.isnan(values).all() else float(np.nanmean(values))
    return means


def _mean_over_foreground(mean: dict[LabelOrRegion, dict[str, float]]) -> dict[str, float]:
    foreground = [metrics for region, metrics in mean.items() if region not in (0, "0")]
    names = dict.fromkeys(name for metrics in mean.values() for name in metrics)
    values = {name: [metrics[name] for metrics in foreground if name in metrics] for name in names}
    return {name: float(np.mean(each)) if each else math.nan for name, each in values.items()}
