"""Averages of the metrics of cases: per region over the cases, then over the regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunetv2.evaluation.confusion import LabelOrRegion


def summary_of_cases(cases: Sequence[dict[str, Any]], regions: Sequence[LabelOrRegion]) -> dict[str, Any]:
    """Returns the content of summary.json for what `compute_metrics` says of each case.

    Returns:
        `metric_per_case`, the cases themselves; `mean`: for each region the mean over the cases in which a metric is
        defined; `foreground_mean`: the mean of those over all regions but background.
    """
    mean = {region: _mean_over_cases([case["metrics"][region] for case in cases]) for region in regions}
    return {"metric_per_case": list(cases), "mean": mean, "foreground_mean": _mean_over_foreground(mean)}


def _mean_over_cases(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {}
    for name in metrics[0]:
        values = np.array([case[name] for case in metrics], dtype=float)
        means[name] = math.nan if np.isnan(values).all() else float(np.nanmean(values))
    return means


def _mean_over_foreground(mean: dict[LabelOrRegion, dict[str, float]]) -> dict[str, float]:
    foreground = [metrics for region, metrics in mean.items() if region not in (0, "0")]
    names = next(iter(mean.values()))
    return {name: float(np.mean([m[name] for m in foreground])) if foreground else math.nan for name in names}
