"""Whether trained models differ on the cases at hand: signed-rank tests over cases, adjusted within their family."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.results import Interval, TrainedModelsTest
from nnunetv2.comparison.settings import CompareSettings, Metric
from nnunetv2.comparison.statistics.holm import holm
from nnunetv2.comparison.statistics.signed_rank import hodges_lehmann, rank_biserial, signed_rank_p
from nnunetv2.comparison.statistics.verdicts import verdict


def signed_rank_family(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p-values of the pairs of a family, plain and adjusted; NaN where there is no case.

    Args:
        differences: (N, P) first - second on each case, for each pair.
    """
    p_values = np.array([signed_rank_p(column) for column in differences.T])
    return p_values, holm(p_values)


def trained_models_tests(
    differences: np.ndarray, intervals: tuple[Interval, ...], metric: Metric, settings: CompareSettings
) -> list[TrainedModelsTest]:
    """The tests of a family of pairs; see `signed_rank_family`.

    A verdict follows the signed ranks, that is what happens in most cases. The mean difference can have the other sign
    where few cases differ much.
    """
    sign = 1 if metric.higher_is_better else -1
    p_values, adjusted = signed_rank_family(differences)
    tests = []
    for column, interval, p, p_holm in zip(differences.T, intervals, p_values, adjusted, strict=True):
        effect = rank_biserial(sign * column)
        tests.append(
            TrainedModelsTest(
                p=float(p),
                p_holm=float(p_holm),
                interval=interval,
                hodges_lehmann=hodges_lehmann(column),
                rank_biserial=effect,
                verdict=verdict(effect, float(p_holm), settings.alpha),
            )
        )
    return tests
