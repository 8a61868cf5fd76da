"""Summarise the scores of each method per metric and class, and its detection of classes."""

from __future__ import annotations

from math import fsum

import numpy as np

from nnunetv2.comparison.results import ALL_CLASSES, DetectionResult, Interval, MethodSummary
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.bootstrap import bca_intervals, random_stream
from nnunetv2.comparison.statistics.trainings import MethodScores, distinct_runs, method_scores


def summaries(scores: ScoreTable, settings: CompareSettings) -> tuple[MethodSummary, ...]:
    """Summarise all scores, nested as metric, class (mean over classes first), method.

    Undefined numbers are NaN: all of a class that counts in no case; interval and deviation for a single case.
    """
    return tuple(
        summary
        for metric in settings.metrics
        for class_name in (ALL_CLASSES, *scores.classes)
        for summary in _summaries_of(scores, metric, class_name, settings)
    )


def summaries_of(scores: ScoreTable, class_name: str | None, settings: CompareSettings) -> tuple[MethodSummary, ...]:
    """Summarise the scores of a class, or for None of the mean over classes, nested as metric, method."""
    return tuple(each for metric in settings.metrics for each in _summaries_of(scores, metric, class_name, settings))


def _summaries_of(
    scores: ScoreTable, metric: str, class_name: str | None, settings: CompareSettings
) -> list[MethodSummary]:
    methods = method_scores(scores, metric, class_name)
    intervals = bca_intervals(
        np.stack([method.case_means for method in methods], axis=1),
        settings.alpha,
        settings.num_resamples,
        random_stream(settings.seed, metric, class_name),
    )
    return [_summary(method, metric, class_name, interval) for method, interval in zip(methods, intervals, strict=True)]


def _summary(method: MethodScores, metric: str, class_name: str | None, interval: Interval) -> MethodSummary:
    cases, num_runs = method.case_means, len(method.runs)
    nothing = float("nan")
    lower, median, upper = np.quantile(cases, (0.25, 0.5, 0.75)).tolist() if len(cases) else (nothing,) * 3
    return MethodSummary(
        method=method.method,
        metric=metric,
        class_name=class_name,
        num_cases=len(cases),
        num_runs=num_runs,
        mean=float(cases.mean()) if len(cases) else nothing,
        interval=interval,
        standard_deviation=float(cases.std(ddof=1)) if len(cases) > 1 else nothing,
        median=median,
        quartiles=(lower, upper),
        seed_deviation=float(method.runs.mean(axis=1).std(ddof=1)) if num_runs > 1 and len(cases) else None,
    )


def detection(scores: ScoreTable) -> tuple[DetectionResult, ...]:
    """Rates of false detections and misses, nested as class, method; the reference alone selects the cases."""
    return tuple(
        _detection_of(scores, method, position)
        for position, name in enumerate(scores.classes)
        for method in scores.methods_of(name)
    )


def _detection_of(scores: ScoreTable, method: str, class_position: int) -> DetectionResult:
    is_absent = scores.num_reference[:, class_position] == 0
    num_predicted = scores.num_predicted[distinct_runs(scores, method), :, class_position]
    volumes = num_predicted.sum(axis=0) * scores.voxel_volume
    has_absent, has_present = bool(is_absent.any()), not is_absent.all()
    return DetectionResult(
        method=method,
        class_name=scores.classes[class_position],
        num_absent=int(is_absent.sum()),
        false_positive_rate=float((num_predicted[:, is_absent] > 0).mean()) if has_absent else None,
        false_positive_volume=fsum(volumes[is_absent]) / num_predicted[:, is_absent].size if has_absent else None,
        num_present=int((~is_absent).sum()),
        missed_rate=float((num_predicted[:, ~is_absent] == 0).mean()) if has_present else None,
    )
