"""Agreement of predicted with reference volumes."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, nan, sqrt

import numpy as np

from nnunetv2.comparison.results import Interval
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.statistics.trainings import distinct_runs

_NORMAL_QUANTILE = 1.96  # standard deviations that enclose 95 % of a normal distribution


@dataclass(frozen=True, eq=False)
class VolumeAgreement:
    """Predicted volumes of one class and method, in mm^3, or mm^2 for 2D images (px where pixels have no size).

    Only cases whose reference has the class count, as for the scores, so they are the same for all methods.
    """

    method: str
    class_name: str
    means: np.ndarray
    """(N,) means of predicted and reference volume; the prediction is averaged over the trainings"""
    differences: np.ndarray
    """(N,) predicted - reference"""
    bias: float
    """mean difference; NaN without cases"""
    limits: Interval
    """limits of agreement; NaN for fewer than two cases"""


def volume_agreement(scores: ScoreTable) -> list[VolumeAgreement]:
    """Compute the agreement, nested as class, method."""
    return [
        _agreement(scores, method, place)
        for place, name in enumerate(scores.classes)
        for method in scores.methods_of(name)
    ]


def limits_of_agreement(differences: np.ndarray) -> tuple[float, Interval]:
    """Mean of (N,) differences, and the range that contains 95 % of them if they are normally distributed.

    Source: Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical measurement",
    The Lancet 327 (1986): mean +- 1.96 standard deviations.
    """
    number = len(differences)
    bias = fsum(differences) / number if number else nan
    if number < 2:
        return bias, Interval(nan, nan)
    half = _NORMAL_QUANTILE * sqrt(fsum((differences - bias) ** 2) / (number - 1))
    return bias, Interval(bias - half, bias + half)


def _agreement(scores: ScoreTable, method: str, class_position: int) -> VolumeAgreement:
    reference = scores.num_reference[:, class_position]
    counts = reference > 0
    predicted = scores.num_predicted[distinct_runs(scores, method), :, class_position].mean(axis=0)
    differences = ((predicted - reference) * scores.voxel_volume)[counts]
    means = ((predicted + reference) / 2 * scores.voxel_volume)[counts]
    return VolumeAgreement(
        method, scores.classes[class_position], means, differences, *limits_of_agreement(differences)
    )
