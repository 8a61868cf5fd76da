"""Classes that are not in a case, and classes that are missed."""

from __future__ import annotations

from math import fsum

from nnunetv2.comparison.results import DetectionResult
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.statistics.trainings import distinct_runs


def detection(scores: ScoreTable) -> tuple[DetectionResult, ...]:
    """Every class, within it every method. The cases of a kind are the same for all methods: the reference decides."""
    return tuple(
        _detection_of(scores, method, position) for position in range(len(scores.classes)) for method in scores.methods
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
